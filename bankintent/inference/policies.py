"""The policy in a bundle, read and verified."""

from pathlib import Path

from safetensors.numpy import load

from bankintent.bundle import inside, layout
from bankintent.bundle.record import Manifest
from bankintent.decision.policy import POLICY, VECTORS, Policy, PolicyRecord
from bankintent.decision.scope_scores import LOGITS_ALONE, NEED_GAUSSIANS, Geometry
from bankintent.decision.vectors import Arrays, from_arrays
from bankintent.distribution import command
from bankintent.errors import ModelError
from bankintent.inference.runtime import Outputs
from bankintent.labels import LabelSchema
from bankintent.texts import list_some

LARGEST_NUMBER = 1e12
"""Largest absolute number that decides: products with scores stay within float32."""

LARGEST_VECTORS = 1 << 28
"""Most bytes of `decision.safetensors`."""


def advice() -> str:
    """What to do about a policy that cannot be used."""
    return f"Fit a new one with {command('policy')}, or copy the bundle again"


def read_policy(root: Path, manifest: Manifest | None, labels: LabelSchema) -> Policy | None:
    """The policy of a bundle; None for a plain checkpoint and for a bundle without one.

    Raises ModelError where a file was changed, or is no policy for a model with these labels.
    """
    if manifest is None or POLICY not in manifest.files:
        return None

    layout.verify(root, manifest, POLICY)
    try:
        record = PolicyRecord.from_json(inside.read_text(root, POLICY))
    except ValueError as error:
        cause = str(error).splitlines()[0]
        raise ModelError(f"{root}: {POLICY} is not what was fitted ({cause})", advice()) from None

    if record.labels_hash != labels.hash:
        raise ModelError(f"{root}: {POLICY} is for a model with other labels", advice())
    fault = _find_fault(record, labels)
    if fault is not None:
        raise ModelError(f"{root}: {POLICY} {fault}", advice())

    geometry = None
    if record.vectors is not None:
        geometry = _read_geometry(root, manifest, labels, record.vectors)
        _require_gaussians(root, record, geometry)
    return Policy(record, labels.names, geometry)


def _find_fault(record: PolicyRecord, labels: LabelSchema) -> str | None:
    """Why no text could be decided on, in words; None where nothing is wrong."""
    # NaN is not at most anything.
    if not all(abs(number) <= LARGEST_NUMBER for number in _numbers(record)):
        return f"holds a number that is not finite, or beyond {LARGEST_NUMBER:g}"

    own = {} if record.thresholds is None else record.thresholds.per_intent
    unknown = sorted(own.keys() - set(labels.names))
    if unknown:
        return f"has thresholds of intents that the model does not have ({list_some(unknown)})"
    if record.out_of_scope is None:
        return None

    if not record.out_of_scope.weights:
        return "names no score that tells what is out of scope"
    for name in record.out_of_scope.weights:
        if name not in LOGITS_ALONE and record.vectors is None:
            return f"names a score that needs {VECTORS} ({name})"
    return None


def _numbers(record: PolicyRecord) -> list[float]:
    """Every number that decides: one comparison with NaN would let everything pass."""
    temperature = record.temperature
    numbers = [temperature.bias, temperature.own, temperature.other]
    if record.out_of_scope is not None:
        numbers += [record.out_of_scope.threshold, *record.out_of_scope.weights.values()]
    if record.thresholds is not None:
        numbers += [record.thresholds.shared, *record.thresholds.per_intent.values()]
    return numbers


def _read_geometry(root: Path, manifest: Manifest, labels: LabelSchema, sha256: str) -> Geometry:
    layout.verify(root, manifest, VECTORS)
    if manifest.files[VECTORS].sha256 != sha256:
        raise ModelError(f"{root}: {VECTORS} is not that of its {POLICY}", advice())
    content = inside.read_bytes(root, VECTORS, LARGEST_VECTORS)
    try:
        return from_arrays(_load(content), len(labels))
    except ValueError as error:
        raise ModelError(f"{root}: {VECTORS} is not what was fitted ({error})", advice()) from None


def _load(content: bytes) -> Arrays:
    """The arrays of a file; ValueError where it is none."""
    try:
        return load(content)
    # The library has errors of its own for what is no such file, or of types that NumPy lacks.
    except Exception:  # noqa: BLE001
        raise ValueError("it holds no arrays") from None


def _require_gaussians(root: Path, record: PolicyRecord, geometry: Geometry) -> None:
    """Raise ModelError where a score of the policy needs arrays that are not there."""
    weights = {} if record.out_of_scope is None else record.out_of_scope.weights
    for name in weights:
        if name in NEED_GAUSSIANS and geometry.gaussians is None:
            raise ModelError(f"{root}: {VECTORS} lacks what the score {name} needs", advice())


def find_misfit(policy: Policy, outputs: Outputs) -> str | None:
    """Why a policy cannot decide on such outputs, in words; None where it can."""
    if policy.geometry is None:
        return None
    if outputs.features is None:
        return "the policy needs features, which this format does not give"

    given = outputs.features.shape[1]
    needed = policy.geometry.prototypes.vectors.shape[1]
    if given != needed:
        return f"the policy needs features of {needed} numbers, and the model gives {given}"
    return None
