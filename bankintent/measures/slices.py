"""The same figures for parts of the rows, such as channels or languages, the worst part first."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from bankintent.measures.arrays import Bools, Floats, Ints
from bankintent.measures.calibration import calibration_error
from bankintent.measures.metrics import Bootstrap, confusion, macro_f1, occurring
from bankintent.measures.proportions import clopper_pearson

FEW_ROWS = 20
"""Rows below which the figures of a slice say little."""

MOST_SMALL = 100
"""Values with few rows that are shown one by one where no value has more."""


@dataclass(frozen=True)
class Slice:
    """The rows that have one value, or the joined rows of all values that have few."""

    value: str
    joined: int
    """Values that are joined here; 1 for a value of its own."""
    rows: int
    few: bool
    """Whether the rows are fewer than FEW_ROWS."""
    accuracy: float
    interval: list[float]
    """Lower and upper end of the exact 95 % interval of the accuracy (Clopper and Pearson)."""
    macro_f1: float
    """Mean over the intents that occur in these rows."""
    ece: float
    """Over 15 bins of as many rows each."""
    noise_floor: float
    """The calibration error of a perfectly calibrated model with these scores."""
    noise_floor_high: float
    """95 of 100 such models show at most this."""


@dataclass(frozen=True)
class SliceTable:
    """The slices by one column."""

    by: str
    slices: list[Slice]
    """Lowest accuracy first; those with few rows at the end."""


@dataclass(frozen=True)
class Answered:
    """The answers to some rows; all are (rows,)."""

    true: Ints
    predicted: Ints
    scores: Floats

    def take(self, members: Bools) -> "Answered":
        """The rows of a mask."""
        return Answered(self.true[members], self.predicted[members], self.scores[members])


def measure_slices(
    by: str, values: list[str], answers: Answered, bootstrap: Bootstrap
) -> SliceTable:
    """The figures of each slice; `values` are (rows,), of the column `by`.

    Values with few rows are joined, unless all of them have few and they can be listed. The repeats
    of `bootstrap` are copies of the same sentences: those count once as rows, and in intervals.
    """
    names, joined = _join(values, bootstrap.repeats)
    by_value = np.asarray(names)

    slices = []
    for value in dict.fromkeys(names):
        part = answers.take(by_value == value)
        count = len(joined) if value == _joined_name(joined) else 1
        slices.append(_measure(value, count, part, bootstrap))
    slices.sort(key=lambda one: (one.few, one.accuracy, one.value))
    return SliceTable(by, slices)


def _join(values: list[str], repeats: int) -> tuple[list[str], list[str]]:
    """(the name of the slice of each row; the values that are joined, if any)."""
    rows = Counter(values)
    small = [value for value, count in rows.items() if count // repeats < FEW_ROWS]
    is_all = len(small) == len(rows)
    if len(small) < 2 or (is_all and len(small) <= MOST_SMALL):
        return values, []

    name = _joined_name(small)
    is_small = set(small)
    return [name if value in is_small else value for value in values], small


def _joined_name(joined: list[str]) -> str:
    return f"{len(joined):,} values of fewer than {FEW_ROWS} rows"


def _measure(value: str, joined: int, answers: Answered, bootstrap: Bootstrap) -> Slice:
    right = answers.predicted == answers.true
    rows = len(right) // bootstrap.repeats
    calibration = calibration_error(
        answers.scores, right, bootstrap.seed, repeats=bootstrap.repeats
    )
    # Answers to one sentence are no independent rows: together they count as one.
    hits = right.sum() / bootstrap.repeats
    return Slice(
        value=value,
        joined=joined,
        rows=rows,
        few=rows < FEW_ROWS,
        accuracy=float(right.mean()),
        interval=clopper_pearson(hits, rows).ends(),
        macro_f1=_macro_f1(answers),
        ece=calibration.ece,
        noise_floor=calibration.noise_floor,
        noise_floor_high=calibration.noise_floor_high,
    )


def _macro_f1(answers: Answered) -> float:
    # The ids of the labels that occur here, in place of all: there may be thousands.
    every = np.concatenate([answers.true, answers.predicted])
    labels, ids = np.unique(every, return_inverse=True)
    true = ids[: len(answers.true)]
    counts = confusion(true, ids[len(answers.true) :], len(labels))
    return float(macro_f1(counts, occurring(true, len(labels))))
