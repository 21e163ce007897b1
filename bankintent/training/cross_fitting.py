"""Answers to training rows by models that have not seen them, where validation rows are too few.

A policy that is fitted on the answers of the published model to its own training rows would trust
it far too much. Each fold of the training rows is answered by a model of the same recipe that was
trained on the other folds (cross-fitting; Chernozhukov et al., 2018).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bankintent import console
from bankintent.corpus.cross_split import draw_folds_of
from bankintent.corpus.folds import Folds
from bankintent.decision.fitting import FEWEST_ROWS
from bankintent.decision.material import LabelledRows
from bankintent.export import policy
from bankintent.training import cross_validation
from bankintent.training.epoch_choice import JudgedFold
from bankintent.training.features import KnownVectors
from bankintent.training.fit import Fitted, TrainingRun, labelled_rows

FOLDS = 5
"""Parts that the training rows are divided into."""

ROWS_AN_INTENT = 2
"""Rows that are needed for each intent, in the mean: those out of fold and those of validation."""


@dataclass(frozen=True)
class CrossFit:
    """What models of the folds say of the training rows."""

    rows: LabelledRows | None
    """Their logits, without features: each fold's model has its own. None where none were made."""
    why_none: str | None
    """Why none were made; None where they were."""


def cross_fit(run: TrainingRun, fitted: Fitted) -> CrossFit | None:
    """Answer the training rows out of fold; None where the policy needs none of that.

    Folds that an interrupted run has finished are not trained again.
    """
    settings = run.config.decision
    few = policy.why_not(len(run.rows.val))
    if settings is None or run.rows.folds is not None or few is None:
        return None
    if settings.cross_fit == "never":
        return CrossFit(None, f"{few}, and cross_fit is never")
    if run.config.distill is not None:
        # A teacher that has learned a row would tell the student about it.
        return CrossFit(None, f"{few}, and a student's teacher may know the training rows")

    folds = draw_folds_of(run.rows.train, run.data.labels.names, FOLDS, run.config.seed)
    judged = int(folds.judged.sum()) + len(run.rows.val)
    needed = max(FEWEST_ROWS, ROWS_AN_INTENT * len(run.data.labels))
    if judged < needed:
        reason = f"to cross-fit on training rows too, {needed} in all are needed, not {judged}"
        return CrossFit(None, f"{few}; {reason}")

    console.say(
        f"{few} to fit a policy: {FOLDS} further trainings, on parts of the training rows, answer"
        " the rest of them"
    )
    return CrossFit(_answer(run, fitted, folds), None)


def _answer(run: TrainingRun, fitted: Fitted, folds: Folds) -> LabelledRows:
    """The answers to the judged rows, each by a model that was trained as long as the published."""
    # Stopping early would look at the rows that are held out.
    config = run.config.model_copy(update={"early_stopping": None})
    part = replace(run, config=config, known=_known_vectors(run, fitted), published=None)
    labels = np.asarray(run.rows.train.labels, dtype=np.int64)

    # Candidates begin with the probe where training starts from one, otherwise with epoch 1.
    candidate = fitted.fit.published.epoch
    if config.head_init != "probe":
        candidate -= 1

    rows = []
    logits = []
    for judged in cross_validation.judge_folds(part, folds):
        rows.append(judged.fold.held_out)
        logits.append(_take(judged, candidate))
    return LabelledRows(np.concatenate(logits), None, labels[np.concatenate(rows)])


def _take(judged: JudgedFold, candidate: int) -> NDArray[np.float32]:
    """(held-out rows, labels) logits of one candidate."""
    logits: NDArray[np.float32] = judged.answers[candidate]
    return logits


def _known_vectors(run: TrainingRun, fitted: Fitted) -> KnownVectors | None:
    """The frozen encoder's vectors, so that no fold reads the rows anew; None without them."""
    if fitted.frozen is None:
        return None

    # In the order in which training has read them.
    texts = [*labelled_rows(run).texts]
    if run.config.pseudo_labels is not None:
        texts += run.rows.unlabelled.texts
    texts += run.rows.val.texts
    return KnownVectors(fitted.frozen.table, {text: row for row, text in enumerate(texts)})
