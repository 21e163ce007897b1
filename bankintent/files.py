"""Files and folders that are whole or not there: written beside their place, then renamed."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bankintent.errors import OutputError


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
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with staging.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def work_dir(final: Path) -> Path:
    """Where work in progress for the folder `final` lives: its sibling `<final>.work/`."""
    return final.with_name(f"{final.name}.work")


def list_files(folder: Path) -> list[str]:
    """Every file below a folder as sorted posix paths relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def exclusive(final: Path) -> Iterator[Path]:
    """Hold the work folder of `final` for this process alone and yield it.

    Raises OutputError where another process holds it. The lock stands beside the work folder, which may be removed
    and made anew while it is held.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(final.with_name(f".{final.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"{final} is being written by another process", "Wait for it to end, or name another output_dir"
        ) from None
    try:
        yield work_dir(final)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held, so that nobody can wait on a file that is gone
        lock.release()


def publish(staging: Path, final: Path) -> None:
    """Put the finished folder `staging` in the place of `final`.

    Replacing takes two renames; a kill between them leaves the old folder as `<final>.old`, which the next call of
    `recover` puts back.
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
