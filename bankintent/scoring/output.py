"""The scored table: checks that it can be written, and writers of Parquet, CSV and TSV.

Writers take some rows at a time and hold little; `.gz` endings are zipped.
"""

import contextlib
import csv
import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent import console
from bankintent.config import ScoreConfig
from bankintent.corpus.tables import Table, ending
from bankintent.errors import DataError, OutputError
from bankintent.scoring.answers import ANSWER

ROW_GROUP = 1 << 16
"""Rows of a Parquet row group; they are held until it is written."""

Write = Callable[[pa.Table], None]
"""Appends rows to a file."""


def output_schema(table: Table, settings: ScoreConfig) -> pa.Schema:
    """The input's columns and those of ANSWER under their prefix.

    Raises DataError where the input has a column of such a name, or the format of the output cannot
    hold a column.
    """
    schema = table.schema
    for field in ANSWER:
        name = settings.prefix + field.name
        if name in table.schema.names:
            examples = " and ".join(f"predicted_{name}" for name in ANSWER.names)
            raise DataError(
                f'{table.path.name} has a column "{name}" already',
                "Write the answers under other names: --set prefix=predicted_ makes them "
                f"{examples}",
            )
        schema = schema.append(field.with_name(name))

    require_writable(schema, settings.output)
    return schema


def require_free(settings: ScoreConfig, overwrite: bool) -> None:
    """Raise OutputError where the output cannot be written, before hours are spent on it."""
    output = settings.output
    ending(output)

    _require_writable_parent(output)
    if output.is_dir():
        raise OutputError(f"{output} is a folder", "Name a file")
    if not output.exists():
        return
    # By inode, since a link is the input too.
    if output.samefile(settings.input):
        raise OutputError(f"{output} is the input", "Name another OUT")
    if not overwrite:
        raise OutputError(f"{output} exists", "Name another OUT, or replace it with --overwrite")


def _require_writable_parent(output: Path) -> None:
    """Check the nearest folder above the output that exists; those below it can be made."""
    parent = next(parent for parent in output.absolute().parents if parent.exists())
    if not parent.is_dir():
        fault = "is not a folder"
    elif not os.access(parent, os.W_OK):
        fault = "is not writable"
    else:
        return
    raise OutputError(
        f"{output} cannot be written: {console.show_path(parent)} {fault}", "Name another OUT"
    )


def require_writable(schema: pa.Schema, path: Path) -> None:
    """Raise DataError where a file of this ending cannot hold a column."""
    if ending(path) == ".parquet":
        return
    for field in schema:
        if not _fits_csv(field.type):
            raise DataError(
                f'the column "{field.name}" ({field.type}) does not fit into CSV',
                "Write a .parquet file",
            )


def _fits_csv(kind: pa.DataType) -> bool:
    """Whether every value of a type can be written as text."""
    stored = kind
    if isinstance(kind, pa.BaseExtensionType):
        stored = kind.storage_type
    # Arrow casts bytes to strings, but only those that happen to be UTF-8.
    if pa.types.is_binary(stored) or pa.types.is_large_binary(stored):
        return False
    if pa.types.is_fixed_size_binary(stored):
        return False

    try:
        pa.array([], kind).cast(pa.string())
    except pa.ArrowNotImplementedError:
        return False
    return True


@contextlib.contextmanager
def writing(path: Path, kind: str, schema: pa.Schema, input_table: Table) -> Iterator[Write]:
    """Yield a function that appends rows to a new file of the ending `kind`.

    When the block ends, the file is whole and on disk. A TSV has tabs; a CSV has the delimiter of
    `input_table` where that is a CSV too, otherwise commas.
    """
    writer: AbstractContextManager[Write]
    if kind == ".parquet":
        writer = _parquet_writer(path, schema)
    else:
        writer = _write_csv(path, kind, schema, _delimiter(kind, input_table))

    with writer as write:
        yield write

    # The writer has closed the file, but the system may still hold its bytes.
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _delimiter(kind: str, input_table: Table) -> str:
    if kind.startswith(".tsv"):
        return "\t"

    is_csv = ending(input_table.path).startswith(".csv")
    if is_csv and input_table.delimiter:
        return input_table.delimiter
    return ","


@contextlib.contextmanager
def _parquet_writer(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Append rows to a Parquet file in row groups of at least ROW_GROUP."""
    pending: list[pa.Table] = []

    def write(table: pa.Table) -> None:
        pending.append(table)
        if sum(table.num_rows for table in pending) >= ROW_GROUP:
            flush()

    def flush() -> None:
        if pending:
            writer.write_table(pa.concat_tables(pending))
            pending.clear()

    with pq.ParquetWriter(path, schema) as writer:
        yield write
        flush()


@contextlib.contextmanager
def _write_csv(path: Path, kind: str, schema: pa.Schema, delimiter: str) -> Iterator[Write]:
    """Append rows to a CSV file with a header line; null becomes an empty cell."""
    open_file: Callable[..., Any] = gzip.open if kind.endswith(".gz") else open
    with open_file(path, "wt", encoding="utf-8", newline="") as file:
        plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(schema.names)

        def write(table: pa.Table) -> None:
            columns = [column.cast(pa.string()).to_pylist() for column in table.columns]
            for row in zip(*columns, strict=True):
                # A carriage return ends a line for readers, but the writer quotes it only where it
                # is the writer's own line end.
                writer = quoted if _has_carriage_return(row) else plain
                writer.writerow(row)

        yield write


def _has_carriage_return(row: tuple[str | None, ...]) -> bool:
    return any(cell is not None and "\r" in cell for cell in row)
