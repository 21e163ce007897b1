"""A new head on the features of a model, for some of its intents."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from bankintent.decision.material import Vectors

MOST_ROWS = 4000
"""Training rows of a head: more would cost time and change little."""

ITERATIONS = 60
"""Of the solver: scores are compared by it, and none is published."""


def refit_logits(train: Vectors, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(texts, labels) logits of (texts, width) features by a logistic regression on `train`.

    Its labels are 0, 1, 2 and so on.
    """
    rows = np.arange(len(train.labels))
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).permutation(rows)[:MOST_ROWS]
        # Every intent stays, and so do the numbers of the labels.
        firsts = np.unique(train.labels, return_index=True)[1]
        rows = np.unique(np.concatenate([rows, firsts]))

    centre = train.features.mean(axis=0)
    scale = max(float((train.features - centre).std()), 1e-6)
    head = LogisticRegression(max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        head.fit((train.features[rows] - centre) / scale, train.labels[rows])

    logits = head.decision_function((features - centre) / scale)
    if logits.ndim == 1:
        # Of two intents scikit-learn gives one column.
        logits = np.stack([-logits, logits], axis=1) / 2
    return np.asarray(logits, dtype=np.float32)
