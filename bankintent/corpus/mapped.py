"""Rows that stay on disk: tables of which the system keeps in memory what is being read."""

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_AT_ONCE = 16_384
"""Rows that are in memory while a table is written, or read from its start to its end."""


class MappedColumn(Sequence[Any]):
    """One column of a mapped table: a list that is not in memory."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...

    def __getitem__(self, place: int | slice) -> Any:
        """A value; of a slice the list of its values."""
        if isinstance(place, slice):
            return [self._values[row].as_py() for row in range(*place.indices(len(self)))]
        return self._values[place].as_py()

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            yield from self._values.slice(start, ROWS_AT_ONCE).to_pylist()


def read_batches(parquet: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a Parquet file, some at a time, with the columns and types of `schema`."""
    for batch in pq.ParquetFile(parquet).iter_batches(ROWS_AT_ONCE, columns=schema.names):
        yield pa.Table.from_batches([batch]).cast(schema)


def map_tables(tables: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> pa.Table:
    """The tables, one after the other, as one table in a file of `folder` that is mapped.

    The file has no name: it is gone when the table is, or the process ends, however that comes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for table in tables:
                writer.write_table(table)
        file.flush()
        # The mapping outlives the open file.
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(pages))).read_all()
