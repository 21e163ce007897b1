"""Readers of tables of any length: Parquet, and CSV or TSV, gzipped or not.

ETL, `score` and the Gradio page read with these. Rows of a CSV of another length than its header:

- A row that ends early has empty cells at its end.
- A row with more cells than the header has lost its columns (a delimiter without quotes), so
  nothing of it is used. ETL refuses that row. `score` and the page have to give back every row,
  so they stop with an error that names the line.

A column without a name is a column like any other; its cells are no surplus.
"""

import contextlib
import csv
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent.corpus.columns import find_delimiter
from bankintent.errors import DataError

ENDINGS = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")

LONGEST_CELL = 1 << 24
"""Most characters of a CSV cell: an unclosed quote is noticed before it has filled the memory."""


class Table(Protocol):
    """A file of rows under named columns.

    A fault in the file is a DataError, whenever it comes to light.
    """

    @property
    def path(self) -> Path: ...

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, in order."""

    @property
    def delimiter(self) -> str | None:
        """The character between the cells of a CSV; None for Parquet."""

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        """All rows in order, in tables of `rows` rows (the last may be shorter).

        The tables have one column where `column` is its index, otherwise all.
        """


def ending(path: Path) -> str:
    """The one of ENDINGS that a file's name has, in lower case; DataError where it has none."""
    name = path.name.lower()
    for known in ENDINGS:
        if name.endswith(known):
            return known
    raise DataError(f"{path} has an unknown ending", f"Expected one of {', '.join(ENDINGS)}")


def open_table(path: Path) -> Table:
    """Open a file by its ending; DataError where it does not exist or is no such table."""
    kind = ending(path)
    next_step = f"Name one file with the ending {', '.join(ENDINGS)}"
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file", next_step)
    if not path.is_file():
        raise DataError(f"{path} does not exist", next_step)

    if kind == ".parquet":
        return open_parquet(path)
    return open_csv(path)


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file; every column keeps its type."""

    path: Path
    schema: pa.Schema
    delimiter: None = None

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        names = None if column is None else [self.schema.names[column]]

        with _readable_parquet(self.path), _parquet_file(self.path) as file:
            batches = file.iter_batches(rows, columns=names, use_threads=False)
            yield from _regroup(_to_tables(batches, names), rows)


def open_parquet(path: Path) -> ParquetTable:
    """Read the schema of a Parquet file; DataError where it is none."""
    with _readable_parquet(path), _parquet_file(path) as file:
        return ParquetTable(path, file.schema_arrow)


def _parquet_file(path: Path) -> Any:
    """The file mapped into memory, so that no more than a page of it is held.

    Otherwise a whole row group is read, which may be the whole file; `buffer_size` does the same
    where pages are small.
    """
    # Not read_table, which takes a folder such as day=1 above the file for a column of it.
    return pq.ParquetFile(path, memory_map=True, pre_buffer=False)


@contextlib.contextmanager
def _readable_parquet(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is not a readable Parquet file ({reason})") from None


def _to_tables(batches: Iterable[pa.RecordBatch], names: list[str] | None) -> Iterator[pa.Table]:
    for batch in batches:
        table = pa.Table.from_batches([batch])
        if names is not None:
            # Reading a column `a` by name also brings the columns `a.b`.
            table = table.select(names)
        yield table


def _regroup(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of equal length.

    Arrow ends a batch with the row group where a column is dictionary-encoded.
    """
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


class CsvRecord(NamedTuple):
    """A record of a CSV below its header."""

    line: int
    """The line of the file, counted from 1, on which it ends."""
    cells: list[str]
    """One cell for each column; those that the record lacks are empty."""
    surplus: int
    """Cells for which there is no column; where there are any, `cells` cannot be trusted."""


@dataclass(frozen=True)
class CsvTable:
    """A CSV or TSV file in UTF-8 with a header line; every column is text, as it is written.

    Blank lines are no rows.
    """

    path: Path
    header: tuple[str, ...]
    delimiter: str
    errors: str = "strict"
    """The codec's handler of bytes that are not UTF-8; other than strict, read `records` alone,
    because Arrow holds no lone surrogates."""

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(name, pa.string()) for name in self.header])

    def records(self) -> Iterator[CsvRecord]:
        """All records below the header, in order."""
        width = len(self.header)
        lines = read_csv_records(self.path, self.delimiter, self.errors)

        # The first record is the header.
        for line, cells in itertools.islice(lines, 1, None):
            surplus = max(0, len(cells) - width)
            padding = [""] * (width - len(cells))
            yield CsvRecord(line, cells[:width] + padding, surplus)

    def rows(self) -> Iterator[list[str]]:
        """The cells of all records; DataError names the first that has surplus cells."""
        width = len(self.header)
        for record in self.records():
            if record.surplus:
                cells = width + record.surplus
                raise DataError(
                    f"{self.path} line {record.line} has {cells} cells, the header {width}",
                    "Put quotes around a text that holds the delimiter",
                )

            yield record.cells

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        schema = self.schema
        indices: Sequence[int] = range(len(schema))
        if column is not None:
            indices = [column]
            schema = pa.schema([schema.field(column)])

        remaining = self.rows()
        while block := list(itertools.islice(remaining, rows)):
            yield _to_arrow(block, indices, schema)


def _to_arrow(block: list[list[str]], indices: Sequence[int], schema: pa.Schema) -> pa.Table:
    columns = []
    for index in indices:
        cells = [row[index] for row in block]
        columns.append(pa.array(cells, pa.string()))
    return pa.Table.from_arrays(columns, schema=schema)


def open_csv(path: Path, errors: str = "strict") -> CsvTable:
    """Read the header of a CSV or TSV file; DataError where there is none.

    `errors` is the codec's handler of bytes that are not UTF-8.
    """
    with _readable_csv(path), _open_text(path, errors) as file:
        # Bounded, because a file of another kind may have no line ends at all.
        first_line = file.readline(LONGEST_CELL)
    delimiter = find_delimiter(first_line)

    _, header = next(read_csv_records(path, delimiter, errors), (0, []))
    if not any(header):
        raise DataError(f"{path} is empty", "Expected a header line and rows below it")
    return CsvTable(path, tuple(header), delimiter, errors)


def read_csv_records(
    path: Path, delimiter: str, errors: str = "strict"
) -> Iterator[tuple[int, list[str]]]:
    """The last line and the cells of each record of a CSV, the header's first.

    Blank lines are skipped. DataError names the line of a record that is not well formed.
    """
    # The limit holds for the whole process, so it is never lowered.
    csv.field_size_limit(max(LONGEST_CELL, csv.field_size_limit()))

    with _readable_csv(path), _open_text(path, errors) as file:
        # Strict: a quote that is not closed is an error and not a part of the text.
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(
                f"{path} line {reader.line_num}: {error}", "Correct the quotes of that row"
            ) from None
        except UnicodeDecodeError:
            # The text is decoded in blocks, ahead of the line that the reader is at.
            raise DataError(
                f"{path} is not UTF-8 text (at line {reader.line_num} or soon after)",
                "Save it as UTF-8",
            ) from None


def _open_text(path: Path, errors: str) -> TextIO:
    """A text file, unzipped; line ends are left to the CSV reader, a byte order mark is dropped."""
    if ending(path).endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", errors=errors, newline="")
    return path.open("rt", encoding="utf-8-sig", errors=errors, newline="")


@contextlib.contextmanager
def _readable_csv(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", "Save it as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason})") from None
