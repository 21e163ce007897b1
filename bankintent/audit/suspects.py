"""Rows whose label is likely wrong, by confident learning (Northcutt, Jiang and Chuang, 2021)."""

import warnings

import numpy as np
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray

from bankintent.audit.answers import Answers, Probabilities
from bankintent.config.audit import Filter

Labels = NDArray[np.int64]
Bools = NDArray[np.bool_]

PRUNING = ("prune_by_noise_rate", "prune_by_class")
"""The two rules that `either` joins: the first finds more of the labels that went to a similar
intent, the second more of those that went anywhere."""


def find_suspects(labels: Labels, answers: Answers, rule: Filter) -> Bools:
    """(rows,) whether a row's label is suspected; rows that are not judged are not."""
    judged = answers.judged
    suspected = np.zeros(len(labels), dtype=bool)
    suspected[judged] = _suspect(labels[judged], answers.probabilities[judged], rule)
    return suspected


def _suspect(labels: Labels, probabilities: Probabilities, rule: Filter) -> Bools:
    # Only intents that occur among the rows: the library counts on examples of each.
    present, numbers = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return np.zeros(len(labels), dtype=bool)

    shares = probabilities[:, present]
    totals = shares.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, shares / np.maximum(totals, 1e-12), 1 / len(present))

    rules = PRUNING if rule == "either" else (rule,)
    found = np.zeros(len(labels), dtype=bool)
    with warnings.catch_warnings():
        # It warns of intents with few rows, which the report does in its own words.
        warnings.simplefilter("ignore")
        for one in rules:
            # One process: the work is small, and others would load everything anew.
            found |= find_label_issues(numbers, shares, filter_by=one, n_jobs=1)
    # What the models answer as it is labelled is no suspicion, whatever the rule.
    agree = present[shares.argmax(axis=1)] == labels
    return np.asarray(found & ~agree)


def margins(labels: Labels, answers: Answers) -> NDArray[np.float64]:
    """(rows,) by how much the best other intent is likelier than the given one, from -1 to 1."""
    probabilities = answers.probabilities
    rows = np.arange(len(labels))
    given = probabilities[rows, labels]

    others = probabilities.copy()
    others[rows, labels] = -1
    return np.asarray(others.max(axis=1) - given)
