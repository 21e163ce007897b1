"""Rows of one split that stand, nearly word for word, in another, and the policy for them."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from bankintent.corpus.cleaning import Example, normalised_texts
from bankintent.corpus.near import Nearest, find_nearest
from bankintent.corpus.splits import Corpus, Splits, only_new, pool, require_usable_splits
from bankintent.errors import DataError

KEEP_ORDER = ("test", "val", "train")
"""The first of two splits that share a text keeps it: evaluation data is never changed."""


class Leak(NamedTuple):
    """Two rows with nearly the same text."""

    kept: str
    """Id of the row in the split that keeps the text."""
    other: str
    """Id of the row in the other split."""
    similarity: float
    """1.0 where the texts are the same after normalisation, otherwise from near.NEAR to 0.999."""


@dataclass(frozen=True)
class SplitLeaks:
    """The leaks between two splits, at most one for each row of the other split."""

    kept: str
    """Name of the split that keeps its rows."""
    other: str
    rows: list[Leak]


def resolve_leaks(corpus: Corpus, policy: str) -> tuple[Corpus, list[SplitLeaks]]:
    """Find the leaks between the splits and apply the policy `leakage` to them.

    Sentences without labels can be spared: whatever the policy, those go that are known, or that
    val or test nearly hold. Raises DataError where the policy is `fail` and there are leaks, or
    where a split has no rows left.
    """
    leaks = find_leaks(corpus.splits)

    splits = apply_policy(corpus.splits, leaks, policy)
    require_usable_splits(splits)

    unlabelled = corpus.unlabelled
    if unlabelled is not None:
        known = [*splits.values(), *corpus.out_of_scope.values()]
        new_rows = only_new(known, unlabelled)
        # Cross-validation judges by the rows of train.
        judged = splits if corpus.folds is None else {"test": splits["train"]}
        unlabelled = unlike_evaluation(new_rows, judged)
    return replace(corpus, splits=splits, unlabelled=unlabelled), leaks


def find_leaks(splits: Splits) -> list[SplitLeaks]:
    """The rows of one split that are nearly in another, for each pair of splits with rows."""
    names = [name for name in KEEP_ORDER if splits.get(name)]
    if len(names) < 2:
        return []

    texts = sorted(set(normalised_texts(pool(splits))))

    ids_by_split = {}
    for name in names:
        ids_by_split[name] = _first_ids(splits[name])
    # The last split keeps nothing: there is none after it.
    keeping = names[:-1]
    masks = [np.array([text in ids_by_split[name] for text in texts]) for name in keeping]
    nearest = dict(zip(keeping, find_nearest(texts, masks), strict=True))

    leaks = []
    for kept, other in combinations(names, 2):
        kept_rows = _KeptRows(ids_by_split[kept], texts, nearest[kept])
        leaks.append(SplitLeaks(kept, other, list(kept_rows.leaks_into(splits[other]))))
    return leaks


def _first_ids(rows: list[Example]) -> dict[str, str]:
    """The id of the first row of each normalised text."""
    ids: dict[str, str] = {}
    for row, text in zip(rows, normalised_texts(rows), strict=True):
        ids.setdefault(text, row.id)
    return ids


@dataclass(frozen=True)
class _KeptRows:
    """The rows of a split, and which of them is nearest to each text of the corpus."""

    ids: dict[str, str]
    """By normalised text."""
    texts: list[str]
    """Those of the corpus, sorted."""
    nearest: Nearest

    def leaks_into(self, rows: list[Example]) -> Iterator[Leak]:
        """For each row of another split that leaks, the kept row that it is most like."""
        for row, text in zip(rows, normalised_texts(rows), strict=True):
            if text in self.ids:
                yield Leak(self.ids[text], row.id, 1.0)
                continue

            place = bisect_left(self.texts, text)
            nearest = int(self.nearest.index[place])
            if nearest >= 0:
                similarity = float(self.nearest.similarity[place])
                # 1.0 means the same text, so rounding must not reach it.
                rounded = min(round(similarity, 3), 0.999)
                yield Leak(self.ids[self.texts[nearest]], row.id, rounded)


def apply_policy(splits: Splits, leaks: list[SplitLeaks], policy: str) -> Splits:
    """`report` changes nothing, `drop` removes the leaking rows, `fail` raises DataError."""
    leaking = _leaking_ids(leaks)
    if policy == "fail" and leaking:
        raise DataError(
            f"{len(leaking)} rows stand in two splits ({name_first(leaks)})",
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


def name_first(leaks: list[SplitLeaks]) -> str:
    """The first two leaks of each pair of splits."""
    names = []
    for pair in leaks:
        for leak in pair.rows[:2]:
            names.append(f"{leak.kept} and {leak.other}")
    return "; ".join(names)


def unlike_evaluation(rows: list[Example], splits: Splits) -> list[Example]:
    """The rows that val and test do not hold, not even nearly."""
    # Both as one split: to which of the two a row is near makes no difference.
    evaluated = splits["test"] + splits.get("val", [])
    near = _leaking_ids(find_leaks({"test": evaluated, "val": [], "train": rows}))
    return [row for row in rows if row.id not in near]
