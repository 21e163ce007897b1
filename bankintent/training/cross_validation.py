"""Cross-validation of one recipe: a training for each fold, then one on all rows."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from bankintent import console, files
from bankintent.bundle.work import WorkFolder
from bankintent.corpus.folds import Fold, Folds
from bankintent.measures import metrics
from bankintent.measures.learning import CurvePoint
from bankintent.measures.shares import in_percent
from bankintent.progress import waiting
from bankintent.tracking import Tracker
from bankintent.training import backbones, epoch_choice, features, learning_curve
from bankintent.training.epoch_choice import Answers, JudgedFold
from bankintent.training.features import KnownVectors
from bankintent.training.fit import TrainingRun, fit_run, labelled_rows
from bankintent.training.hardware import one_thread
from bankintent.training.progress import duration
from bankintent.training.rows import RunRows
from bankintent.training.selection import Published

ANSWERS = "answers"
"""Name of the tensor in the file of a finished fold."""


@dataclass(frozen=True)
class CrossValidation:
    """What cross-validation says of a recipe."""

    folds: Folds
    ids: list[str]
    """Of the judged rows, in the order of train."""
    texts: list[str]
    true: NDArray[np.int64]
    """(judged rows,) their label ids."""
    logits: NDArray[np.float32]
    """(repeats, judged rows, labels): the answer to each row by a model that has not seen it."""
    published: Published
    """The epoch that the final model gets."""
    curve: list[CurvePoint]
    """Accuracy of a linear probe with less of the data."""
    seconds: float

    @property
    def accuracies(self) -> list[float]:
        """Accuracy out of fold, one for each repeat."""
        right = self.logits.argmax(axis=2) == self.true
        return [float(share) for share in right.mean(axis=1)]


def cross_validate(run: TrainingRun) -> CrossValidation:
    """Judge the recipe of a run by the folds of its rows.

    Folds that an interrupted run has finished are not trained again.
    """
    assert run.rows.folds is not None
    folds = run.rows.folds
    train = run.rows.train
    labels = np.asarray(train.labels)
    keep = run.config.keep
    started = time.perf_counter()

    assert run.known is not None
    judged = list(_judge_folds(run, folds))
    logits = epoch_choice.out_of_fold(judged, folds, labels, keep)

    rows = np.flatnonzero(folds.judged)
    true = labels[rows]
    pooled = metrics.summary(logits.reshape(-1, logits.shape[2]), np.tile(true, folds.repeats))
    published = epoch_choice.describe(judged, labels, pooled["macro_f1"], run.config)

    with waiting("Finding out how much more sentences would help"), one_thread():
        curve = learning_curve.measure(run.known.take(train.texts).numpy(), labels, folds)
    return CrossValidation(
        folds=folds,
        ids=[train.ids[row] for row in rows],
        texts=[train.texts[row] for row in rows],
        true=true,
        logits=logits,
        published=published,
        curve=curve,
        seconds=time.perf_counter() - started,
    )


def with_vectors(run: TrainingRun) -> TrainingRun:
    """The run with the frozen encoder's vectors of all rows, from one pass for all trainings."""
    config = run.config
    texts = list(dict.fromkeys(labelled_rows(run).texts))
    with waiting(f"Reading {len(texts):,} sentences once with the frozen encoder"):
        backbone = backbones.load_backbone(
            config.model_name, run.data.labels, config.max_length, config.revision, config.pooling
        )
        vectors = features.frozen(
            backbone, run.data.labels, texts, config.eval_batch_size, config.cache_dir
        )

    # A text that stands twice has one vector.
    row_of_text = {text: row for row, text in enumerate(texts)}
    return replace(run, known=KnownVectors(vectors.table, row_of_text))


def final_run(run: TrainingRun, result: CrossValidation) -> TrainingRun:
    """The training on all rows, for the epochs that cross-validation has chosen."""
    # There is no validation to keep the best epoch of.
    config = run.config.model_copy(update={"keep": "last"})
    return replace(run, config=config, published=result.published)


def _judge_folds(run: TrainingRun, folds: Folds) -> Iterator[JudgedFold]:
    """Train and judge every fold, and print a line after each."""
    labels = np.asarray(run.rows.train.labels)
    total = len(list(folds))
    console.say(f"Cross-validation: {total} trainings, then one on all sentences")

    seconds: list[float] = []
    for number, fold in enumerate(folds, 1):
        path = run.work.folds / f"{fold.repeat}-{fold.number}.safetensors"
        if path.is_file():
            yield JudgedFold(fold, load_file(path)[ANSWERS])
            continue

        started = time.perf_counter()
        answers = train_fold(run, fold)
        with files.staged(path) as staging:
            save_file({ANSWERS: answers}, staging)
        seconds.append(time.perf_counter() - started)

        # Of the last epoch: which one is published is not known before all folds are.
        accuracy = (answers[-1].argmax(axis=1) == labels[fold.held_out]).mean()
        left = duration((total - number) * float(np.mean(seconds)))
        console.say(
            f"fold {number} of {total}: {in_percent(float(accuracy))} of"
            f" {len(fold.held_out)} held-out sentences, {duration(seconds[-1])}, about {left} left"
        )
        yield JudgedFold(fold, answers)


def train_fold(run: TrainingRun, fold: Fold) -> Answers:
    """Train on the rows of one fold, and answer those that it holds out after every epoch."""
    train = run.rows.train
    learned = train.take(fold.train.tolist())
    held_out = train.take(fold.held_out.tolist())
    rows = RunRows(learned, held_out, run.rows.unlabelled)
    work = WorkFolder(run.work.folds / f"{fold.repeat}-{fold.number}.work")
    untracked = run.config.tracking.model_copy(update={"enabled": False})

    part = replace(
        run,
        config=run.config.model_copy(update={"keep": "last"}),
        rows=rows,
        work=work,
        tracker=Tracker(untracked),
        is_fold=True,
    )
    with contextlib.ExitStack() as stack:
        # A table of epochs for each fold would bury the line that counts.
        stack.enter_context(console.silence())
        if run.config.regime == "head-only":
            stack.enter_context(one_thread())
        fitted = fit_run(part)
    shutil.rmtree(work.path, ignore_errors=True)
    return np.stack(fitted.fit.answers)
