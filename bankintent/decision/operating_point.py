"""The least score that is answered, for what a user wants to promise.

Each threshold is found with a confidence bound: on a few hundred validation rows, the threshold
with the wanted precision on these rows would often miss it on the next ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bankintent.config.decision import TargetSection
from bankintent.measures.arrays import Bools, Floats
from bankintent.measures.proportions import lower_bound

STEPS = 100
"""Thresholds that are tried, evenly over the rows."""

SPARE_ERRORS = 2
"""The strictest threshold that is tried would hold with so many errors above it."""


@dataclass(frozen=True)
class Judged:
    """Validation rows that are in scope, with the scores of their answers."""

    scores: Floats
    """(rows in scope,)"""
    right: Bools
    """(rows in scope,)"""
    refused: int = 0
    """Further rows that were refused as out of scope; they are not answered either."""

    @property
    def rows(self) -> int:
        """All rows."""
        return len(self.scores) + self.refused

    def take(self, chosen: Bools) -> "Judged":
        """Some of the rows in scope."""
        return Judged(self.scores[chosen], self.right[chosen])


def find_threshold(rows: Judged, target: TargetSection, confidence: float) -> float | None:
    """The threshold for a target; None where no threshold can promise it on so many rows."""
    if len(rows.scores) == 0:
        return None
    if target.precision is not None:
        return for_precision(rows, target.precision, confidence)
    if target.coverage is not None:
        return for_coverage(rows, target.coverage, confidence)
    assert target.wrong is not None
    assert target.handover is not None
    return for_costs(rows, target.wrong, target.handover, confidence)


def for_precision(rows: Judged, precision: float, confidence: float) -> float | None:
    """The lowest threshold that promises a precision.

    Thresholds are tested from the strictest one on, until one fails (fixed-sequence testing, as in
    Angelopoulos et al., 2021): so the confidence holds for the one that is taken. A test passes
    where the exact lower bound of the precision (Clopper and Pearson, 1934) is at least the target.
    """
    ranking = _Ranking.of(rows)
    passed = []
    for sequence in _sequences(len(rows.scores), precision, confidence):
        passed.append(_last_passed(ranking, sequence, precision))
    # The most rows answered, by the lowest threshold.
    count = max(passed, default=0)
    return None if count == 0 else float(ranking.scores[count - 1])


@dataclass(frozen=True)
class _Ranking:
    """The rows from the highest score to the lowest."""

    scores: Floats
    right: Floats
    """How many of the rows up to each one are right."""

    @classmethod
    def of(cls, rows: Judged) -> "_Ranking":
        order = np.argsort(-rows.scores, kind="stable")
        return cls(rows.scores[order], np.cumsum(rows.right[order]))

    def count_from(self, answered: int) -> int:
        """Rows that are answered where so many are to be: rows of one score go together."""
        threshold = self.scores[answered - 1]
        return int(np.searchsorted(-self.scores, -threshold, side="right"))


@dataclass(frozen=True)
class _Sequence:
    """Tests in their order. It does not depend on what is right."""

    counts: list[int]
    """Numbers of answered rows, fewest first."""
    confidence: float


def _sequences(rows: int, precision: float, confidence: float) -> list[_Sequence]:
    """One sequence of tests; two where there are rows enough for both.

    With one alone, a few wrong labels among the surest rows would end all. Two share the risk:
    half of it for each.
    """
    halved = 1 - (1 - confidence) / 2
    fewest = fewest_rows(precision, halved, SPARE_ERRORS)
    if 2 * fewest <= rows:
        middle = (fewest + rows) // 2
        return [_sequence(fewest, rows, halved), _sequence(middle, rows, halved)]

    fewest = fewest_rows(precision, confidence, SPARE_ERRORS)
    return [_sequence(fewest, rows, confidence)] if fewest <= rows else []


def _sequence(first: int, rows: int, confidence: float) -> _Sequence:
    step = max(1, rows // STEPS)
    return _Sequence([*range(first, rows, step), rows], confidence)


def _last_passed(ranking: _Ranking, sequence: _Sequence, precision: float) -> int:
    """How many rows the last test answers that passes, before any fails; 0 where none does."""
    passed = 0
    for answered in sequence.counts:
        count = ranking.count_from(answered)
        bound = lower_bound(ranking.right[count - 1], count, sequence.confidence)
        if float(bound) < precision:
            break
        passed = count
    return passed


def fewest_rows(precision: float, confidence: float, errors: int = 0) -> int:
    """Answers that are needed to promise a precision where so many of them are wrong."""
    count = errors + 1
    while float(lower_bound(count - errors, count, confidence)) < precision:
        count += 1
    return count


def for_coverage(rows: Judged, coverage: float, confidence: float) -> float:
    """The highest threshold at which so many texts are answered, with confidence.

    Where even all rows cannot promise it, everything in scope is answered.
    """
    ascending = np.sort(rows.scores)
    counts = np.arange(1, len(ascending) + 1)
    is_enough = lower_bound(counts, rows.rows, confidence) >= coverage
    if not is_enough.any():
        return 0.0
    answered = int(counts[is_enough][0])
    return float(ascending[len(ascending) - answered])


def for_costs(rows: Judged, wrong: float, handover: float, confidence: float) -> float:
    """The threshold with the least upper bound of the mean cost of a text.

    A calibrated score would be answered from 1 - handover / wrong on (Chow, 1970); the rows say
    what that costs.
    """
    order = np.argsort(-rows.scores, kind="stable")
    scores = rows.scores[order]
    errors = np.concatenate([[0], np.cumsum(~rows.right[order])])
    answered = np.arange(len(scores) + 1)

    total = rows.rows
    mean = (wrong * errors + handover * (total - answered)) / total
    square = (wrong**2 * errors + handover**2 * (total - answered)) / total
    deviation = np.sqrt(np.maximum(square - mean**2, 0) / total)
    bounds = mean + float(special.ndtri(confidence)) * deviation

    # Where the next score is the same, no threshold divides the two rows.
    is_possible = np.append(np.append(True, scores[1:] != scores[:-1]), True)
    bounds[~is_possible] = np.inf
    best = int(bounds.argmin())
    # None is answered: no score is above 1.
    return float(scores[best - 1]) if best > 0 else float(np.nextafter(1.0, 2.0))


def own_thresholds(
    rows: Judged, answers: NDArray[np.intp], precision: float, confidence: float
) -> dict[int, float]:
    """Intent -> its own threshold, where enough rows are answered with it to promise a precision.

    `answers` are the intents of the rows.
    """
    needed = fewest_rows(precision, confidence, SPARE_ERRORS)
    found = {}
    for intent, count in enumerate(np.bincount(answers)):
        if count < needed:
            continue
        threshold = for_precision(rows.take(answers == intent), precision, confidence)
        if threshold is not None:
            found[intent] = threshold
    return found
