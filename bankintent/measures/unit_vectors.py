"""Vectors of length 1, whose products are cosines."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

SMALLEST_LENGTH = 1e-12
"""A vector of zeros has no direction; it is divided by this instead of by zero."""


def normalise(vectors: Vectors) -> Vectors:
    """(n, width) vectors of length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, SMALLEST_LENGTH)
