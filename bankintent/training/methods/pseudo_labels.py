"""Labels for sentences that have none, from a few sentences that do.

Label spreading over the graph of nearest neighbours (Zhou et al., 2004, "Learning with Local and
Global Consistency"): a classifier's guess is made to agree with the guesses for the neighbours. It
starts from a linear probe of the labelled sentences where Zhou et al. start from nothing.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from bankintent import files
from bankintent.config import PseudoLabelsSection
from bankintent.corpus.dataset import UNKNOWN, SplitData
from bankintent.training.methods import probe

NEARNESS = 8
"""A neighbour counts with its cosine to this power: the nearest count most. Chosen on BANKING77's
train split."""

REMAINDER = 0.043
"""Spreading ends when everything that a sentence would still receive from further away weighs less
than this: 30 steps at 0.9."""

SMALLEST_COSINE = 1e-3
"""Cosines are not taken below this, so that every row keeps an edge and a degree above zero."""

COLUMNS = ("text", "label", "share")
"""Columns of the table of guessed labels."""

Vectors = NDArray[np.floating]
Ints = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class PseudoLabels:
    """A label id for every row: its own where it has one, otherwise the guessed one."""

    labels: Ints
    """(rows,) label ids."""
    shares: Scores
    """(rows,) the part of a row's score that its label has: the lower, the less sure."""

    def write(self, path: Path, rows: SplitData, names: tuple[str, ...]) -> None:
        """Write a CSV file with COLUMNS, for people to read.

        It holds the rows of `rows` without a label, the least sure first.
        """
        guessed = np.flatnonzero(np.asarray(rows.labels) == UNKNOWN)
        order = np.argsort(self.shares[guessed], kind="stable")
        least_sure_first = guessed[order]

        with files.staged(path) as staging, staging.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in least_sure_first:
                text = rows.texts[row]
                name = names[self.labels[row]]
                share = float(self.shares[row])
                writer.writerow([text, name, round(share, 3)])


def guess(
    vectors: Vectors, label_ids: Ints, num_labels: int, section: PseudoLabelsSection
) -> PseudoLabels:
    """A label for each row of `vectors`, (rows, hidden).

    `label_ids` (rows,) holds UNKNOWN where a row has no label; the others keep theirs.
    """
    labelled = label_ids != UNKNOWN
    own_labels = label_ids[labelled]
    weight, bias = probe.fit_probe(vectors[labelled], own_labels.tolist(), num_labels)
    start = softmax(vectors @ weight.T + bias, axis=1)
    start[labelled] = np.eye(num_labels)[own_labels]

    graph = neighbour_graph(vectors, section.neighbours)
    scores = start
    for _ in range(_spreading_steps(section.spread)):
        from_neighbours = graph @ scores
        scores = section.spread * from_neighbours + (1 - section.spread) * start

    # A labelled row that many others outvote would lose its label here.
    labels = np.where(labelled, label_ids, scores.argmax(axis=1))
    shares = scores.max(axis=1) / scores.sum(axis=1)
    return PseudoLabels(labels, shares)


def _spreading_steps(spread: float) -> int:
    """Steps after which what is still to come, `spread` to their power, is below REMAINDER."""
    return math.ceil(math.log(REMAINDER) / math.log(spread))


def neighbour_graph(vectors: Vectors, neighbours: int) -> csr_array:
    """A (rows, rows) symmetric graph that joins each row with its nearest ones by cosine.

    Weights are divided by the roots of both degrees (Zhou et al., 2004).
    """
    rows = len(vectors)
    neighbours = min(neighbours, rows - 1)
    # Euclidean distances of unit vectors order as cosines do, and take a tenth of the memory.
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute")
    distances, nearest = search.fit(normalize(vectors)).kneighbors()
    cosines = 1 - distances**2 / 2
    weights = cosines.clip(min=SMALLEST_COSINE) ** NEARNESS

    from_rows = np.repeat(np.arange(rows), neighbours)
    to_rows = nearest.ravel()
    one_way = csr_array((weights.ravel(), (from_rows, to_rows)), shape=(rows, rows))

    # To be near is not mutual: an edge is there where either row is among the other's nearest.
    both_ways = one_way.maximum(one_way.T)
    degrees = both_ways.sum(axis=1)
    scale = diags_array(degrees**-0.5)
    return csr_array(scale @ both_ways @ scale)
