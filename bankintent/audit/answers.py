"""Answers out of fold: what a model that has not seen a row makes of it."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bankintent.audit import quick
from bankintent.audit.rows import AuditRows, draw
from bankintent.bundle.work import WorkFolder
from bankintent.config import AuditConfig, TrackingConfig, TrainConfig
from bankintent.configfile import load
from bankintent.corpus.dataset import SplitData
from bankintent.corpus.folds import Folds
from bankintent.errors import ConfigError
from bankintent.measures import metrics
from bankintent.progress import waiting
from bankintent.tracking import Tracker

if TYPE_CHECKING:
    from bankintent.training.fit import TrainingRun

Probabilities = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What the models of the folds say of the rows that they have not seen."""

    probabilities: Probabilities
    """(rows, labels); zeros where a row is not judged."""
    judged: NDArray[np.bool_]
    """(rows,) whether a model has answered: not for intents with too few sentences."""
    vectors: Vectors
    """(rows, width) of length 1: the frozen encoder's, by which sentences are near."""
    method: str
    """What has answered, in words."""

    def share_right(self, labels: NDArray[np.int64]) -> float:
        """The share of the judged rows whose label is the answer."""
        answers = self.probabilities[self.judged].argmax(axis=1)
        return float((answers == labels[self.judged]).mean())


def train_settings(settings: AuditConfig) -> TrainConfig | None:
    """The train.yaml that an audit names; None where it names none.

    Raises ConfigError where its settings do not go with folds.
    """
    if settings.train_config is None:
        return None

    config = load(TrainConfig, settings.train_config, regime=settings.regime)
    not_in_folds = {
        "few_shot": config.few_shot is not None,
        "distill": config.distill is not None,
        "early_stopping": config.early_stopping is not None,
        "pseudo_labels": config.pseudo_labels is not None,
    }
    for key, is_set in not_in_folds.items():
        if is_set:
            raise ConfigError(
                f"{settings.train_config}: {key} does not go with an audit, whose folds hold out"
                " every row once",
                f"Remove {key}",
            )
    return config


def answer(rows: AuditRows, settings: AuditConfig, training: TrainConfig | None) -> Answers:
    """Answer every row by a model that has not seen it."""
    with waiting("Comparing sentences with each other"):
        folds = draw(rows, settings)
    if training is not None:
        return _by_training(rows, folds, training)

    return answer_by_vectors(rows, folds, settings)


def answer_by_vectors(rows: AuditRows, folds: Folds, settings: AuditConfig) -> Answers:
    """The answers to the rows that a fold holds out, from the frozen encoder's vectors."""
    vectors = quick.read_vectors(rows, settings)
    probabilities = quick.answer(vectors, rows.labels, len(rows.names), folds)
    method = (
        f"logistic regression and nearest sentences on the vectors of {settings.model_name},"
        f" {folds.count} folds"
    )
    return Answers(probabilities, folds.judged, quick.unit_length(vectors), method)


def _by_training(rows: AuditRows, folds: Folds, config: TrainConfig) -> Answers:
    """The answers of models of any regime, one trained for each fold."""
    # Late: a quick audit needs nothing of training.
    from bankintent.training.cross_validation import cross_validate

    with _training_run(rows, folds, config) as run:
        logits = cross_validate(run).logits[0]
        return _of_logits(rows, folds, run, logits)


def answer_by_one_training(rows: AuditRows, folds: Folds, config: TrainConfig) -> Answers:
    """The answers of one model to the rows that the one fold holds out.

    It is the model of the last epoch: another would be chosen by the rows that are held out.
    """
    from bankintent.training.cross_validation import train_fold

    with _training_run(rows, folds, config) as run:
        [fold] = folds
        return _of_logits(rows, folds, run, train_fold(run, fold)[-1])


@contextlib.contextmanager
def _training_run(rows: AuditRows, folds: Folds, config: TrainConfig) -> Iterator["TrainingRun"]:
    """A run on the rows with a work folder that goes with the block, its vectors read."""
    from bankintent.training.cross_validation import with_vectors
    from bankintent.training.fit import TrainingRun
    from bankintent.training.rows import RunRows

    with tempfile.TemporaryDirectory(prefix="bankintent-audit-") as folder:
        yield with_vectors(
            TrainingRun(
                config=config,
                data=rows.data,
                rows=RunRows(rows.rows, SplitData.empty(), folds=folds),
                work=WorkFolder(Path(folder)),
                tracker=Tracker(TrackingConfig(enabled=False)),
            )
        )


def _of_logits(
    rows: AuditRows, folds: Folds, run: "TrainingRun", logits: NDArray[np.float32]
) -> Answers:
    """Answers from the (judged rows, labels) logits."""
    assert run.known is not None
    probabilities = np.zeros((len(rows), len(rows.names)))
    probabilities[folds.judged] = metrics.softmax(logits.astype(np.float64))
    vectors = quick.unit_length(run.known.take(rows.rows.texts).numpy())
    method = f"{run.config.regime} on {run.config.model_name}, {folds.count} folds"
    return Answers(probabilities, folds.judged, vectors, method)
