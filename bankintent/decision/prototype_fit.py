"""Typical vectors of each intent, from the features of its training rows."""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from bankintent.decision.material import Vectors
from bankintent.decision.prototypes import Prototypes
from bankintent.measures.unit_vectors import normalise

MOST = 20_000
"""Most prototypes of a model: with thousands of intents each gets fewer."""

ITERATIONS = 20
"""Of k-means; its centres move little after that."""


def fit_prototypes(train: Vectors, num_labels: int, each: int) -> Prototypes | None:
    """At most `each` centroids of the normalised features of every intent, by k-means.

    None where an intent has no training row.
    """
    each = max(1, min(each, MOST // num_labels))
    features = normalise(train.features)

    centroids = []
    labels = []
    for label in range(num_labels):
        own = features[train.labels == label]
        if len(own) == 0:
            return None
        found = _centroids(own, each)
        centroids.append(found)
        labels.append(np.full(len(found), label, dtype=np.int64))
    return Prototypes(normalise(np.concatenate(centroids)), np.concatenate(labels))


def _centroids(features: np.ndarray, count: int) -> np.ndarray:
    """(at most count, width) centres of the (rows, width) features."""
    if len(features) <= count:
        return features
    means = KMeans(count, n_init=1, max_iter=ITERATIONS, random_state=0)
    with warnings.catch_warnings():
        # Rows that stand twice leave fewer different ones than centres.
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(features)
    return np.asarray(means.cluster_centers_, dtype=np.float32)
