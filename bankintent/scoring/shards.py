"""An input of several files: a folder of tables with the same columns, as clusters write them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent.config import TableKeys
from bankintent.corpus import tables
from bankintent.corpus.records import Record, Table, regroup
from bankintent.errors import DataError
from bankintent.scoring import precheck

MOST_READERS = 8
"""Most ranges that an input is divided into: reading is far faster than any model."""


@dataclass(frozen=True)
class ShardedTable(Table):
    """The files of a folder, one after another in the order of their names."""

    shards: tuple[Table, ...] = ()

    def records(self) -> Iterator[Record]:
        for shard in self.shards:
            yield from shard.records()

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        yield from regroup(self._chunks_of_files(rows, column), rows)

    def _chunks_of_files(self, rows: int, column: int | None) -> Iterator[pa.Table]:
        for shard in self.shards:
            yield from shard.chunks(rows, column)


def open_input(path: Path, keys: TableKeys) -> Table:
    """A table, or the tables of a folder as one.

    Raises DataError where there is none, or where the files differ in their endings or columns.
    """
    if not path.is_dir():
        return tables.open_table(path, keys)

    shards = [tables.open_table(file, keys) for file in precheck.source_files(path)]
    if not shards:
        raise DataError(
            f"{path} is a folder, not a file, and holds no table",
            f"Expected files with the ending {tables.ENDINGS_IN_WORDS}",
        )

    first = shards[0]
    for shard in shards[1:]:
        _require_alike(first, shard)
    count = "1 file" if len(shards) == 1 else f"{len(shards)} files"
    return ShardedTable(
        path,
        first.schema,
        f"{first.format}, {count}",
        delimiter=first.delimiter,
        encoding=first.encoding,
        sheet=first.sheet,
        class_names=first.class_names,
        header=first.header,
        shards=tuple(shards),
    )


def _require_alike(first: Table, other: Table) -> None:
    """Raise DataError where two files of a folder cannot be read as one table."""
    if tables.find_ending(first.path) != tables.find_ending(other.path):
        raise DataError(
            f"{other.path} has another ending than {first.path.name}",
            "A folder of tables has files of one format",
        )
    if not first.schema.equals(other.schema) or first.class_names != other.class_names:
        raise DataError(
            f"{other.path} has other columns than {first.path.name}",
            "The files of a folder have the same columns, with the same types, in the same order",
        )


def read_texts(
    table: Table, column: int, chunk_rows: int, numbers: list[int]
) -> Iterator[tuple[int, pa.Array]]:
    """Number and texts of some chunks of a table; `numbers` rise.

    The files before the first of them are not read where their lengths are known.
    """
    first = numbers[0]
    wanted = set(numbers)
    rest, skipped = _starting_at(table, first * chunk_rows)
    later = _skip(rest.chunks(chunk_rows, column), first * chunk_rows - skipped)

    for number, chunk in enumerate(regroup(later, chunk_rows), start=first):
        if number in wanted:
            yield number, precheck.texts_of(chunk)
        if number == numbers[-1]:
            return


def ranges(table: Table, numbers: list[int]) -> list[list[int]]:
    """The chunks with these numbers in ranges that are read side by side.

    Of a file the end cannot be read without the beginning, unless it is one of several whose
    lengths are known.
    """
    readers = 1
    if isinstance(table, ShardedTable) and _is_parquet(table.shards[0]):
        readers = min(len(table.shards), len(numbers), MOST_READERS)

    size = -(-len(numbers) // readers)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _starting_at(table: Table, row: int) -> tuple[Table, int]:
    """The table from the file that holds a row, and the number of rows before that file."""
    if not isinstance(table, ShardedTable) or not _is_parquet(table.shards[0]):
        return table, 0

    before = 0
    for index, shard in enumerate(table.shards):
        rows = pq.read_metadata(shard.path).num_rows
        if before + rows > row:
            return ShardedTable(table.path, table.schema, "", shards=table.shards[index:]), before
        before += rows
    return table, 0


def _is_parquet(table: Table) -> bool:
    return tables.find_ending(table.path) == ".parquet"


def _skip(chunks: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The chunks without the first `rows` rows."""
    left = rows
    for chunk in chunks:
        rest = chunk.slice(min(left, chunk.num_rows))
        left -= chunk.num_rows - rest.num_rows
        if rest.num_rows:
            yield rest
