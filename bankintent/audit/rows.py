"""The rows that an audit looks at: those of train and val. Test rows are never read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bankintent.config import AuditConfig
from bankintent.corpus.cross_split import draw_folds_of
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.corpus.folds import Folds
from bankintent.errors import DataError


@dataclass(frozen=True)
class AuditRows:
    """Rows of a dataset whose labels may be wrong."""

    data: Dataset
    rows: SplitData
    """Those of train, then those of val."""
    splits: list[str]
    """The split of each row."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the intents, in id order."""
        return self.data.labels.names

    @property
    def labels(self) -> NDArray[np.int64]:
        """(rows,) label ids."""
        return np.asarray(self.rows.labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)


def read_rows(data: Dataset) -> AuditRows:
    """The rows of train and, where there is one, of val."""
    rows = data.read("train")
    splits = ["train"] * len(rows)
    if not data.is_cross:
        val = data.read("val")
        rows = rows + val
        splits += ["val"] * len(val)
    return AuditRows(data, rows, splits)


def draw(rows: AuditRows, settings: AuditConfig) -> Folds:
    """Which rows each fold holds out; nearly the same rows stand in one fold.

    Intents with fewer than three different sentences are in no fold. Raises DataError where all are
    such.
    """
    folds = draw_folds_of(rows.rows, rows.names, settings.folds, settings.seed)
    if not folds.judged.any():
        raise DataError(
            f"no intent of {rows.data.path} has three different sentences, which an audit needs",
            "Add sentences",
        )
    return folds
