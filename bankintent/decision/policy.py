"""The policy of a bundle: how its logits become answers, and when it says that it does not know.

It is read from `policy.json`, and from `decision.safetensors` where it needs vectors.
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from bankintent import files, typed_json
from bankintent.decision.scope_scores import SCORES, Geometry

POLICY = "policy.json"
"""Its file in a bundle."""

VECTORS = "decision.safetensors"
"""The file of its prototypes and other arrays in a bundle."""

FORMAT = 1
"""Number of the form of `policy.json`; a reader refuses one that it does not know."""

VERSION_DIGITS = 12
"""Hex digits of a policy's version."""


@dataclass(frozen=True)
class Temperature:
    """The temperature of each text: log T = bias + own x (similarity to its own intent)
    + other x (similarity to the nearest other intent).

    Without prototypes it is one number for all texts, exp(bias) (Guo et al., 2017). A temperature
    that depends on the input keeps the order of the intents, and makes scores of texts that lie
    between two intents smaller (Balanya et al., 2022).
    """

    bias: float
    own: float = 0.0
    other: float = 0.0


@dataclass(frozen=True)
class ScopeRule:
    """A text is in scope where the weighted sum of its scores is at least the threshold."""

    weights: dict[str, float]
    """Score (`decision.scope_scores.SCORES`) -> its weight."""
    threshold: float


@dataclass(frozen=True)
class Thresholds:
    """The least calibrated score that is answered."""

    shared: float
    """For every intent without its own."""
    per_intent: dict[str, float] = field(default_factory=dict)
    """Intent -> its own threshold, where it had enough validation rows."""


Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class SaidTarget:
    """The types of what is said of a target; what is not there is not said."""

    precision: FiniteFloat = 0.0
    coverage: FiniteFloat = 0.0
    wrong: FiniteFloat = 0.0
    handover: FiniteFloat = 0.0
    confidence: FiniteFloat = 0.0


@dataclass(frozen=True)
class SaidPromise:
    """The types of what is said of a promise."""

    rows: Annotated[int, Field(ge=1)] = 1
    coverage: FiniteFloat = 0.0
    precision: FiniteFloat | None = None
    precision_interval: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] = field(
        default_factory=list
    )
    precision_at_least: FiniteFloat = 0.0
    refused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class NearFigures:
    """How well a score tells rows of intents that are held out."""

    auroc: Share
    share: Share


@dataclass(frozen=True)
class SaidFigures:
    """The types of what is read of the figures."""

    out_of_scope: dict[str, dict[str, FiniteFloat]] = field(default_factory=dict)
    near: dict[str, NearFigures] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What people are told of a policy; a stranger's bundle may hold anything in its place."""

    target: SaidTarget
    promise: SaidPromise
    figures: SaidFigures = SaidFigures()


@dataclass(frozen=True)
class PolicyRecord:
    """The content of `policy.json`."""

    format: int
    labels_hash: str
    temperature: Temperature
    out_of_scope: ScopeRule | None
    """None where nothing is refused as out of scope."""
    thresholds: Thresholds | None
    """None where no score is too low."""
    vectors: str | None
    """SHA-256 of `decision.safetensors`; None where the policy needs no features."""
    target: dict[str, Any]
    """What was asked for, as in the settings: precision, coverage or costs."""
    promise: dict[str, Any]
    """What the policy promises of texts like those it was fitted on, with intervals."""
    fitted_on: dict[str, Any]
    """The rows that it was fitted on: counts, hashes, sources."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Measures and curves of the fit."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError where it is no policy of this form."""
        record = typed_json.parse(cls, text)
        if record.format != FORMAT:
            raise ValueError(f"its format is {record.format}, this version reads {FORMAT}")
        rule = record.out_of_scope
        unknown = [] if rule is None else sorted(set(rule.weights) - set(SCORES))
        if unknown:
            raise ValueError(f"its score {unknown[0]} is none of {', '.join(SCORES)}")

        typed_json.parse(Said, text)
        return record

    def to_json(self) -> str:
        """The content of the file."""
        return files.json_text(asdict(self))

    @property
    def version(self) -> str:
        """The first digits of the SHA-256 of its file, which change with any of its numbers."""
        return files.sha256_text(self.to_json())[:VERSION_DIGITS]


class Policy:
    """A policy that is ready to decide, for a model with these labels, in id order."""

    def __init__(
        self, record: PolicyRecord, labels: tuple[str, ...], geometry: Geometry | None = None
    ) -> None:
        self.record = record
        self.geometry = geometry
        self.version = record.version
        self.minimum = _minimum_scores(record.thresholds, labels)

    @property
    def needs_features(self) -> bool:
        """Whether it can decide only where the runtime gives features beside the logits."""
        return self.geometry is not None


def _minimum_scores(
    thresholds: Thresholds | None, labels: tuple[str, ...]
) -> NDArray[np.float64] | None:
    """(labels,) the least score at which each intent is answered; None where every one is."""
    if thresholds is None:
        return None
    own = thresholds.per_intent
    return np.array([own.get(name, thresholds.shared) for name in labels])
