"""Labels for sentences that have none, from a few that do: a classifier's guess, made to agree with its neighbours'.

Label spreading over the graph of nearest neighbours (Zhou et al., 2004, "Learning with Local and Global Consistency"),
started from a linear probe of the labelled sentences where Zhou et al. start from nothing.
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
"""A neighbour counts with its cosine to this power: the nearest count most. Chosen on BANKING77's train split."""

UNHEARD = 0.043
"""Spreading ends when what a sentence would still hear from further away weighs less than this: 30 steps at 0.9."""

Vectors = NDArray[np.floating]
Ints = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class PseudoLabels:
    """An intent for every row: its own where it has one, else what it was given."""

    labels: Ints
    shares: Scores
    """Of each row's score, the part that its intent has: the lower, the less sure."""

    def write(self, path: Path, rows: SplitData, names: tuple[str, ...]) -> None:
        """A CSV file for people to read, of the rows that had no label, the least sure first: text, label, share."""
        guessed = np.flatnonzero(np.asarray(rows.labels) == UNKNOWN)
        with files.staged(path) as staging, staging.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["text", "label", "share"])
            for row in guessed[np.argsort(self.shares[guessed], kind="stable")]:
                writer.writerow(
                    [rows.texts[row], names[self.labels[row]], round(float(self.shares[row]), 3)]
                )


def guess(
    vectors: Vectors, given: Ints, intents: int, section: PseudoLabelsSection
) -> PseudoLabels:
    """An intent for each row of `vectors` (rows, hidden), of which `given` says some and has UNKNOWN for the others."""
    known = given != UNKNOWN
    weight, bias = probe.fit(vectors[known], given[known].tolist(), intents)
    start = softmax(vectors @ weight.T + bias, axis=1)
    start[known] = np.eye(intents)[given[known]]
    graph, scores = neighbour_graph(vectors, section.neighbours), start
    for _ in range(math.ceil(math.log(UNHEARD) / math.log(section.spread))):
        scores = section.spread * (graph @ scores) + (1 - section.spread) * start
    labels = np.where(known, given, scores.argmax(axis=1))
    return PseudoLabels(labels, scores.max(axis=1) / scores.sum(axis=1))


def neighbour_graph(vectors: Vectors, neighbours: int) -> csr_array:
    """(rows, rows) symmetric: each row with its nearest ones by cosine, weights divided by the roots of both degrees."""
    rows, neighbours = len(vectors), min(neighbours, len(vectors) - 1)
    unit = normalize(
        vectors
    )  # the distances of unit vectors say the same as cosines, in a tenth of the memory
    distances, nearest = (
        NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(unit).kneighbors()
    )
    cosines = (1 - distances**2 / 2).clip(min=1e-3) ** NEARNESS
    from_rows = np.repeat(np.arange(rows), neighbours)
    one_way = csr_array((cosines.ravel(), (from_rows, nearest.ravel())), shape=(rows, rows))
    both_ways = one_way.maximum(one_way.T)
    scale = diags_array(both_ways.sum(axis=1) ** -0.5)
    return csr_array(scale @ both_ways @ scale)
