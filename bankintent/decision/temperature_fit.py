"""The temperature of a model, from the negative log-likelihood of validation rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from bankintent.decision.deciding import LARGEST_LOG_TEMPERATURE, temperatures_of
from bankintent.decision.material import LabelledRows
from bankintent.decision.policy import Temperature
from bankintent.decision.prototypes import Nearness
from bankintent.measures.metrics import softmax

FOLDS = 5
"""Parts of the validation rows whose scores are taken in turn."""

PENALTY = 1e-3
"""Of the squared weights of standardised similarities, so that few rows do not set them."""


def fit_temperature(rows: LabelledRows, near: Nearness | None) -> Temperature:
    """The temperature with the least negative log-likelihood (Guo et al., 2017).

    With the nearness of each row it may depend on where a text lies (Balanya et al., 2022).
    """
    if near is None:
        weights = _minimise(rows, np.empty((len(rows), 0)))
        return Temperature(bias=float(weights[0]))

    similarities = np.stack([near.own, near.other], axis=1).astype(np.float64)
    centre = similarities.mean(axis=0)
    # A model of one intent, or of few rows, may have similarities that do not differ.
    spread = np.maximum(similarities.std(axis=0), 1e-6)

    weights = _minimise(rows, (similarities - centre) / spread)
    slopes = weights[1:] / spread
    bias = weights[0] - (slopes * centre).sum()
    return Temperature(bias=float(bias), own=float(slopes[0]), other=float(slopes[1]))


def held_out_scores(rows: LabelledRows, near: Nearness | None) -> NDArray[np.float64]:
    """(rows,) the score of each row by a temperature that was fitted without it.

    Scores of the very rows that a temperature was fitted on look better than those of new rows,
    and a threshold found on them would promise too much.
    """
    fold_of_row = np.random.default_rng(0).permutation(len(rows)) % FOLDS
    scores = np.empty(len(rows))
    for fold in range(FOLDS):
        held_out = fold_of_row == fold
        fitted = fit_temperature(rows.take(~held_out), _take(near, ~held_out))
        own = _take(near, held_out)
        temperatures = temperatures_of(fitted, own, int(held_out.sum()))
        scaled = rows.logits[held_out] / temperatures[:, np.newaxis]
        scores[held_out] = softmax(scaled).max(axis=1)
    return scores


def _take(near: Nearness | None, chosen: NDArray[np.bool_]) -> Nearness | None:
    if near is None:
        return None
    return Nearness(near.own[chosen], near.other[chosen])


def _minimise(rows: LabelledRows, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(1 + inputs,) the weights of log T = weights[0] + inputs @ weights[1:].

    The likelihood is that of smoothed targets (Platt, 1999; Lin et al., 2007): of k right and m
    wrong answers, a right one counts as wrong with 1 / (k + 2), a wrong one as right with
    1 / (m + 2). Without this, rows with no mistake would be fitted best by scores of 1.
    """
    start = np.zeros(1 + inputs.shape[1])
    if rows.logits.shape[1] == 1:
        # A single intent has the score 1 at every temperature.
        return start

    evidence = _Evidence.of(rows)

    def loss(weights: NDArray[np.float64]) -> float:
        logs = weights[0] + inputs @ weights[1:]
        logs = np.clip(logs, -LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)
        likelihood = evidence.mean_log_likelihood(np.exp(-logs))
        return PENALTY * float((weights[1:] ** 2).sum()) - likelihood

    # Four numbers at most: the gradient by differences costs nothing.
    return np.asarray(optimize.minimize(loss, start, method="L-BFGS-B").x)


@dataclass(frozen=True)
class _Evidence:
    """What the likelihood of some temperatures is computed from."""

    best: NDArray[np.float64]
    """(rows,) logit of the answer."""
    others: NDArray[np.float64]
    """(rows, labels - 1) logits of the other intents."""
    own: NDArray[np.float64]
    """(rows,) logit of the intent that is right."""
    right: NDArray[np.bool_]
    """(rows,) whether the answer is that intent."""

    @classmethod
    def of(cls, rows: LabelledRows) -> "_Evidence":
        logits = rows.logits.astype(np.float64)
        every = np.arange(len(rows))
        is_other = np.ones(logits.shape, dtype=np.bool_)
        is_other[every, rows.answers] = False
        others = logits[is_other].reshape(len(rows), -1)
        own = logits[every, rows.labels]
        return cls(logits[every, rows.answers], others, own, rows.right)

    def mean_log_likelihood(self, inverse: NDArray[np.float64]) -> float:
        """The mean over the rows, with (rows,) inverse temperatures."""
        best = self.best * inverse
        of_others = special.logsumexp(self.others * inverse[:, np.newaxis], axis=1)
        of_all = np.logaddexp(best, of_others)

        # Which other intent would be right where a right answer counts as wrong is left open.
        wrong = np.where(self.right, of_others, self.own * inverse)
        right_share = self._right_shares()
        expected = right_share * best + (1 - right_share) * wrong
        return float((expected - of_all).mean())

    def _right_shares(self) -> NDArray[np.float64]:
        """(rows,) as how much of a right answer each row counts."""
        hits = int(self.right.sum())
        misses = len(self.right) - hits
        return np.where(self.right, (hits + 1) / (hits + 2), 1 / (misses + 2))
