"""Reader of Parquet files of any length: every column keeps its type."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent.corpus.class_names import find_class_names, name_class
from bankintent.corpus.records import Record, Table
from bankintent.errors import DataError

ROWS = 1 << 13
"""Rows that are turned into Python values at a time."""

METADATA = b"huggingface"
"""Key of the schema's metadata under which the library `datasets` writes its features as JSON."""


@dataclass(frozen=True)
class ParquetTable(Table):
    """A Parquet file."""

    def records(self) -> Iterator[Record]:
        number = 0
        for chunk in self.chunks(ROWS):
            columns = [self._values(chunk, index) for index in range(chunk.num_columns)]
            for cells in zip(*columns, strict=True):
                number += 1
                yield Record(number, None, list(cells))

    def _values(self, chunk: pa.Table, index: int) -> list[Any]:
        """The values of a column, with the names of classes in place of their ids."""
        values = chunk.column(index).to_pylist()
        name = chunk.schema.names[index]
        names = self.class_names.get(name)
        if names is None:
            return values
        where = f'{self.path.name}, column "{name}"'
        return [name_class(value, names, where) for value in values]

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        names = None if column is None else [self.schema.names[column]]

        with _readable(self.path), _map_into_memory(self.path) as file:
            batches = file.iter_batches(rows, columns=names, use_threads=False)
            yield from _regroup(_to_tables(batches, names), rows)


def open_parquet(path: Path) -> ParquetTable:
    """Read the schema of a Parquet file; DataError where it is none."""
    with _readable(path), _map_into_memory(path) as file:
        schema = file.schema_arrow
    return ParquetTable(path, schema, "Parquet", class_names=_read_class_names(schema))


def _read_class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The names of the classes of each column that `datasets` wrote as a ClassLabel."""
    try:
        written = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
        features = written["info"]["features"]
        found = {name: find_class_names(feature) for name, feature in features.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        # Metadata of somebody else, or of an unknown version: the ids are what there is.
        return {}
    return {name: names for name, names in found.items() if names}


def _map_into_memory(path: Path) -> Any:
    """The file mapped into memory, so that no more than a page of it is held.

    Otherwise a whole row group is read, which may be the whole file; `buffer_size` does the same
    where pages are small.
    """
    # Not read_table, which takes a folder such as day=1 above the file for a column of it.
    return pq.ParquetFile(path, memory_map=True, pre_buffer=False)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
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
