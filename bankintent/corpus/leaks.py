"""Rows of one split that stand, nearly word for word, in another, and the policy for them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from bankintent.corpus.cleaning import Example, normalised_texts
from bankintent.corpus.splits import Corpus, Splits, only_new, pool, require_usable
from bankintent.errors import DataError

NEAR = 0.95
"""Cosine of TF-IDF weighted character 3- to 5-grams from which two texts are nearly the same."""

KEEP_ORDER = ("test", "val", "train")
"""The first of two splits that share a text keeps it: evaluation data is never changed."""

BLOCK = 1000
"""Rows that are compared at a time: the product of two large splits does not fit into memory."""


class Leak(NamedTuple):
    """Two rows with nearly the same text."""

    kept: str
    """Id of the row in the split that keeps the text."""
    other: str
    """Id of the row in the other split."""
    similarity: float
    """1.0 where the texts are the same after normalisation, otherwise from NEAR to 0.999."""


@dataclass(frozen=True)
class SplitLeaks:
    """The leaks between two splits, at most one for each row of the other split."""

    kept: str
    """Name of the split that keeps its rows."""
    other: str
    rows: list[Leak]


@dataclass(frozen=True)
class _Grams:
    """A split's rows, their normalised texts and their weighted n-grams, aligned."""

    rows: list[Example]
    texts: list[str]
    matrix: Any
    """(rows, n-grams), sparse, each row of length 1."""


def resolve(corpus: Corpus, policy: str) -> tuple[Corpus, list[SplitLeaks]]:
    """Find the leaks between the splits and apply the policy `leakage` to them.

    Sentences without labels can be spared: whatever the policy, those go that are known, or that
    val or test nearly hold. Raises DataError where the policy is `fail` and there are leaks, or
    where a split has no rows left.
    """
    leaks = find_leaks(corpus.splits)

    splits = apply_policy(corpus.splits, leaks, policy)
    require_usable(splits)

    unlabelled = corpus.unlabelled
    if unlabelled is not None:
        known = [*splits.values(), *corpus.out_of_scope.values()]
        new_rows = only_new(known, unlabelled)
        unlabelled = unlike_evaluation(new_rows, splits)
    return replace(corpus, splits=splits, unlabelled=unlabelled), leaks


def find_leaks(splits: Splits) -> list[SplitLeaks]:
    """The rows of one split that are nearly in another, for each pair of splits with rows."""
    grams = _vectorise(splits)
    names = [name for name in KEEP_ORDER if name in grams]

    leaks = []
    for kept, other in combinations(names, 2):
        rows = list(_compare(grams[kept], grams[other]))
        leaks.append(SplitLeaks(kept, other, rows))
    return leaks


def _vectorise(splits: Splits) -> dict[str, _Grams]:
    """The n-grams of every split that has rows, weighted over all of them."""
    # Imported here because it takes seconds, and a fault of the source should show before that.
    from sklearn.feature_extraction.text import TfidfVectorizer

    # One vocabulary and one set of weights, so that the vectors of two splits can be compared.
    # 32-bit weights need half the memory, and two decimals of the cosine are enough.
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), dtype=np.float32)
    all_texts = normalised_texts(pool(splits))
    # A text of signs alone is empty after normalisation.
    vectorizer.fit([text or " " for text in all_texts])

    grams = {}
    for name, rows in splits.items():
        if rows:
            texts = normalised_texts(rows)
            grams[name] = _Grams(rows, texts, vectorizer.transform(texts))
    return grams


def _compare(kept: _Grams, other: _Grams) -> Iterator[Leak]:
    """For each row of `other` that leaks, the row of `kept` that it is most like."""
    # Equal texts are found by comparing them: n-grams do not tell the order of the words.
    first_ids: dict[str, str] = {}
    for row, text in zip(kept.rows, kept.texts, strict=True):
        first_ids.setdefault(text, row.id)

    for start in range(0, len(other.rows), BLOCK):
        block = slice(start, start + BLOCK)
        # Compressed by row, because rows are taken out one by one.
        similarities = (other.matrix[block] @ kept.matrix.T).tocsr()

        pairs = zip(other.rows[block], other.texts[block], strict=True)
        for offset, (row, text) in enumerate(pairs):
            if text in first_ids:
                kept_id = first_ids[text]
                yield Leak(kept_id, row.id, 1.0)
                continue

            index, similarity = _most_similar(similarities.getrow(offset))
            if similarity >= NEAR:
                # 1.0 means the same text, so rounding must not reach it.
                rounded = min(round(similarity, 3), 0.999)
                yield Leak(kept.rows[index].id, row.id, rounded)


def _most_similar(row: Any) -> tuple[int, float]:
    """Column and value of the largest entry of a sparse row; (-1, 0) where it has none."""
    if not row.nnz:
        return -1, 0.0
    best = int(row.data.argmax())
    return int(row.indices[best]), float(row.data[best])


def apply_policy(splits: Splits, leaks: list[SplitLeaks], policy: str) -> Splits:
    """`report` changes nothing, `drop` removes the leaking rows, `fail` raises DataError."""
    leaking = _leaking_ids(leaks)
    if policy == "fail" and leaking:
        raise DataError(
            f"{len(leaking)} rows stand in two splits ({_name_first(leaks)})",
            "Correct them, or set leakage: drop or report",
        )
    if policy != "drop":
        return splits

    # KEEP_ORDER makes the leaking row that of train or, against test, that of val.
    remaining = {}
    for name, rows in splits.items():
        remaining[name] = [row for row in rows if row.id not in leaking]
    return remaining


def _leaking_ids(leaks: list[SplitLeaks]) -> set[str]:
    """Ids of the rows in the split that does not keep them."""
    ids = set()
    for pair in leaks:
        for leak in pair.rows:
            ids.add(leak.other)
    return ids


def _name_first(leaks: list[SplitLeaks]) -> str:
    """The first two leaks of each pair of splits."""
    names = []
    for pair in leaks:
        for leak in pair.rows[:2]:
            names.append(f"{leak.kept} and {leak.other}")
    return "; ".join(names)


def unlike_evaluation(rows: list[Example], splits: Splits) -> list[Example]:
    """The rows that val and test do not hold, not even nearly."""
    # Both as one split: to which of the two a row is near makes no difference.
    evaluated = splits["test"] + splits["val"]
    near = _leaking_ids(find_leaks({"test": evaluated, "val": [], "train": rows}))
    return [row for row in rows if row.id not in near]
