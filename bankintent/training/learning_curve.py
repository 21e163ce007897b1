"""How accuracy grows with the number of sentences, by a linear probe of the frozen encoder.

It is measured out of fold, with a part of each fold's training rows.
"""

import numpy as np
from numpy.typing import NDArray

from bankintent.corpus.folds import Folds
from bankintent.measures.learning import CurvePoint
from bankintent.training.methods.probe import fit_probe

SHARES = (0.25, 0.5, 1.0)
"""Parts of the training rows that are learned from; each is half of the next."""

SEED = 0
"""Of the draw of the parts."""

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]


def measure(vectors: Vectors, labels: Labels, folds: Folds) -> list[CurvePoint]:
    """The accuracy out of fold with each of SHARES; only the first repeat is looked at.

    `vectors` is (rows, hidden), `labels` (rows,).
    """
    first_repeat = [fold for fold in folds if fold.repeat == 0]
    inputs = vectors.astype(np.float64)
    num_labels = int(labels.max()) + 1

    points = []
    for share in SHARES:
        right = 0
        judged = 0
        sizes = []
        for fold in first_repeat:
            rows = _take_share(fold.train, labels, share)
            weight, bias = fit_probe(inputs[rows], labels[rows].tolist(), num_labels)

            scores = inputs[fold.held_out] @ weight.T + bias
            is_right = scores.argmax(axis=1) == labels[fold.held_out]
            right += int(is_right.sum())
            judged += len(fold.held_out)
            sizes.append(len(rows))
        points.append(CurvePoint(round(float(np.mean(sizes))), right / judged))
    return points


def _take_share(rows: NDArray[np.int64], labels: Labels, share: float) -> NDArray[np.int64]:
    """A share of the rows of each intent, at least one; smaller shares are parts of larger ones."""
    rng = np.random.default_rng(SEED)
    taken = []
    for label in np.unique(labels[rows]):
        # A whole permutation, also for a small share: that nests the shares.
        of_label = rng.permutation(rows[labels[rows] == label])
        count = max(1, round(share * len(of_label)))
        taken.append(of_label[:count])
    return np.sort(np.concatenate(taken))
