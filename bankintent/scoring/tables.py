"""Tables of any length, read and written some rows at a time: Parquet, and CSV or TSV, gzipped or not."""

import contextlib
import csv
import gzip
import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent.corpus.sources import find_delimiter
from bankintent.errors import DataError

ENDINGS = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
LONGEST_CELL = 1 << 24
"""Most characters of one CSV cell: a quote that nobody closed is found before it has swallowed the memory."""
ROW_GROUP = 1 << 16
"""Rows of a Parquet row group; they are held until it is written."""

Write = Callable[[pa.Table], None]


class Table(Protocol):
    """A file of rows under named columns. What is wrong with it is a DataError, whenever it comes to light."""

    @property
    def path(self) -> Path: ...

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, in order."""

    @property
    def delimiter(self) -> str | None:
        """What stands between the cells of a CSV; None for Parquet."""

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        """All rows in order, in tables of `rows` rows (the last may be shorter), of one column or of all."""


def ending(path: Path) -> str:
    """Which of ENDINGS a file's name has, in lower case; DataError where it has none."""
    found = [ending for ending in ENDINGS if path.name.lower().endswith(ending)]
    if not found:
        raise DataError(f"{path} has an unknown ending", f"Expected one of {', '.join(ENDINGS)}")
    return found[0]


def open_table(path: Path) -> Table:
    """Find out a file's format and columns; DataError where it is not there or is no such table."""
    kind = ending(path)
    if not path.is_file():
        fault = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {fault}", f"Name one file with the ending {', '.join(ENDINGS)}")
    return _open_parquet(path) if kind == ".parquet" else _open_csv(path)


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file; every column keeps its type."""

    path: Path
    schema: pa.Schema
    delimiter: str | None = None

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        names = None if column is None else [self.schema.names[column]]
        with _readable_parquet(self.path), _parquet_file(self.path) as file:
            batches = file.iter_batches(rows, columns=names, use_threads=False)
            tables = (pa.Table.from_batches([batch]) for batch in batches)
            # The name of a column also brings the columns whose names go on after a dot.
            yield from _regroup((table.select(names) if names else table for table in tables), rows)


@dataclass(frozen=True)
class CsvTable:
    """A CSV or TSV file in UTF-8 with a header line, read as ETL reads it; every column is text, as it is written.

    Blank lines are no rows; a row that ends early has empty cells at its end.
    """

    path: Path
    schema: pa.Schema
    delimiter: str

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        columns = range(len(self.schema)) if column is None else [column]
        schema = pa.schema([self.schema.field(index) for index in columns])
        records = itertools.islice(_records(self.path, self.delimiter), 1, None)
        while block := list(itertools.islice(records, rows)):
            cells = [[row[index] if index < len(row) else "" for row in block] for index in columns]
            yield pa.Table.from_arrays(
                [pa.array(column, pa.string()) for column in cells], schema=schema
            )


def require_writable(schema: pa.Schema, path: Path) -> None:
    """Raise DataError where a file of this ending cannot hold a column."""
    for field in schema if ending(path) != ".parquet" else ():
        if not _fits_csv(field.type):
            raise DataError(
                f'the column "{field.name}" ({field.type}) does not fit into CSV',
                "Write a .parquet file",
            )


@contextlib.contextmanager
def writing(path: Path, kind: str, schema: pa.Schema, source: Table) -> Iterator[Write]:
    """Yield what appends rows to a new file of one of ENDINGS; when the block ends, the file is whole and on disk.

    A CSV gets the delimiter of `source` where that is a CSV too, else a comma; a TSV has tabs.
    """
    if kind == ".parquet":
        writer = _write_parquet(path, schema)
    elif kind.startswith(".tsv"):
        writer = _write_csv(path, kind, schema, "\t")
    else:
        alike = ending(source.path).startswith(".csv")
        writer = _write_csv(path, kind, schema, (source.delimiter if alike else None) or ",")
    with writer as write:
        yield write
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _write_parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    held: list[pa.Table] = []

    def write(table: pa.Table) -> None:
        held.append(table)
        if sum(table.num_rows for table in held) >= ROW_GROUP:
            flush()

    def flush() -> None:
        if held:
            writer.write_table(pa.concat_tables(held))
            held.clear()

    with pq.ParquetWriter(path, schema) as writer:
        yield write
        flush()


@contextlib.contextmanager
def _write_csv(path: Path, kind: str, schema: pa.Schema, delimiter: str) -> Iterator[Write]:
    with _opener(kind)(path, "wt", encoding="utf-8", newline="") as file:
        plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(schema.names)

        def write(table: pa.Table) -> None:
            cells = [column.cast(pa.string()).to_pylist() for column in table.columns]
            for row in zip(*cells, strict=True):
                # A carriage return ends a line for readers, but the writer quotes it only where it ends its own lines.
                has_return = any(cell is not None and "\r" in cell for cell in row)
                (quoted if has_return else plain).writerow(row)

        yield write


def _open_parquet(path: Path) -> ParquetTable:
    with _readable_parquet(path), _parquet_file(path) as file:
        return ParquetTable(path, file.schema_arrow)


def _parquet_file(path: Path) -> Any:
    """Mapped into memory, so that nothing is held but the page in hand.

    Otherwise a whole row group is read, which may be the whole file; so it is with `buffer_size` where pages are small.
    """
    return pq.ParquetFile(path, memory_map=True, pre_buffer=False)


@contextlib.contextmanager
def _readable_parquet(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({str(error).splitlines()[0]})"
        ) from None


def _regroup(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of equal length; Arrow breaks batches off at row groups where a column is dictionary."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        while table.num_rows:
            held.append(table.slice(0, rows - count))
            count += held[-1].num_rows
            table = table.slice(held[-1].num_rows)
            if count == rows:
                yield pa.concat_tables(held)
                held, count = [], 0
    if held:
        yield pa.concat_tables(held)


def _open_csv(path: Path) -> CsvTable:
    delimiter = _find_delimiter(path)
    header = next(_records(path, delimiter), [])
    if not any(header):
        raise DataError(f"{path} is empty", "Expected a header line and rows below it")
    return CsvTable(path, pa.schema([pa.field(name, pa.string()) for name in header]), delimiter)


def _find_delimiter(path: Path) -> str:
    with (
        _readable_csv(path),
        _opener(ending(path))(path, "rt", encoding="utf-8-sig", newline="") as file,
    ):
        return find_delimiter(file.readline(LONGEST_CELL))


def _records(path: Path, delimiter: str) -> Iterator[list[str]]:
    """The cells of each record, the header's first. DataError names the line of what is not well formed."""
    csv.field_size_limit(
        max(LONGEST_CELL, csv.field_size_limit())
    )  # it holds for the whole process: never lower it
    with (
        _readable_csv(path),
        _opener(ending(path))(path, "rt", encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        width = None
        try:
            for row in filter(None, reader):
                width = width or len(row)
                if len(row) > width:
                    raise DataError(
                        f"{path} line {reader.line_num} has {len(row)} cells, the header {width}",
                        "Put quotes around a text that holds the delimiter",
                    )
                yield row
        except csv.Error as error:
            raise DataError(
                f"{path} line {reader.line_num}: {error}", "Mend the quotes of that row"
            ) from None
        except UnicodeDecodeError:
            raise DataError(
                f"{path} is not UTF-8 text (at line {reader.line_num} or soon after)",
                "Save it as UTF-8",
            ) from None


@contextlib.contextmanager
def _readable_csv(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", "Save it as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None


def _opener(kind: str) -> Callable[..., Any]:
    return gzip.open if kind.endswith(".gz") else open


def _fits_csv(kind: pa.DataType) -> bool:
    """Whether every value of a type has a text; bytes may be anything, so they have none."""
    stored = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if (
        pa.types.is_binary(stored)
        or pa.types.is_large_binary(stored)
        or pa.types.is_fixed_size_binary(stored)
    ):
        return False
    try:
        pa.array([], kind).cast(pa.string())
    except pa.ArrowNotImplementedError:
        return False
    return True
