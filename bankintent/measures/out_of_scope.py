"""How well a score tells sentences of the intents from those that have none of them.

A score is higher where a sentence is more likely in scope. The measures are those of Hendrycks and
Gimpel (2017); FPR at 95 % TPR is that of Liang et al. (2018).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bankintent.measures.arrays import Floats, Ints
from bankintent.measures.metrics import Bootstrap, percentile_interval
from bankintent.measures.selective import ROUNDING, Estimate

TPR = 0.95
"""Share of sentences in scope that are kept where false positives are counted."""


@dataclass(frozen=True)
class OutOfScopeFigures:
    """How well in-scope and out-of-scope sentences are told apart."""

    in_scope: int
    """Rows."""
    out_of_scope: int
    auroc: Estimate
    """Probability that a sentence in scope has the higher score; the same whichever is positive."""
    aupr_in: Estimate
    """Average precision where in scope is the positive class."""
    aupr_out: Estimate
    """Average precision where out of scope is the positive class."""
    fpr_at_95_tpr: Estimate
    """Share of out-of-scope sentences that pass the threshold which 95 % of the in-scope ones pass:
    in scope is the positive class."""


@dataclass(frozen=True)
class Passed:
    """How many sentences pass each threshold, the highest first; both are (scores,)."""

    in_scope: Floats
    out_of_scope: Floats


def measure_out_of_scope(
    in_scope: Floats, out_of_scope: Floats, bootstrap: Bootstrap
) -> OutOfScopeFigures:
    """The figures with 95 % intervals; both arrays are (rows,) scores, higher is more in scope.

    Each resample draws as many sentences in scope, and as many out of it, as there are.
    """
    figures: list[Callable[[Passed], float]] = [auroc, aupr_in, aupr_out, fpr_at_tpr]
    ranked = _Ranked.of(in_scope, out_of_scope)
    rng = np.random.default_rng(bootstrap.seed)

    samples: list[list[float]] = []
    for _ in range(bootstrap.resamples):
        resample = ranked.draw(rng)
        samples.append([figure(resample) for figure in figures])

    passed = pass_thresholds(in_scope, out_of_scope)
    estimates = []
    for figure, values in zip(figures, np.asarray(samples).T, strict=True):
        estimates.append(Estimate(figure(passed), percentile_interval(values)))
    return OutOfScopeFigures(len(in_scope), len(out_of_scope), *estimates)


def pass_thresholds(in_scope: Floats, out_of_scope: Floats) -> Passed:
    """How many of the (rows,) scores of either kind pass each of their different values."""
    ranked = _Ranked.of(in_scope, out_of_scope)
    return ranked.passed(ranked.groups_in, ranked.groups_out)


@dataclass(frozen=True)
class _Ranked:
    """The place of each score among all different scores, the highest first."""

    groups_in: Ints
    groups_out: Ints
    count: int

    @classmethod
    def of(cls, in_scope: Floats, out_of_scope: Floats) -> "_Ranked":
        every = np.concatenate([in_scope, out_of_scope])
        values, places = np.unique(-every, return_inverse=True)
        # Sorted, so that resamples do not depend on the order of the rows.
        groups_in = np.sort(places[: len(in_scope)])
        groups_out = np.sort(places[len(in_scope) :])
        return cls(groups_in, groups_out, len(values))

    def draw(self, rng: np.random.Generator) -> Passed:
        drawn_in = rng.choice(self.groups_in, size=len(self.groups_in))
        drawn_out = rng.choice(self.groups_out, size=len(self.groups_out))
        return self.passed(drawn_in, drawn_out)

    def passed(self, groups_in: Ints, groups_out: Ints) -> Passed:
        counts_in = np.bincount(groups_in, minlength=self.count)
        counts_out = np.bincount(groups_out, minlength=self.count)
        return Passed(np.cumsum(counts_in), np.cumsum(counts_out))


def auroc(passed: Passed) -> float:
    """Area under the ROC curve: the probability that in scope has the higher score, ties half."""
    true_positives = np.append(0, passed.in_scope) / passed.in_scope[-1]
    false_positives = np.append(0, passed.out_of_scope) / passed.out_of_scope[-1]
    return float(np.trapezoid(true_positives, false_positives))


def aupr_in(passed: Passed) -> float:
    """Average precision with in scope as the positive class."""
    return _average_precision(passed.in_scope, passed.out_of_scope)


def aupr_out(passed: Passed) -> float:
    """Average precision with out of scope as the positive class, lowest scores first."""
    return _average_precision(_from_below(passed.out_of_scope), _from_below(passed.in_scope))


def _from_below(until: Floats) -> Floats:
    """Counts up to each threshold from the lowest score, for those from the highest."""
    counts = np.diff(until, prepend=0)
    return np.cumsum(counts[::-1])


def _average_precision(positives: Floats, negatives: Floats) -> float:
    """Mean of the precision at each positive, without interpolation, as scikit-learn has it."""
    found = np.diff(positives, prepend=0)
    shown = np.maximum(positives + negatives, 1)
    return float((found * positives / shown).sum() / positives[-1])


def fpr_at_tpr(passed: Passed, tpr: float = TPR) -> float:
    """The share of out-of-scope rows above the highest threshold that keeps `tpr` in scope."""
    wanted = tpr * passed.in_scope[-1] - ROUNDING
    place = int(np.searchsorted(passed.in_scope, wanted, side="left"))
    return float(passed.out_of_scope[place] / passed.out_of_scope[-1])
