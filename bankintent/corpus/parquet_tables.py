"""Reader of Parquet files of any length: every column keeps its type."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bankintent.corpus import limits
from bankintent.corpus.class_names import find_class_names, name_class
from bankintent.corpus.records import Record, Table, regroup, rows_at_once
from bankintent.errors import DataError

ROWS = 1 << 13
"""Most rows that are turned into Python values at a time."""

BYTES_AT_ONCE = 1 << 28
"""Most bytes of the texts of a batch: many rows may show one text, which the file holds once."""

PAGE_HEADER = 32
"""Bytes of the header of a page that are looked at."""

NEXT_NUMBER = 0x15
"""In Thrift's compact form: the next field, a 32-bit number."""

METADATA = b"huggingface"
"""Key of the schema's metadata under which the library `datasets` writes its features as JSON."""


@dataclass(frozen=True)
class ParquetTable(Table):
    """A Parquet file."""

    def records(self) -> Iterator[Record]:
        number = 0
        for chunk in self.chunks(rows_at_once(ROWS, len(self.schema))):
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
            few = min(rows, _rows_of_batch(self.path, file.metadata))
            batches = file.iter_batches(few, columns=names, use_threads=False)
            small = _require_small(self.path, _to_tables(batches, names))
            yield from regroup(small, rows)


def open_parquet(path: Path) -> ParquetTable:
    """Read the schema of a Parquet file; DataError where it is none."""
    with _readable(path), _map_into_memory(path) as file:
        schema = file.schema_arrow
        limits.require_columns(path, file.metadata.num_columns)
        _require_rows(path, file.metadata.num_rows)
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


def _require_rows(path: Path, count: int) -> None:
    """Raise DataError where a file has far more rows than it can hold: one row, many times."""
    size = path.stat().st_size
    if count > limits.SPARE_CELLS + limits.BYTES_PER_BYTE * size:
        raise DataError(f"{path} has {size:,} bytes and claims {count:,} rows", "Save it again")


def _rows_of_batch(path: Path, metadata: pq.FileMetaData) -> int:
    """Rows that are read at a time, so that their texts stay within BYTES_AT_ONCE."""
    longest = 1
    with path.open("rb") as file:
        for group_index in range(metadata.num_row_groups):
            group = metadata.row_group(group_index)
            columns = map(group.column, range(group.num_columns))
            longest = max(longest, sum(_longest_shared(file, column) for column in columns))
    return max(1, min(ROWS, BYTES_AT_ONCE // longest))


def _longest_shared(file: BinaryIO, column: pq.ColumnChunkMetaData) -> int:
    """Most bytes of a text that several rows of a column share; 0 where each has its own."""
    if column.physical_type != "BYTE_ARRAY":
        return 0
    # There each text may go on from the one before it.
    if "DELTA_BYTE_ARRAY" in column.encodings:
        return int(column.total_uncompressed_size)
    if column.dictionary_page_offset is None:
        return 0

    # A dictionary has each text once, and no text is longer than all of it.
    file.seek(column.dictionary_page_offset)
    size = _unpacked_page_size(file.read(PAGE_HEADER))
    return int(column.total_uncompressed_size) if size is None else size


def _unpacked_page_size(header: bytes) -> int | None:
    """The second field of a page's header, in Thrift's compact form; None where it is none."""
    kind_end = _end_of_number(header, 1)
    end = _end_of_number(header, kind_end + 1)
    # Each field is a 32-bit number, one further than the field before it.
    if end > len(header) or header[0] != NEXT_NUMBER or header[kind_end] != NEXT_NUMBER:
        return None

    value = 0
    for index, byte in enumerate(header[kind_end + 1 : end]):
        value |= (byte & 0x7F) << (7 * index)
    # The lowest bit is the sign.
    return value >> 1


def _end_of_number(header: bytes, start: int) -> int:
    """The place behind a number of several bytes, of which the last is below 128."""
    end = start
    while end < len(header) and header[end] >= 0x80:
        end += 1
    return end + 1


def _require_small(path: Path, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same tables; DataError where they become far larger than their file."""
    size = path.stat().st_size
    left = limits.most_unpacked(size)
    for table in tables:
        left -= sum(map(_unpacked_size, table.columns))
        if left < 0:
            raise limits.too_large(path, size)
        yield table


def _unpacked_size(column: pa.ChunkedArray) -> int:
    """Bytes of a column with the value of each row in its place."""
    size = 0
    for chunk in column.chunks:
        size += chunk.nbytes
        is_text = pa.types.is_dictionary(chunk.type) and pa.types.is_string(chunk.type.value_type)
        if is_text:
            lengths = pc.binary_length(chunk.dictionary)
            size += pc.sum(lengths.take(chunk.indices)).as_py() or 0
    return size


def _to_tables(batches: Iterable[pa.RecordBatch], names: list[str] | None) -> Iterator[pa.Table]:
    for batch in batches:
        table = pa.Table.from_batches([batch])
        if names is not None:
            # Reading a column `a` by name also brings the columns `a.b`.
            table = table.select(names)
        yield table
