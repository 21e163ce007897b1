"""The rows of a spool into train, val and test, with the same draws as those in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from bankintent.config import DataConfig
from bankintent.corpus import stable_split
from bankintent.corpus.large import near_pairs
from bankintent.corpus.large.spool import Spool, fetch, iterate_texts
from bankintent.corpus.random_split import draw_share
from bankintent.corpus.splits import RareIntents

Numbers = NDArray[np.int64]
"""Numbers of rows, in order."""

Places = dict[str, Numbers]
"""The rows of train, val and test."""


@dataclass(frozen=True)
class _Intents:
    """What is needed to draw rows of each intent."""

    spool: Spool
    train_only: set[str]

    def groups(self, rows: Numbers) -> list[Numbers]:
        """The places in `rows` of each intent that is divided, intents in alphabetical order."""
        labels = self.spool.label[rows]
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels, minlength=len(self.spool.names))
        ends = np.cumsum(sizes)

        found = {}
        for number, name in enumerate(self.spool.names):
            if sizes[number] and name not in self.train_only:
                found[name] = order[ends[number] - sizes[number] : ends[number]]
        return [indices for _, indices in sorted(found.items())]

    def take(
        self, rows: Numbers, share: float, rng: np.random.Generator, leave: int = 1
    ) -> tuple[Numbers, Numbers]:
        """(the rest, about `share` of the rows of each intent), in order."""
        taken = np.zeros(len(rows), dtype=np.bool_)
        taken[draw_share(self.groups(rows), share, rng, leave)] = True
        return rows[~taken], rows[taken]


def apply_rare(spool: Spool, rare: RareIntents) -> None:
    """Drop or rename the rows of rare intents, in place."""
    numbers = [spool.names.index(name) for name in rare.rows]
    if rare.policy == "drop":
        spool.label[np.isin(spool.label, numbers)] = -1
    if rare.merged_into is not None:
        if rare.merged_into not in spool.names:
            spool.names.append(rare.merged_into)
        spool.label[np.isin(spool.label, numbers)] = spool.names.index(rare.merged_into)


def divide(
    spool: Spool,
    division: str,
    rare: RareIntents,
    config: DataConfig,
    database: duckdb.DuckDBPyConnection,
) -> Places:
    """The numbers of the rows of train, val and test."""
    intents = _Intents(spool, rare.train_only)
    rng = np.random.default_rng(config.seed)
    if division == "official":
        return _keep_official(intents, config, rng)

    rows = np.flatnonzero(spool.label >= 0)
    if division == "stable":
        return _place(intents, rows, config, database)

    rest, test = intents.take(rows, config.test_split, rng, leave=2)
    share = config.val_split / (1 - config.test_split)
    train, val = intents.take(rest, share, rng)
    return {"train": train, "val": val, "test": test}


def _keep_official(intents: _Intents, config: DataConfig, rng: np.random.Generator) -> Places:
    spool = intents.spool
    parts: Places = {"train": np.empty(0, dtype=np.int64), "val": np.empty(0, dtype=np.int64)}
    for number, name in enumerate(spool.parts):
        parts[name] = np.flatnonzero((spool.part == number) & (spool.label >= 0))
    if not len(parts["val"]):
        parts["train"], parts["val"] = intents.take(parts["train"], config.val_split, rng)
    return {name: parts[name] for name in ("train", "val", "test")}


def _place(
    intents: _Intents, rows: Numbers, config: DataConfig, database: duckdb.DuckDBPyConnection
) -> Places:
    spool = intents.spool
    text = spool.text[rows].astype(np.int64)
    # Texts of dropped rows connect nothing.
    is_used = np.zeros(spool.texts, dtype=np.bool_)
    is_used[text] = True
    family = near_pairs.families(spool, is_used)[text].astype(np.int64)

    positions = _position_all(iterate_texts(spool), config.seed)

    def names(numbers: Numbers) -> list[str]:
        return fetch(database, "normalised", numbers)

    known = stable_split.Rows(text, family, positions.__getitem__, names, spool.texts)
    shares = stable_split.Shares(config.test_split, config.val_split)
    split_of_row = stable_split.place_rows(known, intents.groups(rows), shares, config.seed)

    places = {}
    for number, name in enumerate(stable_split.NAMES):
        places[name] = rows[split_of_row == number]
    return places


def _position_all(blocks: Iterable[list[str]], seed: int) -> NDArray[np.float64]:
    arrays = [stable_split.positions(texts, seed) for texts in blocks]
    return np.concatenate(arrays)


def count_splits(spool: Spool, places: Mapping[str, Numbers]) -> dict[str, dict[str, int]]:
    """Rows of each intent in each split."""
    return {name: spool.count_labels(rows) for name, rows in places.items()}
