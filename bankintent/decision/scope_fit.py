"""The choice of a score that tells texts of no intent, and of its threshold.

Nobody has examples of everything that may be asked. Two stand-ins need none: sentences of everyday
life are far from any intent, and rows of intents that a model is not told of are near ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bankintent.decision.gaussian_fit import fit_gaussians
from bankintent.decision.material import LabelledRows, Material, NearResult, Rows, Vectors
from bankintent.decision.policy import ScopeRule
from bankintent.decision.prototype_fit import fit_prototypes
from bankintent.decision.refit import refit_logits
from bankintent.decision.scope_scores import (
    LOGITS_ALONE,
    SCORES,
    Geometry,
    Scores,
    gather,
    weighted_sum,
)
from bankintent.measures.out_of_scope import auroc, pass_thresholds

COMBINED = "max_logit+nearest"
"""The sum of two scores, each divided by its spread over validation rows."""

NEAR = "near"
"""The kind of out-of-scope rows that are of intents which are held out."""

ROTATIONS = 5
"""How often other intents are held out."""

HELD_OUT = 1 / 3
"""Share of the intents that are held out at a time."""

FEWEST_INTENTS = 6
"""With fewer intents none is held out: the rest would be another task."""

SMALLEST_SPREAD = 1e-6

Geometries = dict[str, Geometry | None]
"""Score -> what it is computed from beside the logits."""


@dataclass(frozen=True)
class Contest:
    """Rows in scope and rows out of scope, as one model sees them."""

    kind: str
    inside: Rows
    outside: Rows
    geometries: Geometries


@dataclass(frozen=True)
class Candidate:
    """A score, and how well it tells what is out of scope."""

    name: str
    aurocs: dict[str, float]
    """Kind of out-of-scope rows -> area under the ROC curve, the mean over its contests."""

    @property
    def mean_auroc(self) -> float:
        """The mean over the kinds."""
        return float(np.mean(list(self.aurocs.values())))


def find_geometries(train: Vectors | None, num_labels: int, prototypes: int) -> Geometries:
    """Every score that the features allow; without features those of the logits alone."""
    found = None
    if train is not None:
        found = fit_prototypes(train, num_labels, prototypes)
    if train is None or found is None:
        return dict.fromkeys(LOGITS_ALONE)

    geometry = Geometry(found)
    named: Geometries = dict.fromkeys((*LOGITS_ALONE, "nearest", COMBINED), geometry)
    for suffix, normalised in (("", False), ("_normalised", True)):
        gaussians = fit_gaussians(train, num_labels, normalised=normalised)
        own = replace(geometry, gaussians=gaussians)
        named |= dict.fromkeys((f"mahalanobis{suffix}", f"relative_mahalanobis{suffix}"), own)
    return named


def far_contests(material: Material, geometries: Geometries) -> list[Contest]:
    """Validation rows against each kind of out-of-scope rows that is at hand."""
    found = []
    for kind, rows in material.outside.items():
        if len(rows) > 0:
            found.append(Contest(kind, material.validation, rows, geometries))
    return found


def near_contests(
    validation: LabelledRows, train: Vectors | None, num_labels: int, prototypes: int
) -> Iterator[Contest]:
    """Contests in which a third of the intents is not known; none where there are few intents."""
    if num_labels < FEWEST_INTENTS:
        return
    for rotation in range(ROTATIONS):
        order = np.random.default_rng(rotation).permutation(num_labels)
        known = np.sort(order[round(num_labels * HELD_OUT) :])
        is_known = np.isin(validation.labels, known)
        if is_known.all() or not is_known.any():
            continue

        model = _without(validation, train, known, prototypes)
        inside = _take(model.rows, is_known)
        outside = _take(model.rows, ~is_known)
        yield Contest(NEAR, inside, outside, model.geometries)


def near_results(
    validation: LabelledRows, train: Vectors | None, num_labels: int, prototypes: int
) -> dict[str, NearResult]:
    """Score -> how well it tells rows of held-out intents; none where there are few intents.

    A model that was trained on all intents tells them better than one that was not: features of
    the encoder as it was before training give a figure without that error.
    """
    contests = list(near_contests(validation, train, num_labels, prototypes))
    if not contests:
        return {}

    results = {}
    for name in contests[0].geometries:
        area = judge(name, contests).mean_auroc
        results[name] = NearResult(area, balanced_share(name, contests))
    return results


@dataclass(frozen=True)
class _SmallerModel:
    """A model that knows some of the intents, and the validation rows as it sees them."""

    rows: Rows
    geometries: Geometries


def _without(
    validation: LabelledRows, train: Vectors | None, known: NDArray[np.intp], prototypes: int
) -> _SmallerModel:
    """A model that knows these intents alone: where there are features, a new head on them."""
    if train is None or validation.features is None:
        rows = Rows(validation.logits[:, known], None)
        return _SmallerModel(rows, dict.fromkeys(LOGITS_ALONE))

    is_known = np.isin(train.labels, known)
    own = Vectors(train.features[is_known], np.searchsorted(known, train.labels[is_known]))
    logits = refit_logits(own, validation.features)
    geometries = find_geometries(own, len(known), prototypes)
    return _SmallerModel(Rows(logits, validation.features), geometries)


def _take(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    features = None if rows.features is None else rows.features[chosen]
    return Rows(rows.logits[chosen], features)


def judge(name: str, contests: list[Contest]) -> Candidate:
    """A score by name, judged by the contests."""
    values: dict[str, list[float]] = {}
    for contest in contests:
        scores = _scores(name, contest)
        area = auroc(pass_thresholds(scores.inside, scores.outside))
        values.setdefault(contest.kind, []).append(area)

    return Candidate(name, {kind: float(np.mean(areas)) for kind, areas in values.items()})


@dataclass(frozen=True)
class _Scored:
    """The scores of both sides of a contest, (rows,) each."""

    inside: Scores
    outside: Scores


def _scores(name: str, contest: Contest) -> _Scored:
    geometry = contest.geometries[name]
    weights = find_weights(name, geometry, contest.inside)
    return _Scored(
        inside=_score(contest.inside, weights, geometry),
        outside=_score(contest.outside, weights, geometry),
    )


def find_weights(name: str, geometry: Geometry | None, rows: Rows) -> dict[str, float]:
    """The weight of each score that a name is made of, from rows in scope."""
    parts = name.split("+")
    if len(parts) == 1:
        return {name: 1.0}

    evidence = gather(rows.logits, rows.features, geometry)
    weights = {}
    for part in parts:
        spread = float(SCORES[part](evidence).std())
        weights[part] = 1 / max(spread, SMALLEST_SPREAD)
    return weights


def _score(rows: Rows, weights: dict[str, float], geometry: Geometry | None) -> Scores:
    return weighted_sum(gather(rows.logits, rows.features, geometry), weights)


def find_rule(
    name: str, geometry: Geometry | None, validation: LabelledRows, share: float
) -> ScopeRule:
    """The rule of a score, with the threshold that keeps this share of validation rows in scope."""
    weights = find_weights(name, geometry, validation)
    inside = _score(validation, weights, geometry)
    # A row at the threshold is in scope.
    return ScopeRule(weights, float(np.quantile(inside, 1 - share, method="lower")))


def balanced_share(name: str, contests: list[Contest]) -> float:
    """The share of rows in scope to keep, so that its mean with the share refused is highest.

    Each kind of out-of-scope rows counts alike.
    """
    shares = np.linspace(0.5, 0.999, 500)
    refused: dict[str, list[Scores]] = {}
    for contest in contests:
        scores = _scores(name, contest)
        thresholds = np.quantile(scores.inside, 1 - shares, method="lower")
        below = np.searchsorted(np.sort(scores.outside), thresholds, side="left")
        refused.setdefault(contest.kind, []).append(below / len(scores.outside))

    of_kinds = [np.mean(parts, axis=0) for parts in refused.values()]
    gain = shares + np.mean(of_kinds, axis=0)
    return float(shares[int(gain.argmax())])
