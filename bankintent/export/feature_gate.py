"""The gate for the features of a format: they are those of the trained model, or it is left out.

One policy is fitted on the features of the trained model and decides for every format of its
bundle. A format with other features, or without them, would decide otherwise than was promised, so
that features count as logits do.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bankintent.export.gate import NEIGHBOUR_ROWS, ReferenceAnswers, Verdict
from bankintent.inference.exported_runtime import FLOAT_TOLERANCE
from bankintent.inference.runtime import Features, Outputs, Tokens

FEATURE_ROWS = NEIGHBOUR_ROWS
"""Most sentences whose features are compared, spread over the validation split."""
BATCH = 32
COSINE = 0.99
"""Smallest mean cosine of the features of a reduced format with those of the trained model. The
embedded encoder, fine-tuned, has 0.997 in int8 and 0.9999 in bf16."""


class Trained(Protocol):
    """The trained model, in float32."""

    def outputs(self, texts: list[str], batch_size: int) -> Outputs: ...


class Model(Protocol):
    """A format that is measured."""

    def tokenize(self, texts: list[str]) -> list[Tokens]: ...

    def outputs(self, items: list[Tokens]) -> Outputs: ...


@dataclass(frozen=True)
class ReferenceFeatures:
    """The float32 features of the trained model."""

    texts: list[str]
    features: Features
    """(rows, width)."""


def compute_reference(trained: Trained, reference: ReferenceAnswers) -> ReferenceFeatures | None:
    """The features of some of the sentences; None where the model gives none."""
    step = -(-len(reference.texts) // FEATURE_ROWS)  # rounded up
    texts = reference.texts[:: max(1, step)]
    features = trained.outputs(texts, BATCH).features
    return None if features is None else ReferenceFeatures(texts, features)


def judge_float32(model: Model, reference: ReferenceFeatures) -> Verdict:
    """Require every number within FLOAT_TOLERANCE, or within that share of the largest above 1."""
    features = _compute(model, reference.texts)
    difference = float(np.abs(features - reference.features).max())
    allowed = FLOAT_TOLERANCE * max(1.0, float(np.abs(reference.features).max()))
    figures = {"features": {"rows": len(features), "largest_difference": difference}}

    # Not `difference > allowed`: that is false for NaN, which must fail too.
    if not difference <= allowed:
        return Verdict(figures, f"a feature differs by {difference:.1e}, more than {allowed:.0e}")
    return Verdict(figures, None)


def judge_reduced(model: Model, reference: ReferenceFeatures) -> Verdict:
    """Require a cosine of COSINE with the trained model's features, in the mean of the sentences.

    Both are taken from the mean of the trained model: a part that all of them share would
    make any two alike.
    """
    features = _compute(model, reference.texts)
    mean = reference.features.mean(axis=0)
    cosine = float(_cosines(features - mean, reference.features - mean).mean())
    figures = {"features": {"rows": len(features), "cosine": round(cosine, 6)}}

    # Not `cosine < COSINE`: that is false for NaN, which must fail too.
    if not cosine >= COSINE:
        # Rounded away from the limit, so that no figure looks as if it kept it.
        shown = np.floor(1000 * cosine) / 1000
        return Verdict(figures, f"the cosine of its features is {shown}, the limit is {COSINE}")
    return Verdict(figures, None)


def join(answers: Verdict, features: Verdict) -> Verdict:
    """One verdict of those on the logits and on the features."""
    reasons = [reason for reason in (answers.reason, features.reason) if reason is not None]
    return Verdict(answers.figures | features.figures, "; ".join(reasons) or None)


def _compute(model: Model, texts: list[str]) -> Features:
    """(texts, width) features, in batches in the order of the texts."""
    items = model.tokenize(texts)
    parts = []
    for start in range(0, len(items), BATCH):
        features = model.outputs(items[start : start + BATCH]).features
        assert features is not None
        parts.append(features)
    return np.concatenate(parts)


def _cosines(features: Features, expected: Features) -> NDArray[np.float64]:
    """(rows,) cosine of each row with its own; 1 where they are the same, also where both are 0."""
    left = np.asarray(features, dtype=np.float64)
    right = np.asarray(expected, dtype=np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = (left * right).sum(axis=1)

    cosines = products / np.maximum(lengths, np.finfo(np.float64).tiny)
    # A sentence at the mean itself has no direction.
    return np.where((left == right).all(axis=1), 1.0, cosines)
