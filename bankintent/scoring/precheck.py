"""What is wrong with a table of texts, found in one reading before anything is computed with it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bankintent import files
from bankintent.config import ScoreConfig
from bankintent.corpus.sources import TEXT_COLUMNS, find_column
from bankintent.errors import DataError
from bankintent.scoring.tables import Table


@dataclass(frozen=True)
class Survey:
    """What is known of a table once it has been looked through."""

    rows: int
    without_text: int
    size: int
    """Bytes of the file."""
    sha256: str
    """Of the file's bytes."""
    stamp: tuple[int, int]
    """Size and time of change, which tell whether the file is still the same one."""


def find_text(table: Table, settings: ScoreConfig) -> int:
    """Index of the column that holds the texts; DataError where there is no one such column, or it is no text."""
    names = table.schema.names
    name = find_column(names, "text_column", settings.text_column, TEXT_COLUMNS, table.path.name)
    if names.count(name) > 1:
        raise DataError(
            f'{table.path.name} has {names.count(name)} columns "{name}"', "Rename all but one"
        )
    kind = table.schema.field(name).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = (
        pa.types.is_string(value)
        or pa.types.is_large_string(value)
        or pa.types.is_string_view(value)
    )
    if not (is_text or pa.types.is_null(value)):
        raise DataError(
            f'the column "{name}" of {table.path.name} holds {kind}, not texts',
            "Name another text_column",
        )
    return names.index(name)


def look_through(table: Table, column: int, settings: ScoreConfig) -> Survey:
    """Read a table once: how many rows it has, which have no text, and that it can be read to its end."""
    stamp = _stamp(table.path)
    rows, blank = 0, 0
    examples: list[int] = []
    for chunk in table.chunks(settings.chunk_rows, column):
        empty = np.flatnonzero(~has_text(texts_of(chunk)))
        examples += [rows + int(index) + 1 for index in empty[: 5 - len(examples)]]
        blank += len(empty)
        rows += chunk.num_rows
    if blank and settings.bad_rows == "fail":
        first = ", ".join(map(str, examples))
        raise DataError(
            f"{blank:,} of the {rows:,} rows of {table.path.name} have no text, the first: row {first}",
            "Mend them, or keep them without a label: --set bad_rows=keep",
        )
    return Survey(rows, blank, stamp[0], files.sha256(table.path), stamp)


def require_unchanged(path: Path, survey: Survey) -> None:
    """Raise DataError where the input is no longer the file that was looked through."""
    if _stamp(path) != survey.stamp:
        raise changed(path)


def changed(path: Path) -> DataError:
    """The error of an input that somebody writes while it is read."""
    return DataError(
        f"{path} changed while it was scored", "Run again with --overwrite when nobody writes it"
    )


def texts_of(chunk: pa.Table) -> pa.Array:
    """The only column of a chunk as plain strings."""
    return chunk.column(0).cast(pa.string()).combine_chunks()


def has_text(texts: pa.Array) -> NDArray[np.bool_]:
    """Which texts are neither null nor blank."""
    visible = pc.not_equal(pc.utf8_trim_whitespace(texts), "")
    return np.asarray(pc.fill_null(visible, False))


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
