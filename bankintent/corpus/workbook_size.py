"""The size of a workbook before it is opened: the library makes a table of all that it claims.

A cell in the last corner of a sheet would be one of 17 billion, and a text that all cells share
would be copied for each.
"""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any
from xml.parsers import expat

from bankintent.corpus import limits

BLOCK = 1 << 16
"""Bytes that are unpacked at a time."""

STRINGS = "sst"
SHEET = "worksheet"
"""Roots of the parts that hold the shared texts and the cells of a sheet."""

LARGEST_PART = 1 << 40
"""More than any part holds."""


def require_small(path: Path) -> None:
    """Raise DataError where a workbook unpacks to far more than it holds.

    A file that is no workbook passes: the library says what is wrong with it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = _read_parts(path, archive)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError):
        return

    strings: list[int] = []
    for part in parts:
        strings += part.strings
    for part in parts:
        limits.require_filled(path, part.rows * part.columns, part.filled)
        _require_texts(path, part, strings)


def _require_texts(path: Path, part: "_Part", strings: list[int]) -> None:
    """Raise DataError where the cells of a sheet have far more text together than the file."""
    shown = 0
    for index, count in part.shared.items():
        if 0 <= index < len(strings):
            shown += count * strings[index]
    size = path.stat().st_size
    if shown > limits.most_unpacked(size):
        raise limits.too_large(path, size)


def _read_parts(path: Path, archive: zipfile.ZipFile) -> list["_Part"]:
    """Every part of a workbook that is XML."""
    size = path.stat().st_size
    left = limits.most_unpacked(size)
    parts = []

    for entry in archive.infolist():
        # The archive's own word on the size of a part is not taken: it may be any number.
        entry.file_size = LARGEST_PART
        part = _Part()
        with archive.open(entry) as file:
            while block := file.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise limits.too_large(path, size)
                part.feed(block)
        parts.append(part)
    return parts


class _Part:
    """What one part of a workbook claims and holds."""

    def __init__(self) -> None:
        self.rows = 0
        """The last row with something in it, counted from 1."""
        self.columns = 0
        self.filled = 0
        """Cells with something in them."""
        self.shared: dict[int, int] = {}
        """Number of a shared text -> cells that show it."""
        self.strings: list[int] = []
        """Characters of each shared text, where this part holds them."""

        self._root: str | None = None
        self._row = 0
        self._column = 0
        self._is_shared = False
        self._text: io.StringIO | None = None
        self._is_xml = True
        self._parser = self._make_parser()

    def feed(self, block: bytes) -> None:
        """Read on; what is no XML is left out."""
        if not self._is_xml:
            return
        try:
            self._parser.Parse(block, False)
        except expat.ExpatError:
            self._is_xml = False

    def _make_parser(self) -> Any:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        return parser

    def _start(self, full_name: str, attributes: dict[str, str]) -> None:
        name = full_name.rpartition(" ")[2]
        if self._root is None:
            self._root = name
            self._is_xml = name in (STRINGS, SHEET)

        if self._root == STRINGS:
            if name == "si":
                self.strings.append(0)
        elif name == "row":
            self._row = _number(attributes.get("r", "")) or self._row + 1
            self._column = 0
        elif name == "c":
            self._start_cell(attributes)
        elif name in ("v", "is"):
            self._fill_cell(name)

    def _start_cell(self, attributes: dict[str, str]) -> None:
        place = attributes.get("r", "")
        letters = place.rstrip("0123456789").upper()
        self._column += 1
        if letters.isascii() and letters.isalpha() and len(letters) <= 4:
            self._column = _column_number(letters)
            self._row = _number(place[len(letters) :]) or self._row
        self._is_shared = attributes.get("t") == "s"

    def _fill_cell(self, name: str) -> None:
        self.filled += 1
        self.rows = max(self.rows, self._row)
        self.columns = max(self.columns, self._column)
        if name == "v" and self._is_shared:
            self._text = io.StringIO()

    def _characters(self, text: str) -> None:
        if self._root == STRINGS and self.strings:
            self.strings[-1] += len(text)
        elif self._text is not None:
            self._text.write(text)

    def _end(self, full_name: str) -> None:
        if self._text is None or full_name.rpartition(" ")[2] != "v":
            return
        index = _number(self._text.getvalue().strip())
        self.shared[index] = self.shared.get(index, 0) + 1
        self._text = None


def _column_number(letters: str) -> int:
    """The number of a column from its letters, counted from 1."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number


def _number(text: str) -> int:
    """The whole number that a text is; 0 where it is none."""
    is_number = text.isascii() and text.isdigit() and len(text) < 12
    return int(text) if is_number else 0
