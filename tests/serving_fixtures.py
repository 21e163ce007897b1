"""What the serving tests share: a tiny classifier on disk, a server as a process, and a model that waits for a file."""

import contextlib
import json
import os
import re
import socket
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

ROOT = Path(__file__).parent.parent
HTML_LABEL = '<img src=x onerror="document.title=`run`">'
LABELS = ("card_arrival", "change_pin", HTML_LABEL, "exchange_rate", "lost_or_stolen_card")
MAX_LENGTH = 32
START_SECONDS = 180


def write_tiny_model(folder: Path) -> Path:
    """A random BERT of five labels as a plain Hugging Face folder; its weights are wide, so that texts differ."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = string.ascii_lowercase + string.digits + string.punctuation
    words = ["card", "my", "pin", "change", "lost", "rate", "has", "not", "arrived"]
    names = [*special, *words, *characters, *(f"##{character}" for character in characters)]
    vocabulary = {name: index for index, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        **dict(
            zip(
                ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"),
                special,
                strict=True,
            )
        ),
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.4,
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_tiny_bundle(folder: Path) -> Path:
    """The tiny model as a sealed bundle with only merged/ in it."""
    from bankintent.bundle import layout
    from bankintent.labels import LabelSchema

    folder.mkdir(parents=True)
    write_tiny_model(folder / layout.MERGED)
    LabelSchema(LABELS).save(folder / layout.LABELS)
    (folder / layout.CARD).write_text(
        "---\ntags: [x]\n---\n# tiny\n\nA **card** with <script>document.title='run'</script> and ![x](http://a.test/x)\n"
    )
    layout.seal(folder, {"name": "tiny", "base_model": "tiny-bert"})
    return folder


def write_evaluation(evals: Path, name: str) -> Path:
    """What `python -m eval` leaves beside a bundle, as far as the card shows it."""
    from matplotlib.figure import Figure

    from bankintent.labels import LabelSchema

    folder = evals / name
    folder.mkdir(parents=True)
    figure = Figure(figsize=(2, 2))
    figure.add_subplot().imshow(np.eye(5))
    figure.savefig(folder / "confusion.png")
    hashed = LabelSchema(LABELS).hash
    (folder / "metrics.json").write_text(
        json.dumps({"checkpoint": {"name": name, "labels_hash": hashed}})
    )
    return folder


@dataclass
class Server:
    """A server process on loopback."""

    url: str
    process: "subprocess.Popen[bytes]"
    log_file: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        lines = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.get("/metrics").text, re.MULTILINE)
        return sum(map(float, lines))

    def until(self, condition: Callable[["Server"], bool], seconds: float = START_SECONDS) -> None:
        """Wait for something that the server will do; fail with its log where it does not."""
        end = time.monotonic() + seconds
        while not condition(self):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)

    def answers(self, path: str, status: int = 200) -> bool:
        try:
            return self.get(path).status_code == status
        except httpx.TransportError:
            return False


def environment(**variables: str) -> dict[str, str]:
    """The environment of a server: one thread, this source tree, nothing of the caller's settings."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("MODEL_DIR", "SERVE_CONFIG")
    }
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


@contextlib.contextmanager
def serving(
    folder: Path,
    *command: str,
    ready: bool = True,
    config: dict[str, Any] | None = None,
    **variables: str,
) -> Iterator[Server]:
    """Run uvicorn on `backend:app`, or on what `command` names, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serve.yaml").write_text(json.dumps({"threads": 1, **(config or {})}))
    log_file = folder / "server.log"
    arguments = [
        sys.executable,
        "-m",
        "uvicorn",
        *(command or ("backend:app",)),
        "--port",
        str(port),
    ]
    arguments += [
        "--timeout-keep-alive",
        "60",
    ]  # a client's pool must not meet a connection that is just closing
    env = environment(SERVE_CONFIG=str(folder / "serve.yaml"), **variables)
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            arguments, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT
        )
    server = Server(f"http://127.0.0.1:{port}", process, log_file)
    try:
        server.until(lambda s: s.answers("/health/ready" if ready else "/health/live"))
        yield server
    finally:
        process.kill()
        process.wait()


class WaitingRuntime:
    """A model of two labels that works only while the file `hold` is absent: "yes..." is label 0, else 1.

    `poison` in a text makes its batch fail; what it began is appended to the file `started`.
    """

    def __init__(self, folder: Path) -> None:
        from bankintent.inference.runtime import ModelFacts

        self.folder, self.workers = folder, 1
        self.wait("loading")
        self.facts = ModelFacts(
            "waiting", "1", ("yes", "no"), "h", "none", 0, 100, "a test's", folder
        )

    def wait(self, name: str) -> None:
        while (self.folder / name).exists():
            time.sleep(0.005)

    def tokenize(self, texts: list[str]) -> list[Any]:
        from bankintent.inference.runtime import Tokens

        self._texts = getattr(self, "_texts", []) + texts
        first = len(self._texts) - len(texts)
        return [
            Tokens({"input_ids": [first + i] * len(text.split())}, False)
            for i, text in enumerate(texts)
        ]

    def logits(self, items: list[Any]) -> np.ndarray[Any, Any]:
        texts = [self._texts[item.features["input_ids"][0]] for item in items]
        with (self.folder / "started").open("a") as file:
            file.writelines(f"{text}\n" for text in texts)
        self.wait("hold")
        if any("poison" in text for text in texts):
            raise ValueError("the text is poison")
        return np.array(
            [[1, 0] if text.startswith("yes") else [0, 1] for text in texts], dtype=np.float32
        )


def waiting_app() -> Any:
    """The app over a WaitingRuntime, for `uvicorn --factory`; its folder is the working directory."""
    from bankintent.config import ServeConfig
    from bankintent.configfile import load
    from bankintent.serving.app import create_app

    settings = load(ServeConfig, Path(os.environ["SERVE_CONFIG"]))
    return create_app(settings, lambda _: lambda: WaitingRuntime(Path.cwd()))


def write_exported_bundle(folder: Path) -> Path:
    """The tiny model as a sealed bundle with merged/ and every format of onnx/ that passes its gate."""
    from bankintent.bundle import layout
    from bankintent.config import ExportSection
    from bankintent.export import onnx_export
    from bankintent.inference.predictor import Predictor
    from bankintent.labels import LabelSchema

    write_tiny_bundle(folder)
    (folder / layout.MANIFEST).unlink()
    predictor = Predictor.load(
        layout.Checkpoint(folder, LabelSchema(LABELS), folder / layout.MERGED, None, None)
    )
    reference = reference_of(predictor, TEXTS)
    published = onnx_export.publish(
        predictor, "tiny-bert", folder / layout.ONNX, reference, TEXTS[::2], ExportSection()
    )
    parity = {"formats": published.formats, "left_out": published.left_out}
    layout.seal(folder, {"name": "tiny", "base_model": "tiny-bert", "parity": parity})
    return folder


TEXTS = [
    f"{'my card has not arrived ' * (i % 4)}{word} {i}"
    for i in range(16)
    for word in ("pin", "rate", "lost")
]


def reference_of(predictor: Any, texts: list[str]) -> Any:
    """A Reference of a predictor whose every answer counts as right: of the third of the texts that it is surest of."""
    from bankintent.export.gate import Reference

    logits = predictor.logits(texts)
    best, second = np.sort(logits, axis=1)[:, -1], np.sort(logits, axis=1)[:, -2]
    sure = np.argsort(second - best)[: len(texts) // 3]
    return Reference([texts[i] for i in sure], logits[sure].argmax(axis=1), logits[sure])
