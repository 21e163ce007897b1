"""The files of an export: one file, a folder, or a zip, all seen as files with names."""

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from bankintent.corpus import encoding as encodings
from bankintent.corpus import limits
from bankintent.errors import DataError

MOST_FILES = 20_000
"""Files of a folder or zip that are looked at: an export has a few for each intent."""

LARGEST_ZIP = 1 << 30
"""Bytes of all files of a zip when they are unpacked; a small zip can hold a disk full of zeros."""


@dataclass(frozen=True)
class ExportFile:
    """One file of an export; its content is read when it is asked for, and kept."""

    name: str
    """Its path within the folder or zip, with forward slashes; the name of a file as such."""
    read: Callable[[], bytes]
    encoding: str | None = None
    """The encoding of a file that is no Unicode, where the config names one."""

    @property
    def ending(self) -> str:
        """The last ending of its name in lower case, for example `.json`."""
        return PurePosixPath(self.name).suffix.lower()

    @cached_property
    def text(self) -> str:
        """The content as text with line breaks as `\\n`; DataError where it is no Unicode."""
        content = self.read()
        for mark, codec in encodings.BYTE_ORDER_MARKS.items():
            if content.startswith(mark):
                return _decode(self.name, content, codec)
        if self.encoding is None:
            return _decode(self.name, content, "utf-8")
        try:
            return _plain_breaks(content.decode("utf-8"))
        except UnicodeDecodeError:
            return _decode(self.name, content, self.encoding)

    @cached_property
    def json(self) -> Any:
        """The content as JSON; None where it is none.

        It is for finding out what a file is. `require_json` says what is wrong with a file.
        """
        try:
            return json.loads(self.text)
        except (DataError, ValueError, RecursionError):
            return None

    def peek(self) -> str:
        """The text for finding out what a file is; empty where it cannot be read at all.

        A file in an unknown encoding is read somehow: whoever reads it says what is wrong with it.
        """
        try:
            return self.text
        except DataError:
            pass
        try:
            # Every byte is a letter of Latin-1.
            return self.read().decode("latin-1")
        except (DataError, OSError):
            return ""

    def fault(self, line: int, found: str, next_step: str = "") -> DataError:
        """An error that names a line of the file."""
        return DataError(f"{self.name} line {line}: {found}", next_step)

    def require_json(self) -> Any:
        """The content as JSON; DataError names the line at which it is none."""
        try:
            return json.loads(self.text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{self.name} line {error.lineno} is not JSON ({error.msg})",
                "Correct that line, or export it again",
            ) from None
        except RecursionError:
            raise DataError(f"{self.name} is nested too deep to be read") from None


def _decode(name: str, content: bytes, codec: str) -> str:
    try:
        return _plain_breaks(content.decode(codec))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name} line {line} is not {encodings.encoding_in_words(codec)}",
            "Name its encoding, for example --set encoding=cp1252",
        ) from None


def _plain_breaks(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class ExportFiles:
    """The files of one source, in the order of their names."""

    path: Path
    """The file, folder or zip as the user names it."""
    files: tuple[ExportFile, ...]

    @property
    def is_single(self) -> bool:
        """Whether the source is one file, and neither a folder nor a zip."""
        return len(self.files) == 1 and self.files[0].name == self.path.name

    def with_ending(self, *endings: str) -> Iterator[ExportFile]:
        """The files whose last ending, in lower case, is one of these."""
        for file in self.files:
            if file.ending in endings:
                yield file

    def find(self, name: str) -> ExportFile | None:
        """The file of this name; None where there is none."""
        for file in self.files:
            if file.name == name:
                return file
        return None


def open_files(path: Path, encoding: str | None = None) -> ExportFiles:
    """The files of a folder (hidden ones left out), of a zip, or the one file that it is.

    Raises DataError for a damaged zip, and where a folder or zip holds far too much.
    """
    if path.is_dir():
        return ExportFiles(path, tuple(_files_of_folder(path, encoding)))
    if path.suffix.lower() == ".zip":
        return ExportFiles(path, tuple(_files_of_zip(path, encoding)))
    return ExportFiles(path, (ExportFile(path.name, path.read_bytes, encoding),))


def _files_of_folder(folder: Path, encoding: str | None) -> Iterator[ExportFile]:
    count = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue

        count += 1
        _require_few(folder, count)
        yield ExportFile("/".join(parts), path.read_bytes, encoding)


def _files_of_zip(path: Path, encoding: str | None) -> Iterator[ExportFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} is no zip that can be read ({error})", "Export it again") from None

    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _require_few(path, len(entries))
    unpacked = sum(entry.file_size for entry in entries)
    size = path.stat().st_size
    if unpacked > limits.most_unpacked(size):
        raise limits.too_large(path, size)
    if unpacked > LARGEST_ZIP:
        raise DataError(
            f"{path} unpacks to more than {LARGEST_ZIP >> 20:,} MiB",
            "Name the one file of it that holds the sentences",
        )

    for entry in sorted(entries, key=lambda entry: entry.filename):
        parts = PurePosixPath(entry.filename).parts
        if not any(part.startswith((".", "__MACOSX")) for part in parts):
            yield ExportFile(entry.filename, _reader(archive, entry, path), encoding)


def _reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return archive.read(entry)
        # A password is a RuntimeError.
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DataError(
                f"{path}: {entry.filename} cannot be unpacked ({error})", "Export it again"
            ) from None

    return read


def _require_few(path: Path, count: int) -> None:
    if count > MOST_FILES:
        raise DataError(
            f"{path} holds more than {MOST_FILES:,} files",
            "Name the file or folder that holds the sentences",
        )
