"""Cross-validation of one recipe: a training for each fold, then one on all rows."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bankintent import console
from bankintent.bundle.work import WorkFolder
from bankintent.corpus.folds import Fold, Folds
from bankintent.errors import OutputError
from bankintent.measures import metrics
from bankintent.measures.learning import CurvePoint
from bankintent.measures.shares import in_percent
from bankintent.progress import waiting
from bankintent.tracking import Tracker
from bankintent.training import (
    backbones,
    epoch_choice,
    features,
    kept,
    learning_curve,
    processes,
)
from bankintent.training.epoch_choice import Answers, JudgedFold
from bankintent.training.features import KnownVectors
from bankintent.training.fit import TrainingRun, fit_run, labelled_rows
from bankintent.training.forward_check import require_trainable, require_vectors
from bankintent.training.hardware import one_thread
from bankintent.training.progress import duration
from bankintent.training.rows import RunRows
from bankintent.training.selection import Published

ANSWERS = "answers"
SECONDS = "seconds"
"""Names of the arrays in the file of a finished fold: its answers, and what it took, (1,)."""


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
    """What it took, with the folds that an earlier process of the run has trained."""

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
    console.say(f"Cross-validation: {len(list(folds))} trainings, then one on all sentences")
    judged = list(judge_folds(run, folds))
    logits = epoch_choice.out_of_fold(judged, folds, labels, keep)

    rows = np.flatnonzero(folds.judged)
    true = labels[rows]
    pooled = metrics.summary(logits.reshape(-1, logits.shape[2]), np.tile(true, folds.repeats))
    published = epoch_choice.describe(judged, labels, pooled["macro_f1"], run.config)

    with waiting("Finding out how much more sentences would help"), one_thread():
        curve = []
        if processes.is_main():
            curve = learning_curve.measure(run.known.take(train.texts).numpy(), labels, folds)
    return CrossValidation(
        folds=folds,
        ids=[train.ids[row] for row in rows.tolist()],
        texts=[train.texts[row] for row in rows.tolist()],
        true=true,
        logits=logits,
        published=published,
        curve=curve,
        seconds=time.perf_counter() - started + sum(part.earlier_seconds for part in judged),
    )


def with_vectors(run: TrainingRun) -> TrainingRun:
    """The run with the frozen encoder's vectors of all rows, from one pass for all trainings."""
    config = run.config
    texts = list(dict.fromkeys(labelled_rows(run).texts))
    with waiting(f"Reading {len(texts):,} sentences once with the frozen encoder"):
        with processes.main_first():
            backbone = backbones.load_backbone(
                config.model_name,
                run.data.labels,
                config.max_length,
                config.revision,
                config.pooling,
                config.prefix,
            )
        require_trainable(backbone, config)
        require_vectors(backbone)
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


def judge_folds(run: TrainingRun, folds: Folds) -> Iterator[JudgedFold]:
    """Train and judge every fold, and print a line after each.

    Folds that an interrupted run has finished are not trained again.
    """
    labels = np.asarray(run.rows.train.labels)
    total = len(list(folds))
    seconds: list[float] = []
    for number, fold in enumerate(folds, 1):
        path = run.work.folds / f"{fold.repeat}-{fold.number}.safetensors"
        finished = _read_once(path, fold)
        if finished is not None:
            yield finished
            continue

        started = time.perf_counter()
        answers = train_fold(run, fold)
        seconds.append(time.perf_counter() - started)
        if processes.is_main():
            _write_finished(path, answers, seconds[-1])

        # Of the last epoch: which one is published is not known before all folds are.
        accuracy = (answers[-1].argmax(axis=1) == labels[fold.held_out]).mean()
        left = duration((total - number) * float(np.mean(seconds)))
        console.say(
            f"fold {number} of {total}: {in_percent(float(accuracy))} of"
            f" {len(fold.held_out)} held-out sentences, {duration(seconds[-1])}, about {left} left"
        )
        yield JudgedFold(fold, answers)


def _write_finished(path: Path, answers: Answers, seconds: float) -> None:
    """Keep a fold's answers for a later process; OutputError where that is impossible."""
    arrays = {ANSWERS: answers, SECONDS: np.asarray([seconds], dtype=np.float32)}
    try:
        kept.write(path, arrays)
    except kept.CannotKeep as error:
        raise OutputError(
            f"{path} cannot be written ({error})",
            "Make room there, and run the same command again to go on",
        ) from None


def _read_once(path: Path, fold: Fold) -> JudgedFold | None:
    """What `_read_finished` gives, alike in every process."""
    # The main one says whether it is to be believed.
    is_there = processes.from_main(lambda: _read_finished(path, fold) is not None)
    return _read_finished(path, fold) if is_there else None


def _read_finished(path: Path, fold: Fold) -> JudgedFold | None:
    """A fold that an earlier process has trained; None where it is to be trained."""
    try:
        arrays = kept.read(path)
    except kept.Damaged:
        arrays = {}
    if arrays is None:
        return None

    is_whole = arrays.keys() == {ANSWERS, SECONDS}
    if not is_whole or arrays[ANSWERS].shape[1] != len(fold.held_out):
        console.say(f"{console.show_path(path)} is damaged: its fold is trained anew.")
        return None
    return JudgedFold(fold, arrays[ANSWERS], float(arrays[SECONDS][0]))


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
    if processes.is_main():
        shutil.rmtree(work.path, ignore_errors=True)
    return np.stack(fitted.fit.answers)
