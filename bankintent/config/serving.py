"""serve.yaml, and the Gradio page's settings."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from bankintent.config.base import Name, RuntimeName, Section


class BatchingSection(Section):
    """`batching:` how texts that wait are put together."""

    max_texts: Annotated[int, Field(ge=1)] = 8
    """Most texts in one forward pass. On a CPU more than 8 gain nothing and pad more; a GPU wants 64 or so."""
    max_tokens: Annotated[int, Field(ge=1)] = 4096
    """Most tokens in one forward pass, padding included; a longer single text goes alone."""


class LimitsSection(Section):
    """`limits:` what one request and all of them may cost; `/info` shows them."""

    max_body_bytes: Annotated[int, Field(ge=100)] = 1_048_576
    """Longest request body; longer is 413."""
    max_texts: Annotated[int, Field(ge=1)] = 64
    """Most texts in one request; more is 422."""
    max_chars: Annotated[int, Field(ge=1)] = 5000
    """Longest text, in characters; longer is 422."""
    max_queue: Annotated[int, Field(ge=1)] = 1024
    """Texts that may be admitted and not yet answered; more is 429."""
    deadline_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds from a request's arrival to its answer; later is 504, and what has not begun is not done."""
    shutdown_s: Annotated[float, Field(gt=0)] = 15.0
    """Seconds from SIGTERM to the end of the process at the latest."""


class ServeConfig(Section):
    """serve.yaml: the HTTP API."""

    model_dir: Path | None = None
    """A bundle, its merged/, or a sequence classification folder; the MODEL_DIR variable wins over the file."""
    host: Name = "127.0.0.1"
    """Address to listen on; loopback unless told."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    runtime: RuntimeName = "auto"
    """What computes the answers; auto: the fastest that the bundle has verified and the installation offers."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the model; by default one for each core that the process may use."""
    cache: Annotated[int, Field(ge=0)] = 0
    """Different texts whose answers are kept, so that a repeated text costs nothing; 0 keeps no text in memory."""
    evals_dir: Path = Path("artifacts/evals")
    """Where `python -m eval` put the confusion matrix of the bundle, for `/card`."""
    batching: BatchingSection = BatchingSection()
    limits: LimitsSection = LimitsSection()

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        limits = self.limits
        if limits.max_texts > limits.max_queue:
            raise ValueError(
                f"limits.max_texts is {limits.max_texts}, more than max_queue ({limits.max_queue}) takes"
            )
        if limits.shutdown_s <= limits.deadline_s:
            raise ValueError(
                f"limits.shutdown_s is {limits.shutdown_s:g}, which would cut requests that deadline_s"
                f" ({limits.deadline_s:g}) still allows"
            )
        return self


class FrontendConfig(Section):
    """The Gradio page."""

    backend_url: str | None = None
    """The API's address, for example http://127.0.0.1:8000; without it the page starts an API of its own."""
    serve_config: Path | None = None
    """serve.yaml of the API that the page starts."""
    model_dir: Path | None = None
    """Model of the API that the page starts; wins over `serve_config` and MODEL_DIR."""
    host: Name = "127.0.0.1"
    """Address to listen on; loopback unless told."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    """Port to listen on."""
    top_k: Annotated[int, Field(ge=1)] = 5
    """Intents shown for a sentence."""
    max_rows: Annotated[int, Field(ge=1)] = 20_000
    """Most rows of an uploaded CSV."""
    max_file_mb: Annotated[int, Field(ge=1)] = 20
    """Largest uploaded CSV."""
    examples: list[Name] = [
        "My card still has not arrived, can you track it?",
        "Why was I charged for a cash withdrawal?",
        "How do I change my PIN?",
        "The exchange rate you used looks wrong",
    ]
    """Sentences to click."""
