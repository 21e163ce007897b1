"""Where a result is written, under which name until it is whole, and what a killed process left.

What is in work for a place has a name beside it that says which process works on it. So what a
process that has ended left there can be told from what is in use, and from files of the user.
"""

import contextlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from bankintent.errors import OutputError

TEMPORARY = ".*.tmp"
"""Pattern of the names of files and folders in work."""

MACHINE = sha256(platform.node().encode()).hexdigest()[:8]
"""This machine or container: the number of a process says nothing on another one."""

FORGOTTEN_SECONDS = 24 * 60 * 60
"""Age from which nothing of another machine is in work."""


def place(path: Path) -> Path:
    """Where the result `path` is written: behind links, so that they stay what they are.

    Raises OutputError for links that lead to each other, and for the root of the disk.
    """
    has_plain_name = path.name not in ("", "..")
    if has_plain_name and not path.is_symlink() and path.parent.is_dir():
        return path

    real = Path(os.path.realpath(path))
    if any(part.is_symlink() for part in (real, *real.parents)):
        raise OutputError(f"{path} is a link that leads to itself", "Name another output")
    if not real.name:
        raise OutputError(f"{path} has no folder above it", "Name another output")
    return path if has_plain_name and real == path.absolute() else real


def temporary(path: Path) -> Path:
    """The name under which this process works on `path`: a sibling, hidden.

    A rename is atomic within one file system.
    """
    return path.with_name(f".{path.name}.{MACHINE}-{os.getpid()}.tmp")


def leftovers(path: Path) -> list[Path]:
    """Files and folders in work for `path` whose process has ended."""
    return [left for left, owner in _in_work(path) if not _is_alive(left, *owner)]


def clear(path: Path, is_held: bool = False) -> None:
    """Remove what processes that have ended left of their work on `path`.

    `is_held` says that this process alone may work on it: then everything is left from an earlier
    one, also where that had the number of a process that runs now.
    """
    left = [path for path, _ in _in_work(path)] if is_held else leftovers(path)
    for each in left:
        remove(each)


def _in_work(path: Path) -> Iterator[tuple[Path, tuple[str, int]]]:
    """Everything with a name of `temporary`, and the machine and process in that name."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]{{8}})-([0-9]+)\.tmp")
    names = []
    with contextlib.suppress(OSError):
        names = os.listdir(path.parent)

    for name in names:
        match = pattern.fullmatch(name)
        if match is not None:
            yield path.with_name(name), (match[1], int(match[2]))


def _is_alive(path: Path, machine: str, process: int) -> bool:
    if machine != MACHINE or os.name != "posix":
        try:
            age = time.time() - path.lstat().st_mtime
        except OSError:
            return True
        return age < FORGOTTEN_SECONDS

    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it runs, for another user
    return True


def remove(path: Path) -> None:
    """Remove a file, or a folder as far as it can be removed; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def discard(path: Path) -> None:
    """Remove a file or folder at once: a kill leaves nothing under its name.

    What is left under another name the next call removes, or `clear`.
    """
    clear(path)
    doomed = temporary(path)
    remove(doomed)
    with contextlib.suppress(FileNotFoundError):
        path.rename(doomed)
        remove(doomed)


def sync_file(path: Path) -> None:
    """Put a file's content on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Put all files below a folder and their names on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(root, name))
        sync_folder(Path(root))
