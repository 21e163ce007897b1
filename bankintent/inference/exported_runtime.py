"""The exported formats of a bundle, computed by ONNX Runtime or OpenVINO."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bankintent.bundle import layout
from bankintent.bundle.layout import Formats
from bankintent.decision.policy import Policy
from bankintent.inference import engines
from bankintent.inference.engines import Unfit
from bankintent.inference.exported_inputs import PROBES, SETTINGS, TOKENIZER, ExportedInputs
from bankintent.inference.policies import find_misfit, read_policy
from bankintent.inference.runtime import (
    Logits,
    ModelFacts,
    Outputs,
    Tokens,
    describe_runtime,
    version,
)

FLOAT_TOLERANCE = 1e-3
"""Largest difference of a logit that may come from the order of float32 additions."""

REDUCED_TOLERANCE = 2.0**-6
"""The same for reduced precision, as a share of the largest logit: a few units in the last place
of bf16."""


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


class ExportedModel(ExportedInputs):
    """One format of an `onnx/` folder, loaded.

    `workers` calls of `outputs` may run at once, on `threads` in all.
    """

    def __init__(self, folder: Path, kind: Kind, threads: int, workers: int = 1) -> None:
        super().__init__(folder)
        self.workers = min(workers, threads)

        is_openvino = kind.engine == "openvino"
        start = engines.start_openvino if is_openvino else engines.start_onnxruntime
        self._engine = start(folder / kind.file, self.settings.outputs, threads, self.workers)

    def outputs(self, items: Sequence[Tokens]) -> Outputs:
        """Logits, and features where the graph gives them."""
        logits, *others = self._engine(self.feeds(items))
        return Outputs(logits, others[0] if others else None)

    def logits(self, items: Sequence[Tokens]) -> Logits:
        """The (items, labels) logits alone."""
        return self.outputs(items).logits


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
