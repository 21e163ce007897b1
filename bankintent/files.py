"""Files and folders that appear whole or not at all: written under another name, then renamed."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bankintent.errors import OutputError

JsonObject = dict[str, Any]
"""A JSON object as plain Python values."""

LINKED_BYTES = 65536
"""Smallest file that a second name is given for instead of a copy. Cards and labels, which people
edit in place, are smaller: their copies stay what they were."""

TEMPORARY = ".*.tmp"
"""Pattern of the names under which `staged` writes files. A killed process may leave one behind."""


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(content: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_text(text: str) -> str:
    """Hex digest of a text's UTF-8 bytes."""
    return sha256_bytes(text.encode())


def json_text(value: Any) -> str:
    """Readable JSON with a final newline; NaN and infinity raise ValueError."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a reader sees the old content or the new one."""
    # The same bytes on every system: hashes of these files are recorded.
    with staged(path) as staging, staging.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)

        # On disk before the rename: a power cut must not leave an empty file under the new name.
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a temporary path; if the block succeeds, it replaces `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)

    # A sibling, since a rename is atomic within one file system; one for each process.
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")

    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def work_dir(final: Path) -> Path:
    """The folder for work in progress on `final`: its sibling `<final>.work/`."""
    return final.with_name(f"{final.name}.work")


def list_files(folder: Path) -> list[str]:
    """Every file below a folder as sorted posix paths relative to it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def link(source: Path, target: Path) -> bool:
    """Make `target` another name of the file `source`; a copy where the disk has no hard links.

    Returns whether it takes no space of its own. A file with several names must never be written in
    place: `write_text` and `staged` replace it instead.
    """
    is_small = source.stat().st_size < LINKED_BYTES
    if not is_small:
        # Another disk, a file system without links, a system that refuses links to foreign files.
        with contextlib.suppress(OSError):
            os.link(source, target)
            return True

    shutil.copyfile(source, target)
    return is_small


def link_tree(source: Path, target: Path) -> bool:
    """Make the folder `target` with the files of `source`, each by `link`.

    Returns whether no large file was copied.
    """
    are_linked = []
    for name in list_files(source):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        are_linked.append(link(source / name, path))
    return all(are_linked)


def share_identical(folder: Path) -> None:
    """Store large files of the same content once, where the file system has hard links."""
    by_size: dict[int, list[Path]] = {}
    for name in list_files(folder):
        path = folder / name
        by_size.setdefault(path.stat().st_size, []).append(path)

    for size, paths in by_size.items():
        # Only files of one size can be the same: most are never read.
        if size >= LINKED_BYTES and len(paths) > 1:
            _share_same(paths)


def _share_same(paths: list[Path]) -> None:
    first_of: dict[str, Path] = {}
    for path in paths:
        first = first_of.setdefault(sha256(path), path)
        if first.samefile(path):
            continue
        with contextlib.suppress(OSError), staged(path) as staging:
            os.link(first, staging)


def make_empty(folder: Path) -> Path:
    """Make an empty folder in place of an earlier one, and return it."""
    if folder.exists():
        shutil.rmtree(folder)

    folder.mkdir(parents=True)
    return folder


@dataclass(frozen=True)
class ResultFolder:
    """The layout of a folder that a command writes and replaces as a whole."""

    kind: str
    """Its name in messages, for example "evaluation report"."""
    patterns: tuple[str, ...]
    """The files that it may hold, as `fnmatch` patterns of paths relative to the folder."""

    def first_foreign(self, folder: Path) -> str | None:
        """The first file that does not belong to such a folder; None where all do."""
        patterns = (*self.patterns, TEMPORARY)

        for name in list_files(folder):
            if not any(fnmatch(name, pattern) for pattern in patterns):
                return name

        return None

    def require_replaceable(self, folder: Path) -> None:
        """Raise OutputError where `folder` is a file or holds a file that is not of this layout.

        So a wrong output_dir never costs a user other files.
        """
        recover(folder)
        if not folder.exists():
            return
        if not folder.is_dir():
            raise OutputError(f"{folder} is a file", "Name another output_dir")

        foreign = self.first_foreign(folder)
        if foreign is not None:
            raise OutputError(
                f"{folder} exists and is no {self.kind}: it holds {foreign}",
                "Move that away, or name another output_dir",
            )


@contextlib.contextmanager
def replacing(folder: Path, layout: ResultFolder) -> Iterator[Path]:
    """Yield an empty staging folder; if the block succeeds, it replaces `folder`.

    One process at a time writes a folder. Files that a killed process left in the staging folder
    are removed. Raises OutputError where either folder holds files that are not of this layout.
    """
    layout.require_replaceable(folder)

    with exclusive(folder) as staging:
        # It is emptied, and may be a folder of the user's that has this name by chance.
        layout.require_replaceable(staging)
        make_empty(staging)

        yield staging
        publish(staging, folder)


@contextlib.contextmanager
def exclusive(final: Path) -> Iterator[Path]:
    """Hold the work folder of `final` for this process alone and yield it.

    Raises OutputError where another process holds it. The lock file is a sibling of the work
    folder, because that may be removed and made again while the lock is held.
    """
    final.parent.mkdir(parents=True, exist_ok=True)

    lock = FileLock(final.with_name(f".{final.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"{final} is being written by another process",
            "Wait for it to end, or name another output_dir",
        ) from None

    try:
        yield work_dir(final)
    finally:
        # Removed while it is held: another process could already hold it after the release.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def publish(staging: Path, final: Path) -> None:
    """Put the finished folder `staging` in the place of `final`.

    Replacing takes two renames. A kill between them leaves the former folder as `<final>.old`,
    which the next call of `recover` puts back.
    """
    old = final.with_name(f"{final.name}.old")
    if old.exists():
        shutil.rmtree(old)

    # A rename cannot replace a folder that holds files.
    if final.exists():
        final.rename(old)
    staging.rename(final)

    # The new folder is published: a remnant of the old one is no reason to fail.
    shutil.rmtree(old, ignore_errors=True)


def recover(final: Path) -> None:
    """Undo a publication that was killed between its two renames."""
    old = final.with_name(f"{final.name}.old")
    if old.exists() and not final.exists():
        old.rename(final)
