"""What is right among the answers that a model is surest of, and how many those are.

A model that may decline answers the rows whose score reaches a threshold. Coverage is the share of
rows that it answers, precision the share of right ones among those, risk one minus precision
(El-Yaniv and Wiener, 2010; Geifman and El-Yaniv, 2017). Rows of one score are answered together:
no threshold divides them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from bankintent.measures.arrays import Bools, Floats, Ints
from bankintent.measures.metrics import Bootstrap, percentile_interval

PRECISIONS = (0.98, 0.99)
"""Shares of right answers whose coverage is reported."""

COVERAGES = (0.8, 0.9)
"""Shares of answered rows whose precision is reported."""

CURVE_POINTS = 100
"""Most points of a curve that is written down."""

ROUNDING = 1e-9
"""Rows by which a product of a share and a number of rows may be off."""


@dataclass(frozen=True)
class Ranking:
    """Answers from the surest to the least sure, a place for each different score.

    All are (scores,).
    """

    thresholds: Floats
    """Highest first."""
    answered: Floats
    """Rows whose score is at least the threshold."""
    right: Floats
    """Right answers among those."""

    @property
    def rows(self) -> int:
        """All rows."""
        return int(self.answered[-1])


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it means on some rows."""

    threshold: float | None
    """Rows with at least this score are answered; None where none are."""
    answered: int
    right: int
    coverage: float
    precision: float | None
    """None where nothing is answered."""


@dataclass(frozen=True)
class Estimate:
    """A figure and the lower and upper end of its 95 % interval."""

    value: float
    interval: list[float]


@dataclass(frozen=True)
class CoverageAt:
    """The most rows that may be answered at a precision."""

    precision: float
    """What is asked for."""
    coverage: float
    interval: list[float]
    threshold: float | None
    """None where no threshold gives this precision."""


@dataclass(frozen=True)
class PrecisionAt:
    """The precision where at least this share of the rows is answered."""

    coverage: float
    """What is asked for."""
    precision: float
    interval: list[float]


@dataclass(frozen=True)
class SelectiveFigures:
    """What a model could promise if it might decline."""

    aurc: Estimate
    """Area under the risk-coverage curve; lower is better."""
    coverage_at: list[CoverageAt]
    precision_at: list[PrecisionAt]
    curve: list[OperatingPoint]
    """At most CURVE_POINTS points of the curve, the surest first."""


def rank(scores: Floats, right: Bools) -> Ranking:
    """Rank (rows,) answers by their scores; `right` says which are right."""
    return _Sorted.of(scores, right).rank(np.ones(len(scores)))


@dataclass(frozen=True)
class _Sorted:
    """Rows from the highest score to the lowest."""

    order: Ints
    """Index of each row in the order that was given."""
    right: Floats
    ends: Ints
    """Of each different score, the place of its last row."""
    thresholds: Floats

    @classmethod
    def of(cls, scores: Floats, right: Bools) -> "_Sorted":
        # Right ones first among equal scores: a resample then does not depend on the given order.
        order = np.lexsort((~right, -scores))
        descending = scores[order]
        is_end = np.append(descending[1:] != descending[:-1], True)
        ends = np.flatnonzero(is_end)
        return cls(order, right[order].astype(np.float64), ends, descending[ends])

    def rank(self, weights: Floats | Ints) -> Ranking:
        """The ranking of rows that count `weights` times, in the sorted order."""
        answered = np.cumsum(weights, dtype=np.float64)[self.ends]
        right = np.cumsum(weights * self.right, dtype=np.float64)[self.ends]
        return Ranking(self.thresholds, answered, right)


def risk_coverage_area(ranking: Ranking) -> float:
    """Area under the risk-coverage curve, the mean risk over all coverages (Geifman et al., 2019).

    Within rows of one score, errors are taken to be spread evenly.
    """
    places = np.arange(1, ranking.rows + 1)
    errors = ranking.answered - ranking.right
    errors_until = np.interp(places, np.append(0, ranking.answered), np.append(0, errors))
    return float((errors_until / places).mean())


def coverage_at_precision(ranking: Ranking, precision: float) -> float:
    """The largest share of rows that a threshold answers with at least this precision."""
    return point_at_precision(ranking, precision).coverage


def point_at_precision(ranking: Ranking, precision: float) -> OperatingPoint:
    """The threshold that answers most rows with at least this precision on these very rows.

    It is chosen by looking at them: on other rows the same threshold gives somewhat less.
    """
    is_reached = ranking.right >= precision * ranking.answered - ROUNDING
    reached = np.flatnonzero(is_reached)
    if len(reached) == 0:
        return OperatingPoint(None, 0, 0, 0.0, None)
    return _point(ranking, int(reached[-1]))


def precision_at_coverage(ranking: Ranking, coverage: float) -> float:
    """The precision of the highest threshold that answers at least this share of the rows."""
    return float(_precision(ranking, _place_of_coverage(ranking, coverage)))


def point_at_coverage(ranking: Ranking, coverage: float) -> OperatingPoint:
    """The highest threshold that answers at least this share of the rows."""
    return _point(ranking, _place_of_coverage(ranking, coverage))


def _place_of_coverage(ranking: Ranking, coverage: float) -> int:
    wanted = coverage * ranking.rows - ROUNDING
    return int(np.searchsorted(ranking.answered, wanted, side="left"))


def _precision(ranking: Ranking, place: int) -> float:
    return float(ranking.right[place] / ranking.answered[place])


def _point(ranking: Ranking, place: int) -> OperatingPoint:
    answered = ranking.answered[place]
    if answered == 0:
        return OperatingPoint(None, 0, 0, 0.0, None)
    return OperatingPoint(
        threshold=float(ranking.thresholds[place]),
        answered=int(answered),
        right=int(ranking.right[place]),
        coverage=float(answered / ranking.rows),
        precision=_precision(ranking, place),
    )


def curve(ranking: Ranking, points: int = CURVE_POINTS) -> list[OperatingPoint]:
    """At most so many points of the risk-coverage curve, at even steps of coverage."""
    places = {_place_of_coverage(ranking, step / points) for step in range(1, points + 1)}
    return [_point(ranking, place) for place in sorted(places)]


def bootstrap_rankings(scores: Floats, right: Bools, bootstrap: Bootstrap) -> Iterator[Ranking]:
    """Rankings of resampled rows; a sentence is drawn with all of its answers."""
    rows = _Sorted.of(scores, right)
    sentences = len(scores) // bootstrap.repeats
    # A place in the sorted order for each sentence, so that the draws do not follow the given one.
    place_of_sentence = np.empty(sentences, dtype=np.int64)
    firsts = rows.order[rows.order < sentences]
    place_of_sentence[firsts] = np.arange(sentences)
    place_of_row = place_of_sentence[rows.order % sentences]

    rng = np.random.default_rng(bootstrap.seed)
    for _ in range(bootstrap.resamples):
        drawn = rng.integers(sentences, size=sentences)
        counts = np.bincount(drawn, minlength=sentences)
        yield rows.rank(counts[place_of_row])


def measure_selective(scores: Floats, right: Bools, bootstrap: Bootstrap) -> SelectiveFigures:
    """The figures of (rows,) answers with intervals from resampled rows.

    Coverage at a precision looks for the best threshold, in each resample too, and so is too good
    where rows are few. In 150 simulations of a calibrated model the interval held the true coverage
    95 times in 100 at a precision of 98 % and 91 times at 99 % with 3,080 rows, but 87 and 63 times
    with 426. Whoever promises a precision needs a bound, not this figure.
    """
    figures: list[Callable[[Ranking], float]] = [risk_coverage_area]
    figures += [partial(coverage_at_precision, precision=share) for share in PRECISIONS]
    figures += [partial(precision_at_coverage, coverage=share) for share in COVERAGES]

    samples: list[list[float]] = []
    for resample in bootstrap_rankings(scores, right, bootstrap):
        samples.append([figure(resample) for figure in figures])
    intervals = [percentile_interval(values) for values in np.asarray(samples).T]
    of_precisions = intervals[1 : 1 + len(PRECISIONS)]
    of_coverages = intervals[1 + len(PRECISIONS) :]

    ranking = rank(scores, right)
    coverage_at = []
    for precision, interval in zip(PRECISIONS, of_precisions, strict=True):
        point = point_at_precision(ranking, precision)
        coverage_at.append(CoverageAt(precision, point.coverage, interval, point.threshold))
    precision_at = []
    for coverage, interval in zip(COVERAGES, of_coverages, strict=True):
        share = precision_at_coverage(ranking, coverage)
        precision_at.append(PrecisionAt(coverage, share, interval))

    aurc = Estimate(risk_coverage_area(ranking), intervals[0])
    return SelectiveFigures(aurc, coverage_at, precision_at, curve(ranking))
