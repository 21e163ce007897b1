"""A few typical vectors of each intent, and how near a text lies to them.

Cosine similarities to the nearest vectors of each intent say two things that logits do not: whether
a text lies near any sentence of training at all (Sun et al., 2022), and whether it lies between
intents. A few centroids for each intent are nearly as good as all sentences, and take no time.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bankintent.measures.unit_vectors import Vectors, normalise


@dataclass(frozen=True)
class Prototypes:
    """Typical vectors of every intent, sorted by intent."""

    vectors: Vectors
    """(prototypes, width), each of length 1."""
    labels: NDArray[np.int64]
    """(prototypes,) the intent of each, ascending; every intent has at least one."""

    def similarities(self, features: Vectors) -> Vectors:
        """(texts, labels): the cosine of each text to the nearest prototype of each intent.

        `features` are (texts, width).
        """
        cosines = normalise(features) @ self.vectors.T
        return np.maximum.reduceat(cosines, self._starts, axis=1)

    @cached_property
    def _starts(self) -> NDArray[np.intp]:
        """(labels,) the place of the first prototype of each intent."""
        return np.flatnonzero(np.diff(self.labels, prepend=-1))


@dataclass(frozen=True)
class Nearness:
    """How near each text lies to the intents, as cosines, (texts,) each."""

    own: NDArray[np.float32]
    """To the intent that the model answers."""
    other: NDArray[np.float32]
    """To the nearest of the other intents."""

    @property
    def nearest(self) -> NDArray[np.float32]:
        """To the nearest of all."""
        return np.maximum(self.own, self.other)


def nearness(similarities: Vectors, answers: NDArray[np.intp]) -> Nearness:
    """From (texts, labels) similarities and the (texts,) intents that the model answers."""
    rows = np.arange(len(answers))
    others = similarities.copy()
    others[rows, answers] = -1.0  # the least that a cosine can be
    return Nearness(own=similarities[rows, answers], other=others.max(axis=1))
