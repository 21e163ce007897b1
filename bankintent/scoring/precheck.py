"""Check a whole input table before scoring it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bankintent import files
from bankintent.config import ScoreConfig
from bankintent.corpus import columns
from bankintent.corpus.records import Table
from bankintent.errors import DataError
from bankintent.texts import is_blank

HIDDEN = (".", "_")
"""First characters of names that are no part of a folder of data, such as Spark's `_SUCCESS`."""

MAX_EXAMPLES = 5
"""Most rows without a text that an error names."""


@dataclass(frozen=True)
class InputSummary:
    """An input table that has been read to its end."""

    rows: int
    without_text: int
    size: int
    """Bytes of the file, or of all files of a folder."""
    sha256: str
    """Of the file's bytes; of a folder, of the names and hashes of its files."""
    stamp: tuple[int, int]
    """Size and time of the last change, which tell whether the file has been written since."""


def find_text_index(table: Table, settings: ScoreConfig) -> int:
    """Index of the column of texts.

    Raises DataError where there is no such column, more than one, or one of another type.
    """
    file_name = table.path.name
    name = columns.find_table_text(table, settings.text_column)

    kind = table.schema.field(name).type
    if not _may_hold_text(kind):
        raise DataError(
            f'the column "{name}" of {file_name} holds {kind}, not texts',
            "Name another text_column",
        )
    return table.columns.index(name)


def _may_hold_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    # Arrow gives a column in which every value is null the type null.
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_null,
    )
    return any(test(kind) for test in tests)


def read_through(table: Table, column: int, settings: ScoreConfig) -> InputSummary:
    """Read a table once to its end, and count its rows and those without a text.

    Raises DataError where a row cannot be read, and where `bad_rows: fail` forbids a row without a
    text.
    """
    # Before the first row is read: an edit during the reading is then noticed at the end.
    stamp = _stamp(table.path)
    rows = 0
    without_text = 0
    examples: list[int] = []

    for chunk in table.chunks(settings.chunk_rows, column):
        blank = np.flatnonzero(~has_text(texts_of(chunk)))
        for index in blank[: MAX_EXAMPLES - len(examples)]:
            examples.append(rows + int(index) + 1)
        without_text += len(blank)
        rows += chunk.num_rows

    if without_text and settings.bad_rows == "fail":
        listed = ", ".join(map(str, examples))
        raise DataError(
            f"{without_text:,} of the {rows:,} rows of {table.path.name} have no text, "
            f"the first: row {listed}",
            "Correct them, or keep them without a label: --set bad_rows=keep",
        )
    size, _ = stamp
    return InputSummary(rows, without_text, size, _hash(table.path), stamp)


def source_files(path: Path) -> list[Path]:
    """The files of an input: itself, or the files of a folder by name, hidden ones left out."""
    if not path.is_dir():
        return [path]
    names = sorted(each.name for each in path.iterdir())
    return [path / name for name in names if not name.startswith(HIDDEN)]


def _hash(path: Path) -> str:
    if not path.is_dir():
        return files.sha256(path)
    lines = [f"{each.name} {files.sha256(each)}" for each in source_files(path)]
    return files.sha256_text("\n".join(lines))


def require_unchanged(path: Path, source: InputSummary) -> None:
    """Raise DataError where the input has been written since it was read through."""
    if _stamp(path) != source.stamp:
        raise changed(path)


def changed(path: Path) -> DataError:
    """The error of an input that another process writes while it is read."""
    return DataError(
        f"{path} changed while it was scored", "Run again with --overwrite when nobody writes it"
    )


def texts_of(chunk: pa.Table) -> pa.Array:
    """The only column of a chunk as plain strings."""
    return chunk.column(0).cast(pa.string()).combine_chunks()


def has_text(texts: pa.Array) -> NDArray[np.bool_]:
    """Which texts are neither null nor blank."""
    # Arrow tells the texts that begin with a letter or a digit at once; the rest are few.
    seen = np.array(pc.fill_null(pc.match_substring_regex(texts, "^[0-9A-Za-z]"), False))
    for index in np.flatnonzero(~seen):
        text = texts[index].as_py()
        seen[index] = text is not None and not is_blank(text)
    return seen


def _stamp(path: Path) -> tuple[int, int]:
    size = 0
    times = 0
    # A file that comes or goes changes both sums.
    for each in source_files(path):
        status = each.stat()
        size += status.st_size
        times += status.st_mtime_ns
    return size, times
