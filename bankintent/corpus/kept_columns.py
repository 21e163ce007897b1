"""Columns of a source that ETL keeps beside its rows (`keep_columns`)."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bankintent import console
from bankintent.config import DataConfig
from bankintent.corpus.columns import find_column
from bankintent.corpus.records import as_text
from bankintent.corpus.rows import Row
from bankintent.errors import DataError
from bankintent.texts import LISTED, fold, is_blank, list_some

NO_VALUE = None
"""The value of a row whose cell is empty, or whose source has no such column."""


@dataclass(frozen=True)
class ColumnFigures:
    """One kept column over all splits."""

    values: int
    """Different ones."""
    missing: int
    """Rows without one."""
    most_frequent: dict[str, int]
    """The LISTED most frequent values with their rows."""


def find_kept(columns: Sequence[str], names: Iterable[str], where: str) -> list[int]:
    """The place of each column to keep among the columns of `where` (a file or split).

    Raises DataError where one is missing or stands twice.
    """
    indices = []
    for name in names:
        found = find_column(columns, "keep_columns", name, (), where)
        indices.append(columns.index(found))
    return indices


def require_columns(config: DataConfig, said: str) -> None:
    """Raise DataError where columns are to be kept of a source that has none; `said` names it."""
    if config.keep_columns:
        listed = ", ".join(config.keep_columns)
        raise DataError(f"{said}, without columns to keep ({listed})", "Remove keep_columns")


def with_kept(rows: Sequence[Row], columns: Sequence[Sequence[Any]]) -> list[Row]:
    """The rows with their values of the columns to keep, which are as long as the rows."""
    if not columns:
        return list(rows)

    kept = []
    for row, values in zip(rows, zip(*columns, strict=True), strict=True):
        kept.append(replace(row, kept=tuple(values)))
    return kept


def as_kept(value: Any) -> str | None:
    """A cell as a string, folded like a text; None where it is empty.

    Whole numbers have no decimals, because pandas and Excel write 3.0 for 3 in a column that lacks
    a value. Lists and objects are JSON.
    """
    if isinstance(value, float):
        value = _number(value)

    text = as_text(value)
    if text is None:
        return NO_VALUE
    # Characters that are no Unicode cannot be written to Parquet.
    readable = text.encode("utf-8", "replace").decode()
    return NO_VALUE if is_blank(readable) else fold(readable)


def _number(value: float) -> float | int | None:
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value


def by_name(names: Sequence[str], rows: Iterable[tuple[str | None, ...]]) -> list[list[str | None]]:
    """The values of each column, in the order of the rows; rows without values have None."""
    columns: list[list[str | None]] = [[] for _ in names]
    for row in rows:
        values = row or (NO_VALUE,) * len(names)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return columns


def describe_columns(
    names: Sequence[str], rows: Iterable[tuple[str | None, ...]]
) -> dict[str, ColumnFigures]:
    """The figures of each kept column, by name."""
    figures = {}
    for name, values in zip(names, by_name(names, rows), strict=True):
        counts = Counter([value for value in values if value is not None])
        missing = len(values) - counts.total()
        # By value where they are as frequent, so that the report is the same every time.
        ordered = sorted(counts.items(), key=_most_rows_first)
        figures[name] = ColumnFigures(len(counts), missing, dict(ordered[:LISTED]))
    return figures


def markdown(figures: dict[str, ColumnFigures]) -> list[str]:
    """The table of the report: each column with its most frequent values."""
    rows = []
    for name, column in figures.items():
        named = [f"{value} ({count:,})" for value, count in column.most_frequent.items()]
        row = [name, str(column.values), str(column.missing), list_some(named, column.values)]
        rows.append(row)
    header = ["column", "values", "rows without", "most frequent (rows)"]
    return console.markdown_table(header, rows)


def _most_rows_first(item: tuple[str, int]) -> tuple[int, str]:
    value, rows = item
    return -rows, value
