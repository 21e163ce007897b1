"""Scores of how much a text looks like the model's intents: higher is more in scope."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bankintent.decision.gaussian import Gaussians
from bankintent.decision.prototypes import Nearness, Prototypes, nearness

Scores = NDArray[np.float64]
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """Where the intents lie among the features."""

    prototypes: Prototypes
    gaussians: Gaussians | None = None
    """None where no score needs them."""


@dataclass(frozen=True)
class Evidence:
    """What the scores of some texts are computed from."""

    logits: Matrix
    """(texts, labels) as the model gives them."""
    nearness: Nearness | None = None
    """None where the policy has no prototypes."""
    distances: Matrix | None = None
    """(texts, labels) squared Mahalanobis distances; None where no score needs them."""
    background: Matrix | None = None
    """(texts,) the same to all intents as one."""


def gather(logits: Matrix, features: Matrix | None, geometry: Geometry | None) -> Evidence:
    """The evidence of texts with (texts, labels) logits and (texts, width) features."""
    if geometry is None:
        return Evidence(logits)

    assert features is not None, "a runtime for a policy with prototypes gives features"
    similarities = geometry.prototypes.similarities(features)
    near = nearness(similarities, logits.argmax(axis=1))
    if geometry.gaussians is None:
        return Evidence(logits, near)

    distances = geometry.gaussians.distances(features)
    background = geometry.gaussians.background_distances(features)
    return Evidence(logits, near, distances, background)


def max_softmax(evidence: Evidence) -> Scores:
    """Largest softmax probability (Hendrycks and Gimpel, 2017)."""
    return np.exp(max_logit(evidence) - energy(evidence))


def max_logit(evidence: Evidence) -> Scores:
    """Largest logit (Hendrycks et al., 2022)."""
    return evidence.logits.max(axis=1).astype(np.float64)


def energy(evidence: Evidence) -> Scores:
    """Negative free energy: the log of the sum of the exponentials (Liu et al., 2020)."""
    highest = evidence.logits.max(axis=1, keepdims=True).astype(np.float64)
    sums = np.exp(evidence.logits - highest).sum(axis=1)
    return np.asarray(highest[:, 0] + np.log(sums))


def nearest(evidence: Evidence) -> Scores:
    """Cosine to the nearest prototype (after nearest neighbours; Sun et al., 2022)."""
    assert evidence.nearness is not None
    return evidence.nearness.nearest.astype(np.float64)


def mahalanobis(evidence: Evidence) -> Scores:
    """Minus the squared distance to the nearest intent (Lee et al., 2018)."""
    assert evidence.distances is not None
    return -evidence.distances.min(axis=1).astype(np.float64)


def relative_mahalanobis(evidence: Evidence) -> Scores:
    """The same, less the distance to all intents as one (Ren et al., 2021)."""
    assert evidence.background is not None
    return mahalanobis(evidence) + evidence.background.astype(np.float64)


SCORES: dict[str, Callable[[Evidence], Scores]] = {
    "max_softmax": max_softmax,
    "max_logit": max_logit,
    "energy": energy,
    "nearest": nearest,
    "mahalanobis": mahalanobis,
    "relative_mahalanobis": relative_mahalanobis,
    "mahalanobis_normalised": mahalanobis,
    "relative_mahalanobis_normalised": relative_mahalanobis,
}
"""Name in a policy -> the score. Of the normalised ones the features have length 1."""


LOGITS_ALONE = ("max_softmax", "max_logit", "energy")
"""Scores that need no features."""

NEED_GAUSSIANS = tuple(name for name in SCORES if "mahalanobis" in name)
"""Scores that need more than prototypes."""


def weighted_sum(evidence: Evidence, weights: dict[str, float]) -> Scores:
    """(texts,) the sum of scores, each with its weight; higher is more in scope."""
    total = np.zeros(len(evidence.logits))
    for name, weight in weights.items():
        total += weight * SCORES[name](evidence)
    return total
