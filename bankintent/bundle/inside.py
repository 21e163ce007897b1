"""Reads of a file in a folder that a stranger may have made: only a regular file inside it.

A link could lead to any file of this machine, a named pipe would never end, and a file of
gigabytes would fill the memory. Whatever is read from a bundle is read through this module.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from bankintent.errors import ModelError

LARGEST_TEXT = 1 << 26
"""Most bytes of a file that is held in memory: manifests, labels, settings."""

LARGEST_CARD = 1 << 20
"""Most bytes of a model card."""

LARGEST_PLOT = 1 << 24
"""Most bytes of a plot."""


MISSING = "is missing"


def fault(root: Path, name: str, most: int | None = None) -> str | None:
    """Why a file is not read, in words; None where it is a regular file inside `root`.

    `name` is relative to `root`, which may itself be a link: a user names it.
    """
    if not _is_plain(name):
        return "does not stay in its folder"

    path = root
    parts = name.split("/")
    for part in parts:
        path = path / part
        try:
            status = path.lstat()
        except (OSError, ValueError):
            return MISSING
        if stat.S_ISLNK(status.st_mode):
            return "is a link"
        if part is parts[-1]:
            return _file_fault(status, most)
    return MISSING


def _is_plain(name: str) -> bool:
    """Whether a name is a path with no step to anywhere else."""
    if "\\" in name or "\0" in name:
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def _file_fault(status: os.stat_result, most: int | None) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    if most is not None and status.st_size > most:
        return f"is larger than {most >> 20:,} MiB"
    return None


def is_file(root: Path, name: str, most: int | None = None) -> bool:
    """Whether it can be read."""
    return fault(root, name, most) is None


def regular_file(root: Path, name: str, most: int | None = None) -> Path:
    """The path of a file in `root`; ModelError where it is no regular file inside it."""
    found = fault(root, name, most)
    if found is not None:
        raise ModelError(f"{root}: {name} {found}", "Copy or train the bundle again")
    return root / name


def read_bytes(root: Path, name: str, most: int = LARGEST_TEXT) -> bytes:
    """The content of a file in `root`; ModelError as `regular_file` raises it."""
    path = regular_file(root, name, most)
    # Without a wait and without a link, should it have changed since.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most)


def read_text(root: Path, name: str, most: int = LARGEST_TEXT) -> str:
    """The same as UTF-8 text; UnicodeDecodeError where it is none."""
    return read_bytes(root, name, most).decode("utf-8")


def read_object(root: Path, name: str) -> dict[str, Any]:
    """A file in `root` as a JSON object; ModelError where it is none, or no regular file."""
    try:
        content = json.loads(read_text(root, name))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ModelError(f"{root}: {name} is no JSON object", "Copy or train the bundle again")
    return content


def hub_file(snapshot: Path, name: str, most: int) -> Path | None:
    """A file of a snapshot in the Hub's cache, whose files are links to `blobs/`; else None."""
    root = snapshot.resolve()
    if root.parent.name != "snapshots":
        return None

    blobs = root.parent.parent / "blobs"
    try:
        target = (root / name).resolve()
    except (OSError, RuntimeError):
        # A link that leads to itself.
        return None
    is_blob = target.parent == blobs and is_file(blobs, target.name, most)
    return target if is_blob else None


def list_entries(folder: Path) -> list[str]:
    """All that is below a folder and is no folder, as sorted paths relative to it.

    Links, pipes and devices are listed too, and links are not followed.
    """
    names = []
    for place, folders, files in os.walk(folder):
        inner = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        names += [(inner / name).as_posix() for name in (*files, *links)]
    return sorted(names)
