"""Files and folders that appear whole or not at all: written under another name, then renamed."""

import contextlib
import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from shutil import copyfile
from typing import Any

from filelock import FileLock, Timeout

from bankintent import durable
from bankintent.durable import TEMPORARY, clear, discard, place
from bankintent.errors import OutputError

__all__ = ["TEMPORARY", "clear", "discard", "place"]

JsonObject = dict[str, Any]
"""A JSON object as plain Python values."""

LINKED_BYTES = 65536
"""Smallest file that a second name is given for instead of a copy. Cards and labels, which people
edit in place, are smaller: their copies stay what they were."""


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


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a temporary path; if the block succeeds, it replaces `path`.

    Where `path` is a link, the file that it points to is replaced.
    """
    final = place(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    clear(final)
    staging = durable.temporary(final)

    try:
        yield staging
        give_usual_mode(staging)
        # On disk before the rename: a power cut must not leave an empty file under the new name.
        durable.sync_file(staging)
        staging.replace(final)
        durable.sync_folder(final.parent)
    finally:
        staging.unlink(missing_ok=True)


def give_usual_mode(path: Path) -> None:
    """Let a file, or a folder with all in it, be read by whom the umask of this process allows.

    Some libraries write by way of temporary files, which nobody else may read.
    """
    allowed = _usual_mode()
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    for one in paths:
        if one.is_symlink():
            continue
        mode = stat.S_IMODE(one.stat().st_mode)
        # Only a folder, or what already is a program, is for execution.
        wanted = mode | (allowed if one.is_dir() or mode & stat.S_IXUSR else allowed & 0o666)
        if wanted != mode:
            one.chmod(wanted)


@functools.cache
def _usual_mode() -> int:
    """The mode of a new folder: 0o777 without the umask of this process."""
    # It can only be asked by setting it; meanwhile other threads make files for their owner alone.
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o777 & ~umask


def work_dir(final: Path) -> Path:
    """The folder for work in progress on `final`: its sibling `<final>.work/`."""
    at = place(final)
    return at.with_name(f"{at.name}.work")


def former(final: Path) -> Path:
    """Where the folder that is being replaced stands between two renames."""
    return final.with_name(f".{final.name}.former")


def list_files(folder: Path) -> list[str]:
    """Every file below a folder as sorted posix paths relative to it."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def link(source: Path, target: Path, copy: Callable[[Path, Path], object] = copyfile) -> bool:
    """Make `target` another name of the file `source`; by `copy` where the disk has no hard links.

    Returns whether it takes no space of its own. A file with several names must never be written in
    place: `write_text` and `staged` replace it instead.
    """
    is_small = source.stat().st_size < LINKED_BYTES
    if not is_small:
        # Another disk, a file system without links, a system that refuses links to foreign files.
        with contextlib.suppress(OSError):
            os.link(source, target)
            return True

    copy(source, target)
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
    discard(folder)
    folder.mkdir(parents=True)
    return folder


@dataclass(frozen=True)
class ResultFolder:
    """The layout of a folder that a command writes and replaces as a whole."""

    kind: str
    """Its name in messages, for example "evaluation report"."""
    patterns: tuple[str, ...]
    """The files that it may hold, as `fnmatch` patterns of paths relative to the folder."""
    setting: str = "output_dir"
    """What users name it by."""

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
        require_apart(folder)
        if not place(folder).exists():
            return
        if not folder.is_dir():
            raise OutputError(f"{folder} is a file", f"Name another {self.setting}")

        foreign = self.first_foreign(folder)
        if foreign is not None:
            raise OutputError(
                f"{folder} exists and is no {self.kind}: it holds {foreign}",
                f"Move that away, or name another {self.setting}",
            )


def require_apart(folder: Path) -> None:
    """Raise OutputError where a result folder is the working folder or holds it."""
    if Path.cwd().is_relative_to(os.path.realpath(folder)):
        raise OutputError(
            f"{folder} is the working folder or above it, and would be replaced",
            "Name another output_dir",
        )


@contextlib.contextmanager
def replacing(folder: Path, layout: ResultFolder) -> Iterator[Path]:
    """Yield an empty staging folder; if the block succeeds, it replaces `folder`.

    One process at a time writes a folder. Files that a killed process left in the staging folder
    are removed. Raises OutputError where either folder holds files that are not of this layout.
    """
    layout.require_replaceable(folder)

    with exclusive(folder) as staging:
        # Again: before the lock, another process may have put something else there.
        layout.require_replaceable(folder)
        # It is emptied, and may be a folder of the user's that has this name by chance.
        layout.require_replaceable(staging)
        make_empty(staging)

        try:
            yield staging
            publish(staging, place(folder))
        finally:
            discard(staging)


@contextlib.contextmanager
def exclusive(final: Path) -> Iterator[Path]:
    """Hold the work folder of `final` for this process alone and yield it.

    What killed processes left beside it is put right first. Raises OutputError where another
    process holds it. The lock file is a sibling of the work folder, because that may be removed and
    made again while the lock is held.
    """
    at = place(final)
    at.parent.mkdir(parents=True, exist_ok=True)

    lock = FileLock(lock_file(at), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"{final} is being written by another process",
            "Wait for it to end, or name another output_dir",
        ) from None
    except PermissionError:
        raise OutputError(
            f"{final} cannot be written: {at.parent} is not writable", "Name another output"
        ) from None

    try:
        recover(at)
        yield work_dir(at)
    finally:
        # Removed while it is held: another process could already hold it after the release. One
        # that has opened this file before sees that it has no name any more, and opens the next.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def lock_file(final: Path) -> Path:
    """The lock of a place; a killed process leaves the file, but no lock."""
    return final.with_name(f".{final.name}.lock")


def publish(staging: Path, final: Path) -> None:
    """Put the finished folder `staging` in the place of `final`.

    Replacing takes two renames. A kill between them leaves the earlier folder as `former`, which
    the next call of `recover` puts back.
    """
    _remove_temporary(staging)
    give_usual_mode(staging)
    # On disk before the rename: a power cut must not leave empty files under the new name.
    durable.sync_tree(staging)
    old = former(final)
    durable.remove(old)

    # A rename cannot replace a folder that holds files.
    if final.exists():
        final.rename(old)
    try:
        staging.rename(final)
    except OSError:
        recover(final)
        raise
    durable.sync_folder(final.parent)

    # The new folder is published: a remnant of the old one is no reason to fail.
    discard(old)


def _remove_temporary(folder: Path) -> None:
    for path in [*folder.rglob(TEMPORARY)]:
        durable.remove(path)


def recover(final: Path) -> None:
    """Put right what a killed process left of a publication. The caller holds `exclusive`."""
    old = former(final)
    if old.exists():
        if final.exists():
            discard(old)
        else:
            old.rename(final)

    for path in (final, old, work_dir(final)):
        clear(path, is_held=True)


def settle(final: Path) -> None:
    """Put right what a killed process left at `final`, unless another process is writing it."""
    at = place(final)
    is_left = any(path.exists() for path in (former(at), lock_file(at)))
    is_left = is_left or any(durable.leftovers(path) for path in (at, former(at), work_dir(at)))
    if is_left:
        # What cannot be put right here, a run that writes will say.
        with contextlib.suppress(OutputError, OSError), exclusive(at):
            pass


def is_bare(folder: Path) -> bool:
    """Whether a folder holds nothing but what a killed process left under a temporary name."""
    return all(fnmatch(path.name, TEMPORARY) for path in folder.iterdir())
