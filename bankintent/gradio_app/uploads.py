"""The folder of uploads and scored files: for its owner only, bounded, and gone with the page.

A page that was killed leaves its folder behind, and the next page of the same user removes it.
"""

import contextlib
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

KEEP_SECONDS = 3600
"""How long an uploaded file and its scored one are kept while the page runs."""

LOOK_SECONDS = 60
"""Time between two looks for files that are older."""

FILES_OF_ALL = 50
"""Files of the largest size that all users together can store."""

PREFIX = "bankintent-page-"
"""Beginning of the names of these folders."""

UNNAMED = "bankintent-new-"
"""The same while a folder has no living owner yet; nothing is stored in it."""

LOCK = "owner.lock"
"""The file that a living owner holds a lock on."""


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of this process, which only its user can read, and which ends with the block.

    Files in it are removed after KEEP_SECONDS. The folders of dead owners are removed first.
    """
    remove_leftovers()
    folder, lock = _make()
    ended = threading.Event()
    keeper = threading.Thread(target=_keep_tidy, args=(folder, ended), daemon=True)
    keeper.start()

    try:
        yield folder
    finally:
        ended.set()
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _make() -> tuple[Path, FileLock]:
    """A new folder and its lock, which is held before the folder has its name."""
    unnamed = Path(tempfile.mkdtemp(prefix=UNNAMED))
    lock = FileLock(unnamed / LOCK, timeout=0, mode=0o600)
    lock.acquire()
    folder = unnamed.with_name(unnamed.name.replace(UNNAMED, PREFIX, 1))
    unnamed.rename(folder)
    return folder, lock


def remove_leftovers() -> None:
    """Remove the folders of this user whose owners have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_own(folder):
            _remove_unowned(folder)


def _is_own(folder: Path) -> bool:
    """Whether this user made it; what others call by such a name is not touched."""
    try:
        status = folder.lstat()
        lock = (folder / LOCK).lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or not stat.S_ISREG(lock.st_mode):
        return False
    return status.st_uid == lock.st_uid == os.geteuid()


def _remove_unowned(folder: Path) -> None:
    lock = FileLock(folder / LOCK, timeout=0, mode=0o600)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()


def _keep_tidy(folder: Path, ended: threading.Event) -> None:
    while not ended.wait(LOOK_SECONDS):
        remove_old(folder, time.time() - KEEP_SECONDS)


def remove_old(folder: Path, before: float) -> None:
    """Remove the files that were last written before a time, and folders that have become empty."""
    for place, folders, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place) / name
            # Another thread may remove the same file.
            with contextlib.suppress(OSError):
                if name != LOCK and path.lstat().st_mtime < before:
                    path.unlink()

        for name in folders:
            path = Path(place) / name
            with contextlib.suppress(OSError):
                # Only an empty one can be removed; a new one may be about to get its file.
                if path.lstat().st_mtime < before:
                    path.rmdir()


def stored_bytes(folder: Path) -> int:
    """Bytes of all files of a folder."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += (Path(place) / name).lstat().st_size
    return size
