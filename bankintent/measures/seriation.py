"""An order of the intents in which those that are confused with each other stand together."""

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from bankintent.measures.arrays import Ints

MOST_OPTIMAL = 600
"""Intents up to which the leaves are ordered optimally; the time grows with the cube."""


def order_by_confusion(counts: Ints) -> list[int]:
    """Indices of a (labels, labels) confusion matrix, confused ones beside each other.

    The leaves of an average-linkage tree, in the order with the least distance between neighbours
    (Bar-Joseph et al., 2001). Intents that are confused with no other come last, in id order.
    """
    mutual = counts + counts.T
    np.fill_diagonal(mutual, 0)
    confused = np.flatnonzero(mutual.any(axis=1))
    apart = np.flatnonzero(~mutual.any(axis=1))

    # No confusion has the distance 1, and the more there are, the nearer two intents are.
    distances = 1 / (1 + mutual[np.ix_(confused, confused)])
    np.fill_diagonal(distances, 0)
    leaves = _order_leaves(squareform(distances, checks=False), len(confused))
    return [*confused[leaves].tolist(), *apart.tolist()]


def _order_leaves(distances: np.ndarray, num_leaves: int) -> Ints:
    """The order of the leaves; `distances` is the condensed matrix, one value for each pair."""
    # A tree needs two leaves. Where one intent is confused, so is another.
    if num_leaves == 0:
        return np.arange(0)

    tree = linkage(distances, method="average")
    if num_leaves <= MOST_OPTIMAL:
        tree = optimal_leaf_ordering(tree, distances)
    return np.asarray(leaves_list(tree))
