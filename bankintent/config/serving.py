"""serve.yaml, and the settings of the Gradio page."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bankintent.config.base import Name, RuntimeName, Section, no_repeats
from bankintent.config.cluster import Engine, ServeRaySection
from bankintent.config.models import ModelId, ModelLimitsSection, ModelSection

CompatName = Literal["rasa", "clu", "luis"]
"""A service whose clients the API can answer. clu, luis: Azure's language services."""


Prefix = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*/?$")]
"""The prefix of all addresses behind a proxy."""


class BatchingSection(Section):
    """`batching:` the size of one forward pass over waiting texts."""

    max_texts: Annotated[int, Field(ge=1)] = 8
    """Most texts in one forward pass.

    On a CPU more than 8 are not faster and need more padding; a GPU works best with about 64.
    """
    max_tokens: Annotated[int, Field(ge=1)] = 4096
    """Most tokens in one forward pass, padding included; a longer text gets a pass of its own."""


class LimitsSection(Section):
    """`limits:` bounds of one request, and of all that are held; `/info` shows them."""

    max_body_bytes: Annotated[int, Field(ge=100)] = 1_048_576
    """Longest request body; longer is 413."""
    max_texts: Annotated[int, Field(ge=1)] = 64
    """Most texts in one request; more is 422."""
    max_chars: Annotated[int, Field(ge=1)] = 5000
    """Longest text, in characters; longer is 422."""
    max_queue: Annotated[int, Field(ge=1)] = 1024
    """Texts that may be admitted and not yet answered; more is 429."""
    max_explained: Annotated[int, Field(ge=0)] = 4
    """Most texts in one request with `explain: true`; more is 422, and 0 explains none.

    Each takes one place in the queue for itself and one for each of its words, at most 65 in all.
    """
    deadline_s: Annotated[float, Field(gt=0)] = 10.0
    """Most seconds from a request's arrival to its answer; later is 504.

    Texts that no batch has taken by then are not computed.
    """
    shutdown_s: Annotated[float, Field(gt=0)] = 15.0
    """Most seconds from SIGTERM to the end of the process."""
    max_connections: Annotated[int, Field(ge=1)] = 1000
    """Open connections.

    For one more, the oldest of those that wait for their client is closed; where all wait for the
    server, it is 503.
    """
    max_header_bytes: Annotated[int, Field(ge=1000)] = 32_768
    """Longest request line and headers together; longer is 431."""
    header_s: Annotated[float, Field(gt=0)] = 10.0
    """Most seconds from the start of a connection, or the first byte of a later request, to the end
    of the headers; later is 408."""
    keep_alive_s: Annotated[float, Field(gt=0)] = 75.0
    """Most seconds without a request before an idle connection is closed.

    The usual load balancers keep theirs for 60 s: where the server closed first, they would send
    requests on connections that are closing.
    """
    answer_s: Annotated[float, Field(gt=0)] = 10.0
    """Most seconds without progress while a client reads its answer."""


class ServeConfig(Section):
    """serve.yaml: the HTTP API."""

    model_dir: Path | None = None
    """A bundle, its merged/, or a sequence classification folder.

    The variable MODEL_DIR wins over the file. Beside `models` or `models_dir` it is one model more,
    by its folder's name, and the default model.
    """
    models: dict[ModelId, ModelSection] = {}
    """Several models by name, each with its own queue, limits and policy; a request chooses one by
    `model`. See docs/how-to/several-models.md."""
    models_dir: Path | None = None
    """A folder that is watched: every bundle in it is a model by its folder's name.

    A bundle that appears is added, a new one under the same name takes the place of the old one,
    and a removed one is dropped. No request is lost by it. A name in `models` wins.
    """
    base: Path | None = None
    """A base that is loaded once for all bundles of `models` and `models_dir` that were trained on
    it with LoRA. They keep their adapters and heads; others are models of their own. Either what
    `bankintent share` has exported, or a LoRA bundle, whose base torch computes. See
    docs/how-to/several-models.md."""
    default_model: ModelId | None = None
    """The model of requests that name none.

    By default that of `model_dir`, or the only one; otherwise a request has to name one.
    """
    memory_mb: Annotated[int, Field(ge=1)] | None = None
    """Megabytes that the loaded models may take together.

    For one more, those that were not asked for the longest time are unloaded, but none with work in
    hand. By default nothing is unloaded.
    """
    watch_s: Annotated[float, Field(gt=0)] = 2.0
    """Seconds between two looks at the files of the models; SIGHUP looks at once."""
    host: Name = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    root_path: Prefix = ""
    """Prefix of all addresses behind a proxy, such as `/intents`, which it may strip or keep."""
    runtime: RuntimeName = "auto"
    """The runtime that computes the answers. auto: the fastest that the bundle has verified and the
    installation offers, or torch on a GPU; torch: PyTorch; onnx: ONNX Runtime in float32;
    onnx-int8: ONNX Runtime in 8 bits; openvino: OpenVINO in bf16."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the model; by default one for each core that the process may use."""
    cache: Annotated[int, Field(ge=0)] = 0
    """Number of different texts whose answers are kept, so that a repeated text costs nothing.

    0 keeps no texts of users in memory.
    """
    compat: list[CompatName] = []
    """Other services whose clients are answered too, each on the paths that its clients ask.

    Their requests have the limits and the key of `/predict`; see docs/how-to/compat.md.
    """
    allowed_hosts: list[Name] | None = None
    """Host names that requests may name, beside those of loopback; `*.` before a name allows its
    subdomains, and `*` any host.

    By default none on loopback, so that a web page cannot reach the API by a name of its own, and
    any on other addresses. Health probes may name any host.
    """
    allowed_origins: list[Name] = []
    """Origins of web pages, such as https://example.org, that may post, beside the server's own."""
    evals_dir: Path = Path("artifacts/evals")
    """Folder of the evaluations of `python -m eval`, whose plots `/card` shows."""
    batching: BatchingSection = BatchingSection()
    limits: LimitsSection = LimitsSection()
    engine: Engine = "local"
    """What serves. local: this process; ray: replicas on a Ray cluster, behind Ray Serve."""
    ray: ServeRaySection = ServeRaySection()

    _unique = field_validator("compat")(no_repeats)

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, hosts: list[str] | None) -> list[str] | None:
        for host in hosts or ():
            if not re.fullmatch(r"\*|(\*\.)?[^*:/@\s]+|\[?[0-9a-fA-F:.]+\]?", host):
                raise ValueError(
                    f"{host!r} is no host; write a name or an address without http:// and port"
                )
        return hosts

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/@*\s]+/?", origin):
                raise ValueError(f"{origin!r} is no origin; write it such as https://example.org")
        return origins

    @property
    def has_several(self) -> bool:
        """Whether models are chosen by name; otherwise there is the one of `model_dir`."""
        return bool(self.models) or self.models_dir is not None

    @model_validator(mode="after")
    def _models_fit(self) -> Self:
        if not self.has_several:
            for key in ("base", "default_model", "memory_mb"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} needs several models; set models or models_dir")

        for name, model in self.models.items():
            problem = _find_wider(model.limits, self.limits)
            if problem is not None:
                raise ValueError(f"models.{name}.limits.{problem}")
        return self

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        limits = self.limits
        # Such a request could never be admitted, not even by an idle server.
        if limits.max_texts > limits.max_queue:
            raise ValueError(
                f"limits.max_texts is {limits.max_texts},"
                f" more than max_queue ({limits.max_queue}) takes"
            )

        # Requests that were admitted before SIGTERM must have time for their answers.
        if limits.shutdown_s <= limits.deadline_s:
            raise ValueError(
                f"limits.shutdown_s is {limits.shutdown_s:g}, which would cut requests"
                f" that deadline_s ({limits.deadline_s:g}) still allows"
            )
        return self


def _find_wider(own: ModelLimitsSection, shared: LimitsSection) -> str | None:
    """The problem of a model's limits, in words; None where there is none."""
    for key in ("max_texts", "max_chars", "max_explained", "deadline_s"):
        value = getattr(own, key)
        most = getattr(shared, key)
        if value is not None and value > most:
            return f"{key} is {value:g}, more than limits.{key} ({most:g})"

    texts = shared.max_texts if own.max_texts is None else own.max_texts
    queue = shared.max_queue if own.max_queue is None else own.max_queue
    if texts > queue:
        return f"max_queue is {queue}, less than its max_texts ({texts})"
    return None


class FrontendConfig(Section):
    """page.yaml: the Gradio page."""

    backend_url: str | None = None
    """The API's address, for example http://127.0.0.1:8000.

    Without it the page starts an API of its own.
    """
    serve_config: Path | None = None
    """The serve.yaml of the API that the page starts."""
    model_dir: Path | None = None
    """Model of the API that the page starts; wins over `serve_config` and MODEL_DIR."""
    host: Name = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    """Port to listen on."""
    root_path: Prefix = ""
    """Prefix of the page's addresses behind a proxy that strips it, such as `/intents-page`."""
    top_k: Annotated[int, Field(ge=1)] = 5
    """Intents shown for a sentence."""
    max_rows: Annotated[int, Field(ge=1)] = 20_000
    """Most rows of an uploaded table; all of them are held in memory."""
    max_file_mb: Annotated[int, Field(ge=1)] = 20
    """Largest uploaded file, in megabytes."""
    examples: list[Name] | None = None
    """Example sentences to click; `[]` shows none.

    By default a page on loopback takes some of the test sentences of the model's own data, where
    ETL's output that the bundle names is on this machine and unchanged; otherwise there are none.
    """
