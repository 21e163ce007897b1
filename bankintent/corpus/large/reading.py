"""The rows of tables and of Hub datasets, one after the other."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bankintent.config import DataConfig
from bankintent.corpus import hub_source
from bankintent.corpus.columns import find_table_columns
from bankintent.corpus.records import Table
from bankintent.corpus.rows import Reading, Row, SourceIdentity
from bankintent.corpus.sources import (
    HUB_ALIASES,
    WHOLE,
    file_identity,
    find_tables,
    iterate_rows,
    looks_like_path,
)
from bankintent.corpus.tables import open_table
from bankintent.errors import DataError

LABELS_AT_ONCE = 1 << 16
"""Labels that are looked at together."""


@dataclass(frozen=True)
class Piece:
    """A table, or a split of a Hub dataset."""

    part: str
    """train, val or test; `all` where the source has no splits."""
    rows: Callable[[], Iterator[Row]]
    reading: Callable[[int], Reading]
    """What is said of it, by its number of rows."""
    whole_labels: bool
    """Whether every label of it that is a number with decimals is whole."""


@dataclass(frozen=True)
class Stream:
    """A source of which only a few rows are in memory."""

    pieces: list[Piece]
    identity: Callable[[], SourceIdentity]
    """Only after all rows were read: that of a Hub dataset has their hash."""
    label_order: tuple[str, ...] | None
    unread: list[str]


def open_stream(config: DataConfig) -> Stream:
    """Open the source of a config; raises like `sources.read`."""
    path = Path(config.dataset_name).expanduser()
    if path.exists():
        return _open_tables(path, config)
    if looks_like_path(config.dataset_name):
        raise DataError(
            f"{config.dataset_name} does not exist",
            "Correct dataset_name: a file, a folder or a Hub name",
        )

    repository, pinned = HUB_ALIASES.get(config.dataset_name, (config.dataset_name, None))
    revision = config.revision or pinned or "main"
    return _open_hub(repository, revision, config)


def _open_tables(path: Path, config: DataConfig) -> Stream:
    paths: dict[str, list[Path]] = {WHOLE: [path]}
    unread: list[str] = []
    if path.is_dir():
        paths, unread = find_tables(path)

    pieces = []
    every = []
    orders = set()
    for part, tables in paths.items():
        for one in tables:
            table = open_table(one, config)
            text, label = find_table_columns(table, config)
            pieces.append(_table_piece(part, table, (text, label), config))
            orders.add(table.class_names.get(label))
            every.append(one)

    kind = "file" if WHOLE in paths else "folder"
    order = orders.pop() if len(orders) == 1 else None
    return Stream(pieces, lambda: file_identity(kind, every), order, unread)


def _table_piece(part: str, table: Table, columns: tuple[str, str], config: DataConfig) -> Piece:
    text, label = columns
    return Piece(
        part,
        rows=lambda: iterate_rows(table, text, label, config),
        reading=lambda rows: Reading.of(table, rows, text, label),
        whole_labels=_are_whole(table, label),
    )


def _are_whole(table: Table, label: str) -> bool:
    """Whether the labels of a table that are numbers with decimals are whole."""
    index = table.columns.index(label)
    if not pa.types.is_floating(table.schema.types[index]):
        return True
    for chunk in table.chunks(LABELS_AT_ONCE, index):
        for value in chunk.column(0).to_pylist():
            if value is not None and not math.isnan(value) and not float(value).is_integer():
                return False
    return True


def _open_hub(repository: str, revision: str, config: DataConfig) -> Stream:
    opened = hub_source.open_hub(repository, revision, config)
    pieces = []
    for split in opened.splits:
        pieces.append(_hub_piece(split))
    return Stream(pieces, opened.identity, opened.label_order, opened.unread)


def _hub_piece(split: Any) -> Piece:
    return Piece(
        split.name,
        rows=split.rows,
        reading=lambda rows: Reading(split.origin, "Hub dataset", rows, split.text, split.label),
        whole_labels=split.are_labels_whole(),
    )
