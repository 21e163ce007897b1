"""Clean rows on disk, in a Parquet file, and what is known of each of them in memory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bankintent import progress
from bankintent.config import DataConfig
from bankintent.corpus import cleaning
from bankintent.corpus.cleaning import Example, normalised_texts
from bankintent.corpus.large.reading import Stream
from bankintent.corpus.refusals import RefusedRow
from bankintent.corpus.rows import Reading
from bankintent.errors import DataError

CHUNK = 10_000
"""Rows that are Python values at a time."""

MEMORY = "1GB"
"""Memory of DuckDB; what needs more is kept in files beside the output while ETL runs."""

MOST_REFUSED = 200_000
"""Refused rows that are listed; more of them are an error."""

ROWS = "rows.parquet"
TEXTS = "texts.parquet"

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), ("normalised", pa.string())])

FETCHED = {
    "id": "SELECT n, id FROM rows JOIN wanted ON n = file_row_number",
    "text": "SELECT n, text FROM rows JOIN wanted ON n = file_row_number",
    "normalised": "SELECT n, normalised FROM texts JOIN wanted ON n = file_row_number",
}
"""How a column of some rows is asked for, and the normalised form of some texts."""

Ints = NDArray[np.int32]


@dataclass
class Spool:
    """Clean rows, in the order of the source; the arrays are aligned with them."""

    folder: Path
    names: list[str]
    """Labels in the order in which they were seen."""
    parts: list[str]
    """The source's splits, in order."""
    part: NDArray[np.int8]
    """Of each row the number of its part."""
    label: Ints
    """Of each row the place of its label in `names`; -1 where it was dropped since."""
    words: Ints
    characters: Ints
    refused: list[RefusedRow]
    reading: list[Reading]
    text: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    """Of each row the number of its normalised text among all of them, sorted."""
    texts: int = 0
    """How many different texts there are."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of each intent by part, both in order; intents in alphabetical order."""
        counts: dict[str, dict[str, int]] = {}
        for number, part in enumerate(self.parts):
            counts[part] = self.count_labels(np.flatnonzero(self.part == number))
        return counts

    def count_labels(self, rows: NDArray[np.int64]) -> dict[str, int]:
        """Rows of each intent among those of these numbers, in alphabetical order."""
        labels = self.label[rows]
        sizes = np.bincount(labels[labels >= 0], minlength=len(self.names)).tolist()
        found = {name: size for name, size in zip(self.names, sizes, strict=True) if size}
        return dict(sorted(found.items()))


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory, which puts what is over its limit into files of the folder."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(folder / "spill"),
        "threads": 2,
    }
    database = duckdb.connect(":memory:", config=settings)
    # The steps of ETL say themselves what they do.
    database.execute("SET enable_progress_bar = false")
    return database


@dataclass
class _Columns:
    """What is gathered of the rows, chunk by chunk."""

    part: list[NDArray[np.int8]] = field(default_factory=list)
    label: list[Ints] = field(default_factory=list)
    words: list[Ints] = field(default_factory=list)
    characters: list[Ints] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    """Of each label."""

    def add(self, part: int, examples: list[Example]) -> None:
        numbers = self.numbers
        labels = [numbers.setdefault(row.label_text, len(numbers)) for row in examples]
        self.part.append(np.full(len(examples), part, dtype=np.int8))
        self.label.append(np.array(labels, dtype=np.int32))
        words = [len(row.text.split()) for row in examples]
        self.words.append(np.array(words, dtype=np.int32))
        characters = [len(row.text) for row in examples]
        self.characters.append(np.array(characters, dtype=np.int32))


def fill(stream: Stream, folder: Path, config: DataConfig) -> Spool:
    """Clean all rows of a source into the folder.

    Raises DataError where more than MOST_REFUSED rows are refused, and like the source's reader.
    """
    # Of the whole source: 3.0 is the intent 3 in every split of it, or in none.
    whole_labels = all(piece.whole_labels for piece in stream.pieces)
    parts = list(dict.fromkeys(piece.part for piece in stream.pieces))
    columns = _Columns()
    refused: list[RefusedRow] = []
    reading = []

    with pq.ParquetWriter(folder / ROWS, SCHEMA, compression="zstd") as writer:
        for piece in stream.pieces:
            count = 0
            clock = progress.LogClock()
            rows = piece.rows()
            while chunk := list(islice(rows, CHUNK)):
                count += len(chunk)
                examples, bad = cleaning.clean(chunk, config.max_chars, True, whole_labels)
                columns.add(parts.index(piece.part), examples)
                writer.write_table(_to_table(examples))
                refused += bad
                _require_listable(refused)
                if clock.is_due():
                    progress.say_rows("Cleaning", count)
            reading.append(piece.reading(count))

    return Spool(
        folder,
        list(columns.numbers),
        parts,
        _join(columns.part, np.int8),
        _join(columns.label, np.int32),
        _join(columns.words, np.int32),
        _join(columns.characters, np.int32),
        refused,
        reading,
    )


def _join(arrays: list[Any], kind: Any) -> Any:
    return np.concatenate([np.empty(0, dtype=kind), *arrays])


def _require_listable(refused: list[RefusedRow]) -> None:
    if len(refused) > MOST_REFUSED:
        raise DataError(
            f"more than {MOST_REFUSED:,} rows cannot be used, the first at {refused[0].place}"
            f" ({refused[0].reason})",
            "Correct them, or name the right columns",
        )


def _to_table(examples: list[Example]) -> pa.Table:
    columns = {
        "id": [row.id for row in examples],
        "text": [row.text for row in examples],
        "normalised": normalised_texts(examples),
    }
    return pa.table(columns, schema=SCHEMA)


def number_texts(spool: Spool, database: duckdb.DuckDBPyConnection) -> None:
    """Sort the different normalised texts into a file, and note the text of each row.

    Both files become views of the database: `rows` and `texts`.
    """
    _view(database, spool.folder / ROWS, "rows")
    # DuckDB compares the bytes of UTF-8, whose order is that of code points.
    texts = database.sql("SELECT normalised FROM rows GROUP BY normalised ORDER BY normalised")
    texts.write_parquet(str(spool.folder / TEXTS), compression="zstd", row_group_size=61440)
    _view(database, spool.folder / TEXTS, "texts")
    spool.texts = pq.read_metadata(spool.folder / TEXTS).num_rows

    spool.text = np.empty(len(spool.label), dtype=np.int32)
    found = database.sql(
        "SELECT r.file_row_number AS r, t.file_row_number AS t"
        " FROM rows r JOIN texts t ON r.normalised = t.normalised"
    )
    for batch in found.to_arrow_reader(1 << 16):
        spool.text[batch["r"].to_numpy()] = batch["t"].to_numpy()


def _view(database: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    database.read_parquet(str(path), file_row_number=True).create_view(name)


def iterate_texts(spool: Spool) -> Iterator[list[str]]:
    """The sorted normalised texts, some at a time."""
    with pq.ParquetFile(spool.folder / TEXTS) as file:
        for batch in file.iter_batches(2000):
            yield batch.column(0).to_pylist()


def fetch(database: duckdb.DuckDBPyConnection, column: str, numbers: NDArray[Any]) -> list[str]:
    """The values of a column of FETCHED for rows (or texts) of these numbers, in their order."""
    wanted = pa.table({"n": pa.array(np.unique(numbers), pa.int64())})
    database.register("wanted", wanted)
    found = dict(database.execute(FETCHED[column]).fetchall())
    database.unregister("wanted")
    return [found[number] for number in numbers.tolist()]


def count_all(spool: Spool) -> Counter[str]:
    """Rows of each label over all parts."""
    return Counter(spool.count_labels(np.arange(len(spool.label))))
