"""Which epoch cross-validation chooses, and the answers out of fold that follow from the choice.

The epoch that a fold is judged by is chosen on the other folds of its repeat, so that no row takes
part in the choice of the epoch that answers it; the epoch of the published model is chosen on all
rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bankintent.config import TrainConfig
from bankintent.corpus.folds import Fold, Folds
from bankintent.measures import metrics
from bankintent.measures.shares import in_percent
from bankintent.training.selection import Published

Answers = NDArray[np.float32]
"""(candidates, held-out rows, labels) logits of a fold; a candidate is an epoch, or the probe."""

Labels = NDArray[np.int64]
"""(rows,) the label id of every row of train."""


@dataclass(frozen=True)
class JudgedFold:
    """A finished fold."""

    fold: Fold
    answers: Answers
    earlier_seconds: float = 0.0
    """What it took, where an earlier process of the run has trained it."""


def choose(judged: list[JudgedFold], labels: Labels, keep: str) -> int:
    """The candidate with the best macro-F1 over these folds, of equals the first.

    With keep: last it is the last one.
    """
    if keep == "last":
        return len(judged[0].answers) - 1
    return int(np.argmax(_scores(judged, labels)))


def out_of_fold(
    judged: list[JudgedFold], folds: Folds, labels: Labels, keep: str
) -> NDArray[np.float32]:
    """(repeats, judged rows, labels) logits: the answer to each row by a model without it."""
    rows = np.flatnonzero(folds.judged)
    place_of_row = np.full(len(labels), -1)
    place_of_row[rows] = np.arange(len(rows))
    num_labels = judged[0].answers.shape[2]

    logits = np.empty((folds.repeats, len(rows), num_labels), dtype=np.float32)
    for part in judged:
        chosen = choose(_siblings(part, judged), labels, keep)
        logits[part.fold.repeat, place_of_row[part.fold.held_out]] = part.answers[chosen]
    return logits


def _siblings(part: JudgedFold, judged: list[JudgedFold]) -> list[JudgedFold]:
    """The other folds of its repeat."""
    siblings = []
    for other in judged:
        is_of_repeat = other.fold.repeat == part.fold.repeat
        if is_of_repeat and other.fold.number != part.fold.number:
            siblings.append(other)
    return siblings


def _scores(judged: list[JudgedFold], labels: Labels) -> list[float]:
    """Macro-F1 of each candidate over the rows that the folds hold out."""
    true = np.concatenate([labels[part.fold.held_out] for part in judged])
    candidates = len(judged[0].answers)

    scores = []
    for candidate in range(candidates):
        answers = np.concatenate([part.answers[candidate] for part in judged])
        # Pooled, because a fold alone may hold a row or two of an intent.
        figures = metrics.summary(answers, true)
        scores.append(figures["macro_f1"])
    return scores


def describe(
    judged: list[JudgedFold], labels: Labels, honest_macro_f1: float, config: TrainConfig
) -> Published:
    """The epoch of the published model; `honest_macro_f1` is that of the answers out of fold."""
    chosen = choose(judged, labels, config.keep)
    scores = _scores(judged, labels)

    # Candidates begin with the probe where training starts from one, otherwise with epoch 1.
    starts_probed = config.head_init == "probe"
    epoch = chosen
    probe_score = None
    if starts_probed:
        probe_score = scores[0]
    else:
        epoch += 1

    which = f"epoch {epoch} of {config.epochs}, the best of cross-validation"
    if config.keep == "last":
        which = f"epoch {epoch} of {config.epochs}, the last, as keep: last asks"
    elif epoch == 0:
        which = f"the probe before training, which no epoch beat ({config.epochs} trained)"

    return Published(
        epoch=epoch,
        of=config.epochs,
        rule=config.keep,
        val_macro_f1=honest_macro_f1,
        probe_val_macro_f1=probe_score,
        last_val_macro_f1=scores[-1],
        which=which,
        figures=f"macro-F1 {in_percent(honest_macro_f1)} out of fold",
    )
