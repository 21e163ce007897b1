"""Distances to intents that are taken as Gaussians with one covariance (Lee et al., 2018)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bankintent.measures.unit_vectors import normalise

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Gaussians:
    """The intents as Gaussians of the features, and all of them as one.

    A whitening matrix W turns Mahalanobis distances into plain ones: W W' is the inverse of the
    covariance.
    """

    mean: Matrix
    """(width,) of all training rows."""
    whitening: Matrix
    """(width, width) of the covariance within the intents."""
    centres: Matrix
    """(labels, width) the whitened means of the intents."""
    background: Matrix
    """(width, width) of the covariance of all rows."""
    normalised: bool
    """Whether features are brought to length 1 first, which frozen encoders need (Mueller and
    Hein, 2025)."""

    def distances(self, features: Matrix) -> Matrix:
        """(texts, labels) squared Mahalanobis distances of (texts, width) features."""
        white = self._centred(features) @ self.whitening
        squares = (white**2).sum(axis=1, keepdims=True) + self._centre_squares
        distances: Matrix = squares - 2 * white @ self.centres.T
        return distances

    def background_distances(self, features: Matrix) -> Matrix:
        """(texts,) squared distances to all rows as one Gaussian (Ren et al., 2021)."""
        white = self._centred(features) @ self.background
        distances: Matrix = (white**2).sum(axis=1)
        return distances

    @cached_property
    def _centre_squares(self) -> Matrix:
        """(labels,) the squared lengths of the centres."""
        squares: Matrix = (self.centres**2).sum(axis=1)
        return squares

    def _centred(self, features: Matrix) -> Matrix:
        rows = normalise(features) if self.normalised else features
        return rows - self.mean
