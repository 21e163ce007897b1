"""How much a file may unpack to: columns, cells, bytes. Memory stays linear in what a file holds.

A small file can claim a huge table: a header of commas over short rows, a cell in the last corner
of a sheet, a text that a million rows share, an archive of zeros. Each is refused in one line while
it is read. A table of any length passes, as long as its file holds what the table shows.
"""

import contextlib
import gzip
import io
import zlib
from pathlib import Path
from typing import Any

from bankintent.errors import DataError

MOST_COLUMNS = 16_384
"""Columns of a table; as many as a sheet of Excel has."""

SPARE_CELLS = 10_000_000
"""Cells that a table may always have, the empty ones among them."""

CELLS_PER_CELL = 16
"""Cells that it may have beyond those for each one that its file holds."""

CELLS_OF_LINE = 1_000_000
"""Most delimiters of one line of a CSV, within quotes too."""

SPARE_BYTES = 1 << 26
"""Bytes that a compressed file may always unpack to."""

BYTES_PER_BYTE = 100
"""Bytes that it may unpack to beyond those for each of its own: texts reach 5 to 30."""

BLOCK = 1 << 20
"""Bytes that are unpacked at a time."""

NARROWER = "Leave out the columns that are not needed"
ANEW = "Save it again without what stands far from its rows"


def require_columns(path: Path, count: int) -> None:
    """Raise DataError where a table has more than MOST_COLUMNS columns."""
    if count > MOST_COLUMNS:
        found = f"{path} has more than {MOST_COLUMNS:,} columns"
        raise DataError(found, NARROWER)


def require_filled(path: Path, cells: int, filled: int) -> None:
    """Raise DataError where a table has far more cells than the `filled` ones of its file."""
    if cells > SPARE_CELLS + CELLS_PER_CELL * filled:
        found = f"{path} makes a table of {cells:,} cells and fills {filled:,} of them"
        raise DataError(found, f"{ANEW}, or with fewer columns")


def require_few_blank(path: Path, blank: int, rows: int) -> None:
    """Raise DataError where a file has far more blank lines than rows."""
    if blank > SPARE_CELLS + CELLS_PER_CELL * rows:
        raise DataError(f"{path} has {blank:,} blank lines among {rows:,} rows", "Remove them")


def require_rows(path: Path, count: int, most: int | None) -> None:
    """Raise DataError where a table has more than `most` rows; None allows any number."""
    if most is not None and count > most:
        raise DataError(f"{path} holds more than {most:,} rows", "Split it, or use `score`")


def most_unpacked(size: int) -> int:
    """Most bytes that a compressed file of this size may unpack to."""
    return SPARE_BYTES + BYTES_PER_BYTE * size


def too_large(path: Path, size: int) -> DataError:
    """The error of a file of this size that unpacks to more than `most_unpacked` of it."""
    return larger(path, most_unpacked(size))


def larger(path: Path, most: int) -> DataError:
    """The error of a file that unpacks to more than `most` bytes."""
    return DataError(
        f"{path} unpacks to more than {most >> 20:,} MiB",
        "Export it again, with the sentences and their intents alone",
    )


def require_unpacked(path: Path, most: int) -> None:
    """Raise DataError where a gzipped file unpacks to more than `most` bytes.

    A file that is damaged passes: its reader says what is wrong with it.
    """
    with contextlib.suppress(OSError, EOFError, zlib.error), open_gzip(path) as file:
        count = 0
        while block := file.read(BLOCK):
            count += len(block)
            if count > most:
                raise larger(path, most)


def open_gzip(path: Path) -> io.BufferedReader:
    """The bytes of a gzipped file; reading raises DataError where they are far too many."""
    return io.BufferedReader(_BoundedGzip(path), 1 << 16)


class _BoundedGzip(io.RawIOBase):
    """The unpacked bytes of a file, up to the most that its size allows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._left = most_unpacked(self._size)
        self._file = gzip.open(path, "rb")  # noqa: SIM115 (closed by `close`)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise too_large(self._path, self._size)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
