"""The scored table: checks that it can be written, and writers of Parquet, CSV and JSON lines.

Writers take some rows at a time and hold little; `.gz` endings are zipped.
"""

import contextlib
import csv
import gzip
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent import files
from bankintent.config import ScoreConfig
from bankintent.corpus.class_names import name_class
from bankintent.corpus.records import Table
from bankintent.corpus.tables import find_ending
from bankintent.errors import DataError, OutputError
from bankintent.scoring.answers import ANSWER
from bankintent.scoring.parts import is_written

ROW_GROUP = 1 << 16
"""Rows of a Parquet row group; they are held until it is written."""

ENDINGS = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
"""Endings of the files that can be written."""

Write = Callable[[pa.Table], None]
"""Appends rows to a file."""


def written_ending(path: Path) -> str:
    """The one of ENDINGS that the output's name has; DataError where it has none."""
    found = find_ending(path)
    if found is None or found not in ENDINGS:
        raise DataError(
            f"{path} has an ending that is not written", f"Expected one of {', '.join(ENDINGS)}"
        )
    return found


def output_schema(table: Table, settings: ScoreConfig) -> pa.Schema:
    """The input's columns and those of ANSWER under their prefix.

    Raises DataError where the input has a column of such a name, or the format of the output cannot
    hold a column.
    """
    schema = table.schema
    for field in ANSWER:
        name = settings.prefix + field.name
        if name in table.schema.names:
            examples = ", ".join(f"predicted_{name}" for name in ANSWER.names)
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
    written_ending(settings.output)

    output = files.place(settings.output)
    if output.is_dir():
        raise OutputError(f"{output} is a folder", "Name a file")
    # There it would be a file of the input of the next run.
    if settings.input.is_dir() and output.parent.resolve() == settings.input.resolve():
        raise OutputError(f"{output} is in the folder of the input", "Name another OUT")
    if not output.exists():
        return
    # By inode, since a link is the input too.
    if output.samefile(settings.input):
        raise OutputError(f"{output} is the input", "Name another OUT")
    # A run that was killed after this can be ended by the same command.
    if is_written(files.work_dir(output), output):
        return
    if not overwrite:
        raise OutputError(f"{output} exists", "Name another OUT, or replace it with --overwrite")


def require_writable(schema: pa.Schema, path: Path) -> None:
    """Raise DataError where a file of this ending cannot hold a column."""
    kind = written_ending(path)
    if kind.startswith(".jsonl"):
        _require_different_names(schema)
    if kind == ".parquet":
        return

    for field in schema:
        if not _fits_text(field.type):
            name = "JSON lines" if kind.startswith(".jsonl") else "CSV"
            raise DataError(
                f'the column "{field.name}" ({field.type}) does not fit into {name}',
                "Write a .parquet file",
            )


def _require_different_names(schema: pa.Schema) -> None:
    """An object of JSON cannot have two values of one name."""
    names = schema.names
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(
            f'JSON lines cannot hold {names.count(repeated)} columns "{repeated}"',
            "Write a .csv or .parquet file",
        )


def _fits_text(kind: pa.DataType) -> bool:
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

    When the block ends, the file is whole. A TSV has tabs; a CSV has the delimiter of
    `input_table` where that is a CSV too, otherwise commas.
    """
    writer: AbstractContextManager[Write]
    if kind == ".parquet":
        writer = _parquet_writer(path, schema)
    elif kind.startswith(".jsonl"):
        writer = _write_jsonl(path, kind, schema)
    else:
        writer = _write_csv(path, kind, schema, _delimiter(kind, input_table))

    with writer as write:
        yield write if kind == ".parquet" else _naming_classes(write, input_table)


def _naming_classes(write: Write, input_table: Table) -> Write:
    """The same with the names of classes for their ids, which only Parquet can keep beside them."""

    def write_named(table: pa.Table) -> None:
        for index, column in enumerate(table.schema.names):
            names = input_table.class_names.get(column)
            if names is None:
                continue
            where = f'{input_table.path.name}, column "{column}"'
            values = table.column(index).to_pylist()
            named = [name_class(value, names, where) for value in values]
            table = table.set_column(index, column, pa.array(named, pa.string()))
        write(table)

    return write_named


def _delimiter(kind: str, input_table: Table) -> str:
    if kind.startswith(".tsv"):
        return "\t"

    # A table without a header says so in the name of its format.
    if input_table.format.startswith("CSV") and input_table.delimiter:
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
    with _open_text(path, kind) as file:
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


@contextlib.contextmanager
def _write_jsonl(path: Path, kind: str, schema: pa.Schema) -> Iterator[Write]:
    """Append rows to a file of JSON lines; what JSON has no form for is written as in a CSV."""
    with _open_text(path, kind) as file:

        def write(table: pa.Table) -> None:
            columns = [_json_values(column) for column in table.columns]
            for row in zip(*columns, strict=True):
                record = dict(zip(schema.names, row, strict=True))
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

        yield write


def _json_values(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return list(column.to_pylist())
    if pa.types.is_floating(kind):
        # JSON has neither NaN nor infinity.
        return [value if _is_finite(value) else None for value in column.to_pylist()]
    return list(column.cast(pa.string()).to_pylist())


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _open_text(path: Path, kind: str) -> Any:
    open_file: Callable[..., Any] = gzip.open if kind.endswith(".gz") else open
    return open_file(path, "wt", encoding="utf-8", newline="")
