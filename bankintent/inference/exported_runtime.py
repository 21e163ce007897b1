"""The exported formats of a bundle, computed by ONNX Runtime or OpenVINO; texts are tokenized by `tokenizers` itself."""

import importlib
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from bankintent import files
from bankintent.bundle import layout
from bankintent.bundle.layout import Formats
from bankintent.errors import ModelError
from bankintent.inference.runtime import Logits, ModelFacts, Tokens, version

TOKENIZER = "tokenizer.json"
SETTINGS = "runtime.json"
Feeds = dict[str, NDArray[np.int64]]
Run = Callable[[Feeds], Logits]

FLOAT_TOLERANCE = 1e-3
"""Largest difference of a logit that float32 arithmetic may make."""
REDUCED_TOLERANCE = 2.0**-6
"""The same for reduced precision, as a share of the largest logit: a few units in the last place of bf16."""
PROBES = (
    "a short text",
    "a text of middling length, as people write it, with some words more",
    "a long text " * 30,
)
"""What is asked at publishing, and of each machine that loads the format: it must give the same answers."""


LENGTHS = 4
"""Texts are padded to a multiple of this: a runtime keeps memory for every shape that it has met (OpenVINO took 460 MB
after some thousand requests, 360 with this, at the same speed)."""


class Unfit(ModelError):
    """This machine or installation cannot compute a format as it was computed when it was verified."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to compute an exported format."""

    engine: str
    """The Python package that computes it."""
    file: str
    precision: str

    @property
    def tolerance(self) -> float:
        """Share of the largest logit by which two computations may differ; 0 where FLOAT_TOLERANCE holds."""
        return 0.0 if self.precision == "float32" else REDUCED_TOLERANCE

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.engine) is not None


KINDS = {
    "onnx-int8": Kind("onnxruntime", "model_int8.onnx", "int8"),
    "openvino": Kind("openvino", "model.onnx", "bf16"),
    "onnx": Kind("onnxruntime", "model.onnx", "float32"),
}
"""Fastest first, as measured (docs/serving.md)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """runtime.json: what it takes to feed the model."""

    inputs: list[str]
    """The model's inputs, named as the tokenizer's keys."""
    padding: dict[str, int]
    """What each input is padded with."""
    padding_side: str
    max_length: int
    """Longest input in tokens."""
    parameters: int
    backbone: str
    probes: dict[str, list[list[float]]]
    """For each verified kind its logits of PROBES."""

    @classmethod
    def load(cls, folder: Path) -> "Settings":
        return cls(**json.loads((folder / SETTINGS).read_text(encoding="utf-8")))

    def save(self, folder: Path) -> None:
        values = {name: getattr(self, name) for name in self.__slots__}
        files.write_text(folder / SETTINGS, files.json_text(values))


class ExportedModel:
    """One format of an `onnx/` folder, loaded. `workers` calls of `logits` may run at once, on `threads` in all."""

    def __init__(self, folder: Path, kind: Kind, threads: int, workers: int = 1) -> None:
        self.settings = Settings.load(folder)
        self.workers = min(workers, threads)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(self.settings.max_length)
        start = _start_openvino if kind.engine == "openvino" else _start_onnxruntime
        self._run = start(folder / kind.file, threads, self.workers)

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text, cut to the model's longest input."""
        return [
            Tokens(
                {name: _row(encoded, name) for name in self.settings.inputs},
                bool(encoded.overflowing),
            )
            for encoded in self._tokenizer.encode_batch_fast(texts)
        ]

    def logits(self, items: Sequence[Tokens]) -> Logits:
        """(items, labels) float32."""
        return self._run(self.feeds(items))

    def feeds(self, items: Sequence[Tokens]) -> Feeds:
        """The model's inputs, (items, length) int64 each: padded to the longest or a little more, and masked."""
        longest = min(-(-max(map(len, items)) // LENGTHS) * LENGTHS, self.settings.max_length)
        feeds = {
            name: np.full((len(items), longest), self.settings.padding[name])
            for name in self.settings.inputs
        }
        for row, item in enumerate(items):
            place = (
                slice(longest - len(item), None)
                if self.settings.padding_side == "left"
                else slice(len(item))
            )
            for name, values in item.features.items():
                feeds[name][row, place] = values
        return feeds


class ExportedRuntime(ExportedModel):
    """A verified format of a bundle, as a runtime.

    Raises ModelError where a file was changed, Unfit where this machine gives other answers than the one that published.
    """

    def __init__(self, bundle: Formats, name: str, threads: int, workers: int) -> None:
        kind = KINDS[name]
        super().__init__(bundle.folder, kind, threads, workers)
        check_probes(self, name, self.settings.probes[name])
        engine = importlib.import_module(kind.engine)
        release = str(engine.__version__).partition("-")[0]
        self.facts = ModelFacts(
            name=bundle.root.resolve().name,
            version=version(bundle.root, bundle.manifest),
            labels=bundle.labels.names,
            labels_hash=bundle.labels.hash,
            backbone=self.settings.backbone,
            parameters=self.settings.parameters,
            max_length=self.settings.max_length,
            runtime=f"{kind.engine} {release}, {kind.precision}, cpu, {threads} thread{'s' * (threads > 1)}",
            folder=bundle.root,
        )


def verify(bundle: Formats, name: str) -> None:
    """Check the files of one format against the manifest; ModelError names the first that differs."""
    for file in (SETTINGS, TOKENIZER, KINDS[name].file):
        layout.verify(bundle.root, bundle.manifest, f"{layout.ONNX}/{file}")


def check_probes(model: ExportedModel, name: str, expected: list[list[float]]) -> None:
    """Raise Unfit where the answers are not those that were verified: other hardware can compute int8 otherwise."""
    found, wanted = model.logits(model.tokenize(list(PROBES))), np.array(expected, dtype=np.float32)
    allowed = max(FLOAT_TOLERANCE, KINDS[name].tolerance * float(np.abs(wanted).max()))
    worst = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
    if not worst <= allowed:
        raise Unfit(
            f"{name} gives other answers on this machine than where it was published (a logit differs by {worst:.1e})",
            "Use another runtime",
        )


def _row(encoded: Encoding, name: str) -> list[int]:
    return list(getattr(encoded, FIELDS[name]))


FIELDS = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}
"""The tokenizer's keys and where `tokenizers` has them."""


def _start_onnxruntime(path: Path, threads: int, workers: int) -> Run:
    """Each call runs on its share of the threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads // workers)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        # Its kernel is a scalar loop in 1.32: addition and normalisation apart are 1.2 times as fast over all.
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    return lambda feeds: np.asarray(session.run(["logits"], feeds)[0])


def _start_openvino(path: Path, threads: int, workers: int) -> Run:
    """bf16 on one stream for each worker; Unfit where the CPU has no bf16 arithmetic."""
    openvino = import_openvino()
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unfit("this CPU has no bf16 arithmetic", "Use runtime: onnx")
    options = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": workers,
    }
    compiled = core.compile_model(str(path), "CPU", options)
    own: Any = threading.local()  # a request holds the buffers of one call

    def run(feeds: Feeds) -> Logits:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return np.array(own.request.infer(feeds)["logits"])

    return run


def import_openvino() -> Any:
    """OpenVINO without its model converter, which is not needed here.

    `import openvino` imports `openvino.tools.ovc` where it can, and that starts a process which reports the import to
    Google Analytics and writes an id to `~/intel/`. Without it nothing is sent, and the import is three times as fast.
    """
    converter = "openvino.tools.ovc"
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    sys.modules[converter] = None  # type: ignore[assignment]  # Python's own way to make an import fail
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[converter]
