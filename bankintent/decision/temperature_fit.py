"""The temperature of a model, from the negative log-likelihood of validation rows."""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

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
    """(1 + inputs,) the weights of log T = weights[0] + inputs @ weights[1:]."""
    logits = rows.logits.astype(np.float64)
    own = logits[np.arange(len(rows)), rows.labels]

    def loss(weights: NDArray[np.float64]) -> float:
        logs = weights[0] + inputs @ weights[1:]
        logs = np.clip(logs, -LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)
        inverse = np.exp(-logs)
        scaled = logits * inverse[:, np.newaxis]
        highest = scaled.max(axis=1)
        log_sums = highest + np.log(np.exp(scaled - highest[:, np.newaxis]).sum(axis=1))
        likelihood = float((own * inverse - log_sums).mean())
        return PENALTY * float((weights[1:] ** 2).sum()) - likelihood

    start = np.zeros(1 + inputs.shape[1])
    # Four numbers at most: the gradient by differences costs nothing.
    return np.asarray(optimize.minimize(loss, start, method="L-BFGS-B").x)
