"""What every table offers, whatever its format: columns, numbered records, chunks of columns."""

import datetime
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from bankintent.errors import DataError

CELLS_AT_ONCE = 1 << 20
"""Most cells of a table that are Python values at the same time."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Halves of a character that stand alone, which are no Unicode text."""


class Record(NamedTuple):
    """One record of a table."""

    number: int
    """Counted from 1, blank lines not; in a file of JSON lines it is the line."""
    line: int | None
    """The line of the file (the row of the sheet) on which it begins, counted from 1 as an editor
    counts it; None where the format has none."""
    cells: list[Any]
    """The value of each column as a Python value; None, or in a CSV an empty text, where it is
    missing."""
    surplus: int = 0
    """Cells for which a CSV has no column; where there are any, `cells` cannot be trusted."""


@dataclass(frozen=True)
class Header:
    """Where a CSV or workbook has the names of its columns."""

    names: tuple[str, ...]
    rows: int = 1
    """Rows that hold them: 1, or 0 where the names are the numbers of the columns."""
    text: str | None = None
    """The column of sentences of a table without a header, where it is plain."""
    label: str | None = None
    """The column of its intents, likewise."""

    def name_format(self, format: str) -> str:
        """The name of a format for people, which says where a table has no header."""
        return format if self.rows else f"{format} without a header"


@dataclass(frozen=True)
class Table(ABC):
    """A file of records under named columns.

    A fault in the file is a DataError, whenever it comes to light.
    """

    path: Path
    schema: pa.Schema
    """Names and types of the columns in `chunks`, in order. A column without a name has an empty
    one."""
    format: str
    """Its name for people, for example CSV."""
    delimiter: str | None = None
    """The character between the cells of a CSV."""
    encoding: str | None = None
    """The encoding of a text file."""
    sheet: str | None = None
    """The sheet of a workbook that is read."""
    unread: tuple[str, ...] = ()
    """Sheets of a workbook that hold something and are not read."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the classes of a column, in id order; `records` gives them in place of the ids."""
    header: Header | None = None
    """None where the format names the columns itself, as Parquet and JSON do."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self.schema.names)

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """All records in order; one with surplus cells too."""

    @abstractmethod
    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        """All rows in order, in tables of `rows` rows (the last may be shorter).

        The tables have one column where `column` is its index, otherwise all. Raises DataError
        where a record has surplus cells, because every row must come back.
        """

    def place(self, record: Record) -> str:
        """Where a record stands, for people: the file, and its line or number."""
        if record.line is None:
            return f"{self.path} record {record.number}"
        return f"{self.path} line {record.line}"

    def require_whole(self, record: Record, next_step: str = "") -> None:
        """Raise DataError where a record has surplus cells: its columns are lost."""
        if not record.surplus:
            return

        width = len(self.schema)
        usual = "most rows" if self.header and not self.header.rows else "the header"
        quotes = "Put quotes around a text that holds the delimiter"
        raise DataError(
            f"{self.place(record)} has {width + record.surplus} cells, {usual} {width}",
            f"{quotes}{next_step}",
        )


@dataclass(frozen=True)
class HeldTable(Table):
    """A table that is held in memory, because its format cannot be read in pieces."""

    held: Sequence[Record] = ()

    def records(self) -> Iterator[Record]:
        return iter(self.held)

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        schema = self.schema
        indices: Sequence[int] = range(len(schema))
        if column is not None:
            indices = [column]
            schema = pa.schema([schema.field(column)])

        for start in range(0, len(self.held), rows):
            block = self.held[start : start + rows]
            arrays = []
            for index, kind in zip(indices, schema.types, strict=True):
                arrays.append(self._column(block, index, kind))
            yield pa.Table.from_arrays(arrays, schema=schema)

    def _column(self, block: Sequence[Record], index: int, kind: pa.DataType) -> pa.Array:
        values = [record.cells[index] for record in block]
        if kind != pa.string():
            return pa.array(values, kind)

        texts = [as_text(value) for value in values]
        for record, text in zip(block, texts, strict=True):
            # As JSON may hold it, by an escape.
            if text and SURROGATE.search(text):
                raise DataError(
                    f"{self.place(record)} holds a lone surrogate",
                    "Correct it: it is half of a character",
                )
        return pa.array(texts, kind)


def rows_at_once(rows: int, width: int) -> int:
    """Rows of a table of so many columns that are Python values at a time, at most `rows`."""
    return max(1, min(rows, CELLS_AT_ONCE // max(width, 1)))


def regroup(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows each; the last may be shorter."""
    pending: list[pa.Table] = []
    missing = rows

    for table in tables:
        rest = table
        while rest.num_rows:
            piece = rest.slice(0, missing)
            rest = rest.slice(piece.num_rows)
            pending.append(piece)
            missing -= piece.num_rows

            if missing == 0:
                yield pa.concat_tables(pending)
                pending = []
                missing = rows

    if pending:
        yield pa.concat_tables(pending)


def infer_schema(names: Sequence[str], records: Sequence[Record]) -> pa.Schema:
    """Types of the columns of records; values of several types in one column are text."""
    fields = []
    for index, name in enumerate(names):
        values = [record.cells[index] for record in records]
        # Arrow refuses a name that is not Unicode.
        printable = name.encode("utf-8", "backslashreplace").decode()
        fields.append(pa.field(printable, _infer_type(values)))
    return pa.schema(fields)


def _infer_type(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        # A number of any size is a valid one in JSON.
        with_ints = [value for value in values if isinstance(value, int)]
        if any(abs(value) >= 1 << 63 for value in with_ints):
            return pa.string()
        return pa.array(values).type

    # Of nested values Arrow would add the keys that only other rows have.
    is_plain = len(kinds) == 1 and kinds <= {bool, datetime.date, datetime.datetime, datetime.time}
    return pa.array(values).type if is_plain else pa.string()


def as_text(value: Any) -> str | None:
    """A value as a cell of text: nested ones and truth values as in JSON; None stays None.

    A list of one, in which some tools wrap a label, is its only value.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and len(value) == 1:
        return as_text(value[0])
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
