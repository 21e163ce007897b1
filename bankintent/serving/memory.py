"""Memory of this process: how much it has, and what it does not need given back."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path

STATM = Path("/proc/self/statm")
"""Linux: the pages of this process; the second number is of those in memory."""


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        pages = int(STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Free what nobody refers to, and return it to the system where its allocator can."""
    gc.collect()
    trim()


def trim() -> None:
    """Return freed memory to the system where its allocator can."""
    # glibc keeps what was freed for later; other systems have no such function.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def largest_file(folder: Path) -> int:
    """Bytes of the largest file below a folder: about what a model takes that has never loaded."""
    largest = 0
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            if path.is_file():
                largest = max(largest, path.stat().st_size)
    return largest
