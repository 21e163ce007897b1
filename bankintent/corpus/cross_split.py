"""The draw of the folds of a cross-validation.

Folds have the same shares of each intent, and rows that are nearly the same stand in one fold.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Example, normalised_texts
from bankintent.corpus.dataset import SplitData
from bankintent.corpus.folds import ALWAYS_TRAINED, Assignment, Folds
from bankintent.corpus.near import families
from bankintent.corpus.splits import group_by_intent

JUDGED_ROWS = 3
"""Rows that an intent needs to be judged: with one held out, two are left to learn from."""


def draw_folds(examples: list[Example], config: DataConfig) -> Folds:
    """Draw `config.repeats` divisions of the rows into `config.folds` folds.

    They are fewer folds where every intent has fewer rows.
    Intents with fewer than JUDGED_ROWS rows are always trained on; so are those all of whose rows
    are nearly the same, because a fold would hold out the whole intent.
    """
    intent_of_row = _number_intents(examples)
    family_of_row = _find_families(examples)

    is_judged = np.ones(len(examples), dtype=bool)
    for indices in group_by_intent(examples).values():
        different = {family_of_row[index] for index in indices}
        if len(indices) < JUDGED_ROWS or len(different) == 1:
            is_judged[indices] = False

    assignment = np.full((config.repeats, len(examples)), ALWAYS_TRAINED, dtype=np.int64)
    rows = np.flatnonzero(is_judged)
    if not len(rows):
        return Folds(assignment)

    intents = intent_of_row[rows]
    # No intent can stand in more folds than it has rows.
    count = min(config.folds, int(np.bincount(intents).max()))
    for repeat in range(config.repeats):
        assignment[repeat, rows] = _draw_once(
            intents, family_of_row[rows], count, config.seed + repeat
        )

    _keep_some_of_each(assignment, intent_of_row)
    return Folds(assignment)


def draw_folds_of(rows: SplitData, names: Sequence[str], folds: int, seed: int) -> Folds:
    """Draw one division of rows whose label ids are places in `names`; as `draw_folds`."""
    examples = []
    for row_id, text, label in zip(rows.ids, rows.texts, rows.labels, strict=True):
        examples.append(Example(row_id, text, names[label]))
    return draw_folds(examples, DataConfig(dataset_name="rows", folds=folds, seed=seed))


def _number_intents(examples: list[Example]) -> NDArray[np.int64]:
    names = [example.label_text for example in examples]
    # The inverse of the sorted names is each row's place among them.
    _, numbers = np.unique(names, return_inverse=True)
    return np.asarray(numbers, dtype=np.int64)


def _find_families(examples: list[Example]) -> NDArray[np.int64]:
    """(rows,) the number of the family of nearly the same texts that each row belongs to."""
    texts = normalised_texts(examples)
    # Sorted, so that a family's number does not follow from the order of the source.
    different = sorted(set(texts))
    family_of_text = dict(zip(different, families(different), strict=True))

    numbers = [family_of_text[text] for text in texts]
    return np.asarray(numbers, dtype=np.int64)


def _draw_once(
    intents: NDArray[np.int64], families_of_rows: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """(rows,) the fold of each row."""
    # Late, because scikit-learn is slow to import.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold_of_row = np.empty(len(intents), dtype=np.int64)
    with warnings.catch_warnings():
        # It warns where an intent has fewer rows than there are folds, which is fine here.
        warnings.simplefilter("ignore", UserWarning)
        parts = splitter.split(np.zeros(len(intents)), intents, families_of_rows)
        for number, (_, held_out) in enumerate(parts):
            fold_of_row[held_out] = number
    return fold_of_row


def _keep_some_of_each(assignment: Assignment, intent_of_row: NDArray[np.int64]) -> None:
    """Always train on the intents that a fold holds out as a whole, in all repeats alike."""
    for intent in np.unique(intent_of_row):
        rows = np.flatnonzero(intent_of_row == intent)
        folds_of_intent = assignment[:, rows]
        # In one fold stand all of its rows: that fold's model would not know the intent.
        if np.any(folds_of_intent.min(axis=1) == folds_of_intent.max(axis=1)):
            assignment[:, rows] = ALWAYS_TRAINED
