"""The type of a path to write to: one that cannot be written is refused with the config."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

MOST_NAME_BYTES = 200
"""Longest name of an output. File systems take 255 bytes, and the names of files in progress are
longer than the output's."""

MOST_PATH_BYTES = 3000
"""Longest path; Linux takes 4,096 bytes, and the files inside have names of their own."""


def _writable(path: Path) -> Path:
    """The path; ValueError where no file or folder can be made there."""
    text = str(path)
    if "\0" in text:
        raise ValueError("a path holds no NUL character")
    if path.name in ("", ".."):
        raise ValueError(f"{text} names no folder of its own, such as artifacts/new")

    _require_short(path)
    _require_parent(path)
    return path


def _require_short(path: Path) -> None:
    name_bytes = len(os.fsencode(path.name))
    if name_bytes > MOST_NAME_BYTES:
        raise ValueError(f"the name has {name_bytes} bytes, at most {MOST_NAME_BYTES} are taken")

    path_bytes = len(os.fsencode(path.absolute()))
    if path_bytes > MOST_PATH_BYTES:
        raise ValueError(f"the path has {path_bytes} bytes, at most {MOST_PATH_BYTES} are taken")


def _require_parent(path: Path) -> None:
    """ValueError where the nearest folder that exists takes no new entry."""
    parent = path.absolute().parent
    # Not Path.exists, which raises where a folder may not be looked into.
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent

    if not os.path.isdir(parent):
        raise ValueError(f"{parent} is no folder, and nothing can be written below it")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"{parent} cannot be written")


OutputPath = Annotated[Path, AfterValidator(_writable)]
"""A file or folder to write."""
