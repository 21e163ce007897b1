"""Answers out of fold from a frozen encoder's vectors: a regression and a vote of the nearest.

The mean of the two is right more often than either, also where some labels are wrong, and it finds
more of the wrong ones: `benchmarks/label_audit.py --choose` compares them.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bankintent.audit.rows import AuditRows
from bankintent.config import AuditConfig
from bankintent.corpus.folds import Folds
from bankintent.progress import waiting
from bankintent.training import backbones, features
from bankintent.training.forward_check import require_answers
from bankintent.training.hardware import one_thread

STRENGTH = 0.01
"""Inverse regularisation of the regression on standardised vectors: stronger than for a classifier
that is used, so that single wrong labels have little weight."""

SMALLEST_SCALE = 0.02
"""Inputs that vary less than this are not scaled up to one."""

VOTERS = 15
"""Nearest sentences that vote on a row's intent."""

WARMTH = 0.05
"""A neighbour's weight is exp((cosine - 1) / WARMTH)."""

NO_VOTE = 1e-4
"""Weight of an intent that no neighbour has, so that no probability is zero."""

ROWS_AT_ONCE = 1024
"""Rows whose cosines with all others are in memory at a time."""

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def read_vectors(rows: AuditRows, settings: AuditConfig) -> Vectors:
    """(rows, hidden) float32 of the frozen encoder, from the cache where they are there."""
    texts = list(dict.fromkeys(rows.rows.texts))
    with waiting(f"Reading {len(texts):,} sentences once with the frozen encoder"):
        backbone = backbones.load_backbone(
            settings.model_name,
            rows.data.labels,
            settings.max_length,
            settings.revision,
            settings.pooling,
            settings.prefix,
        )
        require_answers(backbone, settings.max_length)
        vectors = features.frozen(
            backbone, rows.data.labels, texts, settings.batch_size, settings.cache_dir
        )

    row_of_text = {text: row for row, text in enumerate(texts)}
    return np.asarray(vectors.table[[row_of_text[text] for text in rows.rows.texts]].numpy())


def answer(vectors: Vectors, labels: Labels, num_labels: int, folds: Folds) -> Probabilities:
    """(rows, labels) probabilities of the rows that a fold holds out, zeros for the others."""
    probabilities = np.zeros((len(labels), num_labels))
    directions = unit_length(vectors)

    with one_thread():
        for fold in folds:
            learned = labels[fold.train]
            regression = _regress(vectors[fold.train], learned, vectors[fold.held_out], num_labels)
            vote = _vote(directions[fold.train], learned, directions[fold.held_out], num_labels)
            probabilities[fold.held_out] = (regression + vote) / 2
    return probabilities


def unit_length(vectors: Vectors) -> Vectors:
    """The vectors divided by their lengths; one of nothing stays what it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def _regress(x: Vectors, y: Labels, held_out: Vectors, num_labels: int) -> Probabilities:
    """(held-out rows, labels) by multinomial logistic regression."""
    middle = x.mean(axis=0)
    scale = np.maximum(x.std(axis=0), SMALLEST_SCALE)
    probabilities = np.zeros((len(held_out), num_labels))

    known = np.unique(y)
    if len(known) == 1:
        probabilities[:, known] = 1
        return probabilities

    model = LogisticRegression(C=STRENGTH, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        # With few sentences of many intents scikit-learn asks whether the labels are numbers; and
        # a fit that stops a little early is as good here.
        warnings.simplefilter("ignore")
        model.fit((x - middle) / scale, y)
    probabilities[:, model.classes_] = model.predict_proba((held_out - middle) / scale)
    return probabilities


def _vote(x: Vectors, y: Labels, held_out: Vectors, num_labels: int) -> Probabilities:
    """(held-out rows, labels) by the intents of the nearest rows of `x`, all of length 1."""
    votes = np.full((len(held_out), num_labels), NO_VOTE)
    voters = min(VOTERS, len(x))
    for start in range(0, len(held_out), ROWS_AT_ONCE):
        block = held_out[start : start + ROWS_AT_ONCE]
        nearest, cosines = nearest_rows(block, x, voters)
        weights = np.exp((cosines - 1) / WARMTH)

        numbers = np.arange(start, start + len(block))[:, None]
        np.add.at(votes, (numbers, y[nearest]), weights)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def nearest_rows(
    block: Vectors, others: Vectors, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rows of the block, count) indices of the nearest of the others, nearest first, and cosines.

    All are of length 1.
    """
    cosines = block @ others.T
    found = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(cosines, found, axis=1)

    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(values, order, axis=1)
