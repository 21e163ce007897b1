"""Means and covariances of the intents, from the features of training rows."""

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from bankintent.decision.gaussian import Gaussians
from bankintent.decision.material import Vectors
from bankintent.measures.unit_vectors import normalise


def fit_gaussians(train: Vectors, num_labels: int, *, normalised: bool) -> Gaussians:
    """The Gaussians of the training rows; every intent has at least one of them.

    Covariances are shrunk (Ledoit and Wolf, 2004): there may be fewer rows than columns.
    """
    rows = normalise(train.features) if normalised else train.features
    mean = rows.mean(axis=0)
    centred = (rows - mean).astype(np.float64)

    means = np.stack([centred[train.labels == label].mean(axis=0) for label in range(num_labels)])
    whitening = _whitening(centred - means[train.labels])
    return Gaussians(
        mean=mean.astype(np.float32),
        whitening=whitening.astype(np.float32),
        centres=(means @ whitening).astype(np.float32),
        background=_whitening(centred).astype(np.float32),
        normalised=normalised,
    )


def _whitening(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """(width, width) W with W W' the inverse of the covariance of (rows, width) deviations."""
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    smallest = max(float(values.max()) * 1e-6, 1e-12)
    scaled: NDArray[np.float64] = vectors / np.sqrt(np.maximum(values, smallest))
    return scaled
