"""The exported formats of a bundle, computed by ONNX Runtime or OpenVINO.

Texts are tokenized by `tokenizers` itself: neither torch nor transformers is imported.
"""

import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bankintent import files, typed_json
from bankintent.bundle import layout
from bankintent.bundle.layout import Formats
from bankintent.decision.policy import Policy
from bankintent.errors import ModelError
from bankintent.inference.policies import find_misfit, read_policy
from bankintent.inference.runtime import (
    Logits,
    ModelFacts,
    Outputs,
    Tokens,
    describe_runtime,
    never_empty,
    version,
)
from bankintent.texts import fold

TOKENIZER = "tokenizer.json"
"""The tokenizer's file in `onnx/`, in the format of `tokenizers`."""

SETTINGS = "runtime.json"
"""The file of FormatSettings in `onnx/`."""

Feeds = dict[str, NDArray[np.int64]]
"""The model's inputs by name, (items, length) each."""

LOGITS = "logits"
"""The first output of a graph, (items, labels)."""

FEATURES = "features"
"""The second one, (items, width), where there is one: what the last layer reads."""

Engine = Callable[[Feeds], list[NDArray[np.float32]]]
"""A loaded model that computes the outputs that it was started for, in their order."""

FLOAT_TOLERANCE = 1e-3
"""Largest difference of a logit that may come from the order of float32 additions."""

REDUCED_TOLERANCE = 2.0**-6
"""The same for reduced precision, as a share of the largest logit: a few units in the last place
of bf16."""

PROBES = (
    "a short text",
    "a text of middling length, as people write it, with some words more",
    "a long text " * 30,
)
"""Texts whose logits are recorded at publishing: a machine that loads the format must agree.

They are part of published bundles, the blank at the end of the last one too, so they are encoded
without folding: with other texts, no bundle that exists would pass.
"""

LENGTH_STEP = 4
"""Texts are padded to a multiple of this: a runtime keeps memory for every shape of input.

After some thousand requests OpenVINO took 460 MB without it and 360 with it, at the same speed.
"""

ENCODING_FIELDS = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "attention_mask",
}
"""Key of transformers -> attribute of an `Encoding` of `tokenizers`."""


class Unfit(ModelError):
    """This machine or installation does not compute a format as it was verified."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to compute an exported format."""

    engine: str
    """The Python package that computes it."""
    file: str
    precision: str

    @property
    def tolerance(self) -> float:
        """Share of the largest logit by which two machines may differ; 0 for float32."""
        return 0.0 if self.precision == "float32" else REDUCED_TOLERANCE

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.engine) is not None


KINDS = {
    "onnx-int8": Kind("onnxruntime", "model_int8.onnx", "int8"),
    "openvino": Kind("openvino", "model.onnx", "bf16"),
    "onnx": Kind("onnxruntime", "model.onnx", "float32"),
}
"""Fastest first, as measured (docs/explanation/gates.md)."""


@dataclass(frozen=True, slots=True)
class FormatSettings:
    """runtime.json: everything that is needed to feed the model."""

    inputs: list[str]
    """The model's inputs, named as the tokenizer's keys."""
    padding: dict[str, int]
    """Input -> the number that pads it."""
    padding_side: str
    max_length: int
    """Longest input in tokens."""
    parameters: int
    backbone: str
    probes: dict[str, list[list[float]]]
    """Verified kind -> its logits of PROBES."""
    features: int = 0
    """Width of the features that every graph gives; 0 where they give logits alone."""

    @property
    def outputs(self) -> list[str]:
        """The names of the graphs' outputs."""
        return [LOGITS, FEATURES] if self.features > 0 else [LOGITS]

    @classmethod
    def load(cls, folder: Path) -> "FormatSettings":
        """The settings in `onnx/`; ModelError where the file is not one."""
        try:
            return typed_json.parse(cls, (folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ModelError(
                f"{folder / SETTINGS} is not what publishing writes", "Train again"
            ) from None

    def save(self, folder: Path) -> None:
        values = {name: getattr(self, name) for name in self.__slots__}
        files.write_text(folder / SETTINGS, files.json_text(values))


class ExportedModel:
    """One format of an `onnx/` folder, loaded.

    `workers` calls of `outputs` may run at once, on `threads` in all.
    """

    def __init__(self, folder: Path, kind: Kind, threads: int, workers: int = 1) -> None:
        self.settings = FormatSettings.load(folder)
        self.workers = min(workers, threads)

        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(self.settings.max_length)

        path = folder / kind.file
        if kind.engine == "openvino":
            engine = _start_openvino(path, self.settings.outputs, threads, self.workers)
        else:
            engine = _start_onnxruntime(path, self.settings.outputs, threads, self.workers)
        self._engine = engine

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each folded text, cut to the model's longest input."""
        return self.encode(list(map(fold, texts)))

    def encode(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text as it stands, cut to the model's longest input."""
        items = []
        # The fast form leaves out the offsets of tokens, which nothing here reads.
        for encoding in self._tokenizer.encode_batch_fast(texts):
            features = {}
            for name in self.settings.inputs:
                features[name] = list(getattr(encoding, ENCODING_FIELDS[name]))

            items.append(Tokens(features, truncated=bool(encoding.overflowing)))
        return items

    def outputs(self, items: Sequence[Tokens]) -> Outputs:
        """Logits, and features where the graph gives them."""
        logits, *others = self._engine(self.feeds(items))
        return Outputs(logits, others[0] if others else None)

    def logits(self, items: Sequence[Tokens]) -> Logits:
        """The (items, labels) logits alone."""
        return self.outputs(items).logits

    def feeds(self, items: Sequence[Tokens]) -> Feeds:
        """The model's inputs, padded to the longest item or a little more, and masked."""
        settings = self.settings

        padding = settings.padding["input_ids"]
        features = [never_empty(item.features, padding) for item in items]
        lengths = [len(row["input_ids"]) for row in features]
        longest = max(lengths)
        steps = -(-longest // LENGTH_STEP)  # rounded up
        length = min(steps * LENGTH_STEP, settings.max_length)

        feeds = {}
        for name in settings.inputs:
            feeds[name] = np.full((len(items), length), settings.padding[name])

        for row, own_length in enumerate(lengths):
            start = 0
            if settings.padding_side == "left":
                start = length - own_length
            end = start + own_length

            for name, values in features[row].items():
                feeds[name][row, start:end] = values

        return feeds


class ExportedRuntime(ExportedModel):
    """A verified format of a bundle, as a runtime.

    Raises ModelError where a file was changed, Unfit where the answers on this machine differ from
    those at publishing, or where the bundle's policy needs features that the format does not give.
    """

    def __init__(self, bundle: Formats, name: str, threads: int, workers: int) -> None:
        kind = KINDS[name]
        super().__init__(bundle.folder, kind, threads, workers)
        check_probes(self, name, self.settings.probes[name])
        self.policy = self._read_policy(bundle, name)

        package = importlib.import_module(kind.engine)
        # OpenVINO adds its build and commit after a dash.
        release = str(package.__version__).partition("-")[0]
        engine = f"{kind.engine} {release}"
        self.facts = ModelFacts(
            name=bundle.root.resolve().name,
            version=version(bundle.root, bundle.manifest),
            labels=bundle.labels.names,
            labels_hash=bundle.labels.hash,
            backbone=self.settings.backbone,
            parameters=self.settings.parameters,
            max_length=self.settings.max_length,
            runtime=describe_runtime(engine, kind.precision, "cpu", threads),
            folder=bundle.root,
        )

    def _read_policy(self, bundle: Formats, name: str) -> Policy | None:
        policy = read_policy(bundle.root, bundle.manifest, bundle.labels)
        if policy is None or not policy.needs_features:
            return policy

        misfit = find_misfit(policy, self.outputs(self.encode([PROBES[0]])))
        if misfit is not None:
            raise Unfit(
                f"{name} of {bundle.root} is not used: {misfit}",
                "Use runtime: torch, or publish the model again for formats with features",
            )
        return policy


def verify_format(bundle: Formats, name: str) -> None:
    """Check the files of a format against the manifest; ModelError names the first that differs."""
    for file in (SETTINGS, TOKENIZER, KINDS[name].file):
        layout.verify(bundle.root, bundle.manifest, f"{layout.ONNX}/{file}")


def check_probes(model: ExportedModel, name: str, expected: list[list[float]]) -> None:
    """Raise Unfit where the logits of PROBES are not those that were verified.

    Hardware can differ in int8: eight-bit products saturate on some older CPUs.
    """
    logits = model.logits(model.encode(list(PROBES)))
    reference = np.array(expected, dtype=np.float32)
    largest = float(np.abs(reference).max())
    allowed = max(FLOAT_TOLERANCE, KINDS[name].tolerance * largest)

    # Another shape counts as infinitely far: it cannot be subtracted.
    worst = float("inf")
    if logits.shape == reference.shape:
        worst = float(np.abs(logits - reference).max())

    # Not `worst > allowed`: that is false for NaN, which must fail too.
    if not worst <= allowed:
        raise Unfit(
            f"{name} gives other answers on this machine than where it was published"
            f" (a logit differs by {worst:.1e})",
            "Use another runtime",
        )


def _start_onnxruntime(path: Path, outputs: list[str], threads: int, workers: int) -> Engine:
    """Load a model; each call of the engine runs on its share of the threads."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads // workers)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only

    session = onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        # In onnxruntime 1.32 the kernel of this fusion is a scalar loop: without it the whole model
        # is 1.2 times as fast.
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    return lambda feeds: list(session.run(outputs, feeds))


def _start_openvino(path: Path, outputs: list[str], threads: int, workers: int) -> Engine:
    """Load a model in bf16 on one stream for each worker; Unfit where the CPU has no bf16."""
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
    # A request holds the buffers of one call at a time, so each thread needs its own.
    requests: Any = threading.local()

    def compute(feeds: Feeds) -> list[NDArray[np.float32]]:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()

        results = requests.own.infer(feeds)
        # Copies: the next call overwrites the buffers.
        return [np.array(results[name]) for name in outputs]

    return compute


def import_onnxruntime() -> Any:
    """ONNX Runtime without its telemetry.

    Since 1.32 it writes an id below `~/.cache` when it is imported, and has an address to report
    to, unless this variable is set before.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def import_openvino() -> Any:
    """OpenVINO without its model converter, which is not needed here.

    `import openvino` imports `openvino.tools.ovc` if that succeeds, which starts a process that
    reports the import to Google Analytics and writes an id to `~/intel/`. Without it nothing is
    sent, and the import is three times as fast.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]

    converter = "openvino.tools.ovc"
    # Python refuses to import a name whose module is None.
    sys.modules[converter] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[converter]
