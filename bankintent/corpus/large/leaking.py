"""Rows of one split that stand, nearly word for word, in another; listed up to a number."""

from dataclasses import dataclass
from itertools import combinations

import duckdb
import numpy as np
from numpy.typing import NDArray

from bankintent.corpus.figures import LeakFigures
from bankintent.corpus.large import near_pairs
from bankintent.corpus.large.dividing import Numbers, Places
from bankintent.corpus.large.spool import Spool, fetch
from bankintent.corpus.leaks import KEEP_ORDER, Leak, SplitLeaks, name_first
from bankintent.corpus.near import Nearest
from bankintent.errors import DataError

LISTED = 10_000
"""Leaks between two splits, and texts with two labels, that the report lists."""


@dataclass(frozen=True)
class Leaks:
    """All leaks between the splits."""

    pairs: dict[str, LeakFigures]
    """By `<split that keeps the text>/<other split>`; at most LISTED rows of each are listed."""
    leaking: NDArray[np.bool_]
    """For each row of the spool, whether another split keeps its text."""

    @property
    def unlisted(self) -> int:
        """Leaks that are counted and not listed."""
        return sum(pair.same + pair.near - len(pair.rows) for pair in self.pairs.values())


@dataclass(frozen=True)
class _Kept:
    """A split that keeps its texts."""

    first: NDArray[np.int32]
    """Of each text the first row that has it; -1 where none has."""
    nearest: Nearest


def find(spool: Spool, places: Places, database: duckdb.DuckDBPyConnection) -> Leaks:
    """The rows of one split that are nearly in another, for each pair of splits with rows."""
    names = [name for name in KEEP_ORDER if len(places[name])]
    firsts = {name: _first_rows(spool, places[name]) for name in names[:-1]}
    nearest = near_pairs.find_nearest(spool, [first >= 0 for first in firsts.values()])
    kept = {}
    for (name, first), one in zip(firsts.items(), nearest, strict=True):
        kept[name] = _Kept(first, one)

    pairs = {}
    leaking = np.zeros(len(spool.label), dtype=np.bool_)
    for keeper, other in combinations(names, 2):
        same, near = _compare(spool, kept[keeper], places[other])
        rows = places[other][same | near]
        leaking[rows] = True
        listed = _list(spool, kept[keeper], rows[:LISTED], database)
        pairs[f"{keeper}/{other}"] = LeakFigures(int(same.sum()), int(near.sum()), listed)
    return Leaks(pairs, leaking)


def _first_rows(spool: Spool, rows: Numbers) -> NDArray[np.int32]:
    first = np.full(spool.texts, -1, dtype=np.int32)
    # Backwards, so that the first row of a text is the last to be written.
    first[spool.text[rows[::-1]]] = rows[::-1]
    return first


def _compare(
    spool: Spool, kept: _Kept, rows: Numbers
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(rows with the same text as a kept one, others with nearly the same)."""
    texts = spool.text[rows]
    same = kept.first[texts] >= 0
    near = ~same & (kept.nearest.index[texts] >= 0)
    return same, near


def _list(
    spool: Spool, kept: _Kept, rows: Numbers, database: duckdb.DuckDBPyConnection
) -> list[Leak]:
    texts = spool.text[rows]
    same = kept.first[texts] >= 0
    keepers = np.where(same, kept.first[texts], kept.first[kept.nearest.index[texts]])
    ids = fetch(database, "id", rows)
    kept_ids = fetch(database, "id", keepers)

    leaks = []
    similarities = kept.nearest.similarity[texts].tolist()
    for index, similarity in enumerate(similarities):
        # 1.0 means the same text, so rounding must not reach it.
        rounded = 1.0 if same[index] else min(round(similarity, 3), 0.999)
        leaks.append(Leak(kept_ids[index], ids[index], rounded))
    return leaks


def apply_policy(places: Places, leaks: Leaks, policy: str) -> Places:
    """`report` changes nothing, `drop` removes the leaking rows, `fail` raises DataError."""
    count = int(leaks.leaking.sum())
    if policy == "fail" and count:
        listed = []
        for pair, figures in leaks.pairs.items():
            kept, other = pair.split("/")
            listed.append(SplitLeaks(kept, other, figures.rows))
        raise DataError(
            f"{count} rows stand in two splits ({name_first(listed)})",
            "Correct them, or set leakage: drop or report",
        )
    if policy != "drop":
        return places
    return {name: rows[~leaks.leaking[rows]] for name, rows in places.items()}
