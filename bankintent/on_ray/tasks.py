"""What runs on the nodes of a cluster: a look at the shared folder, and the process of a run.

This module is imported by the workers that start the runs, and must import neither torch nor
transformers: Linux counts a parent's memory into its child's peak, see `studies.plan`. It does not
import Ray either.
"""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

import bankintent
from bankintent import files, process

LOCK_SECONDS = 60.0
"""Most seconds to wait for a run of the same place to end, whose node was taken for dead."""

SEEN_SECONDS = 60.0
"""Most seconds until a network file system shows another machine's new file."""

PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Seen:
    """What a node sees of the driver's files."""

    version: str
    """Of its package."""
    has_marker: bool
    lacks: list[Path]


def look(marker: Path, needed: Sequence[Path]) -> Seen:
    """Look for the driver's marker, which holds its own name, and for files that are needed."""
    has_marker = False
    with contextlib.suppress(OSError):
        has_marker = marker.read_text(encoding="utf-8") == marker.name
    lacks = [path for path in needed if not path.exists()]
    return Seen(bankintent.__version__, has_marker, lacks)


@dataclass(frozen=True)
class Apart:
    """A process to run: `python -m module job_file`; all paths are absolute."""

    module: str
    job_file: Path
    log: Path
    place: Path
    """What it works on, alone."""
    folder: Path
    """The working folder of the driver, which relative paths in the job start from."""


def run_apart(work: Apart) -> tuple[str | None, float]:
    """Run it to its end; why it failed, or None, and the seconds that it took."""
    _wait_for_lock(work.place)
    started = time.monotonic()
    cause = process.run_module(work.module, [work.job_file], work.log, work.folder)
    return cause, time.monotonic() - started


def _wait_for_lock(place: Path) -> None:
    """Wait until nobody works on a place.

    A run is begun again when its node is gone. Its first process may need a moment to end.
    """
    lock = FileLock(files.lock_file(files.place(place)), timeout=LOCK_SECONDS)
    if not place.parent.is_dir():
        return
    # After that time the run itself says who holds it.
    with contextlib.suppress(Timeout), lock:
        Path(lock.lock_file).unlink(missing_ok=True)


def is_seen(path: Path) -> bool:
    """Whether a file is there; a network file system may show another machine's file late."""
    end = time.monotonic() + SEEN_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_SECONDS)
        # Reading the folder makes the file system ask its server.
        with contextlib.suppress(OSError):
            os.listdir(path.parent)
    return True
