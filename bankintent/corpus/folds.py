"""The parts that cross-validation holds out in turn: every judged row once in each repeat."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALWAYS_TRAINED = -1
"""In the place of a fold: the row is never held out."""

Assignment = NDArray[np.int64]
"""(repeats, rows): the fold that holds out a row, or ALWAYS_TRAINED."""


@dataclass(frozen=True)
class Fold:
    """One training of a cross-validation."""

    repeat: int
    number: int
    """Among the folds of its repeat, from 0."""
    train: NDArray[np.int64]
    """Indices of the rows to train on."""
    held_out: NDArray[np.int64]
    """Indices of the rows to judge it on."""


@dataclass(frozen=True)
class Folds:
    """Which rows each fold holds out."""

    assignment: Assignment

    @property
    def repeats(self) -> int:
        return len(self.assignment)

    @property
    def count(self) -> int:
        """Folds of a repeat."""
        return int(self.assignment.max()) + 1

    @property
    def judged(self) -> NDArray[np.bool_]:
        """(rows,) whether a row is held out at some time."""
        return np.asarray(self.assignment[0] != ALWAYS_TRAINED)

    def __iter__(self) -> Iterator[Fold]:
        for repeat, fold_of_row in enumerate(self.assignment):
            for number in range(self.count):
                held_out = fold_of_row == number
                if not held_out.any():
                    # With few groups of nearly the same rows a fold may be left without any.
                    continue
                yield Fold(repeat, number, np.flatnonzero(~held_out), np.flatnonzero(held_out))

    def extended(self, rows: int) -> "Folds":
        """The same with so many rows at the end that are always trained on."""
        more = np.full((self.repeats, rows), ALWAYS_TRAINED, dtype=np.int64)
        return Folds(np.concatenate([self.assignment, more], axis=1))
