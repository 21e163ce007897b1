"""Test rows whose label is suspected; no decision is asked for, and none of them is changed."""

from dataclasses import dataclass

import numpy as np

from bankintent.audit import answers, suspects
from bankintent.audit.rows import AuditRows
from bankintent.config import AuditConfig
from bankintent.config.training import TrainConfig
from bankintent.corpus.dataset import Dataset
from bankintent.corpus.folds import ALWAYS_TRAINED, Folds
from bankintent.corpus.patches import text_key
from bankintent.corpus.suspected_test import KIND, SuspectedRow, SuspectedTest


@dataclass(frozen=True)
class TestedRows:
    """The rows of train, and behind them those of test, which one model answers."""

    rows: AuditRows
    folds: Folds
    """One, that holds out the rows of test."""


def read_rows(data: Dataset) -> TestedRows:
    """The rows; DataError where the data has no test split."""
    train = data.read("train")
    test = data.read("test")
    splits = ["train"] * len(train) + ["test"] * len(test)
    held_out = [ALWAYS_TRAINED] * len(train) + [0] * len(test)
    return TestedRows(
        rows=AuditRows(data, train + test, splits),
        folds=Folds(np.array([held_out], dtype=np.int64)),
    )


def find(tested: TestedRows, settings: AuditConfig, training: TrainConfig | None) -> SuspectedTest:
    """Suspect test rows by the answers of a model that was trained on train alone."""
    rows = tested.rows
    if training is None:
        made = answers.answer_by_vectors(rows, tested.folds, settings)
    else:
        made = answers.answer_by_one_training(rows, tested.folds, training)

    suspected = []
    for row in np.flatnonzero(suspects.find_suspects(rows.labels, made, settings.filter)).tolist():
        given = rows.names[rows.rows.labels[row]]
        suspected.append(SuspectedRow(rows.rows.ids[row], text_key(rows.rows.texts[row]), given))

    count = int(tested.folds.judged.sum())
    method = f"{made.method.removesuffix(', 1 folds')}, trained on train alone"
    return SuspectedTest(KIND, rows.data.hash, method, count, suspected)
