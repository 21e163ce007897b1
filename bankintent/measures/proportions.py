"""Intervals of a share that was counted: how many of so many rows are right."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95

Counts = NDArray[Any] | float
"""Numbers of rows: one, or an array of them."""


@dataclass(frozen=True)
class Interval:
    """Lower and upper end of an interval of shares (0 to 1), of the shape of the counts."""

    low: Any
    high: Any

    def ends(self) -> list[float]:
        """Both ends as plain numbers, where they are of one share."""
        return [float(self.low), float(self.high)]


def clopper_pearson(hits: Counts, rows: Counts, level: float = LEVEL) -> Interval:
    """The exact interval of a share (Clopper and Pearson, 1934), never too narrow.

    Takes numbers or arrays. Without rows it is 0 to 1.
    """
    tail = (1 - level) / 2
    return Interval(lower_bound(hits, rows, 1 - tail), upper_bound(hits, rows, 1 - tail))


def lower_bound(hits: Counts, rows: Counts, confidence: float = LEVEL) -> Any:
    """The one-sided exact bound: the true share is at least this with the given confidence."""
    # Late: servers import this module through the metrics, and have no scipy.
    from scipy import special

    right = np.asarray(hits, dtype=np.float64)
    wrong = np.asarray(rows, dtype=np.float64) - right
    # The quantile of a beta distribution, whose parameters may not be zero.
    bound = special.betaincinv(np.maximum(right, 1e-9), wrong + 1, 1 - confidence)
    return np.where(right > 0, bound, 0.0)


def upper_bound(hits: Counts, rows: Counts, confidence: float = LEVEL) -> Any:
    """The one-sided exact bound: the true share is at most this with the given confidence."""
    wrong = np.asarray(rows, dtype=np.float64) - np.asarray(hits, dtype=np.float64)
    return 1 - lower_bound(wrong, rows, confidence)


def wilson(hits: Counts, rows: Counts, level: float = LEVEL) -> Interval:
    """The score interval of a share (Wilson, 1927), which on the average holds its level.

    Takes numbers or arrays. Without rows it is 0 to 1.
    """
    from scipy import special

    counted = np.asarray(rows, dtype=np.float64)
    z = float(special.ndtri((1 + level) / 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.asarray(hits, dtype=np.float64) / counted
        denominator = 1 + z**2 / counted
        centre = (share + z**2 / (2 * counted)) / denominator
        spread = share * (1 - share) / counted + z**2 / (4 * counted**2)
        half = z * np.sqrt(spread) / denominator

    has_rows = counted > 0
    low = np.where(has_rows, np.maximum(centre - half, 0.0), 0.0)
    high = np.where(has_rows, np.minimum(centre + half, 1.0), 1.0)
    return Interval(low, high)
