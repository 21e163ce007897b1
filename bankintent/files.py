"""Files and folders that are whole or not there: written to a staging place, then renamed."""

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

TEMPORARY = ".*.tmp"
"""Names that `staged` gives to files that are not yet whole."""


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Hex digest of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_text(value: Any) -> str:
    """Readable JSON with a final newline; NaN and infinity are our own bugs and raise ValueError."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a reader sees the old content or the new one, never a part."""
    with staged(path) as staging, staging.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; when the block ends well, it replaces `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


def make_empty(folder: Path) -> Path:
    """Make a folder, without what an earlier process left in it; returns the folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


@dataclass(frozen=True)
class ResultFolder:
    """The layout of a folder that one command writes whole and replaces whole."""

    kind: str
    """What to call it in a message, for example "evaluation report"."""
    patterns: tuple[str, ...]
    """Names that its files may have, as `fnmatch` patterns of paths relative to the folder."""

    def first_foreign(self, folder: Path) -> str | None:
        """The first file that does not belong to such a folder; None where all do."""
        patterns = (*self.patterns, TEMPORARY)
        for name in list_files(folder):
            if not any(fnmatch(name, pattern) for pattern in patterns):
                return name
        return None

    def require_replaceable(self, folder: Path) -> None:
        """Raise OutputError where `folder` holds anything that such a folder does not."""
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
    """Yield an empty staging folder; when the block ends well, it takes the place of `folder`.

    One process at a time writes a folder. What a killed writer left in the staging folder is
    removed. Raises OutputError where either place holds files that are not of this layout.
    """
    layout.require_replaceable(folder)
    with exclusive(folder) as staging:
        layout.require_replaceable(staging)
        make_empty(staging)
        yield staging
        publish(staging, folder)


@contextlib.contextmanager
def exclusive(final: Path) -> Iterator[Path]:
    """Hold the work folder of `final` for this process alone and yield it.

    Raises OutputError where another process holds it. The lock file is a sibling of the work
    folder, which may be removed and made anew while the lock is held.
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
        # Removed while it is held: nobody may wait for a lock on a file that is gone.
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
    if final.exists():
        final.rename(old)
    staging.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def recover(final: Path) -> None:
    """Undo a publication that was killed between its two renames."""
    old = final.with_name(f"{final.name}.old")
    if old.exists() and not final.exists():
        old.rename(final)
