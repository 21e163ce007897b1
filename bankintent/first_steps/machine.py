"""What a machine lets this process use: memory and processor time, also within a container."""

import math
import os
from pathlib import Path

from bankintent.process import cores

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")

KIBIBYTE = 1024

MEMORY_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Files of a container's limit and use of memory, in control groups of version 2 and 1."""

NO_LIMIT = 1 << 60
"""Bytes from which a limit of version 1 means that there is none."""


def free_memory() -> int | None:
    """Bytes that this process may still take; None where the system does not say it."""
    amounts = [_available(), _left_in_container()]
    known = [amount for amount in amounts if amount is not None]
    return min(known, default=None)


def _available() -> int | None:
    for line in _read(MEMINFO).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            count = value.split()[0]
            return int(count) * KIBIBYTE

    return None


def _left_in_container() -> int | None:
    for limit_name, used_name in MEMORY_LIMITS:
        limit = _number(CGROUP / limit_name)
        used = _number(CGROUP / used_name)
        if limit is None or used is None:
            continue
        if limit < NO_LIMIT:
            return max(0, limit - used)

    return None


def processor_limit() -> int | None:
    """Whole cores whose time a container may use, at least one; None where there is no limit."""
    # Version 2: `max 100000`, or microseconds in a period, and the period.
    words = _read(CGROUP / "cpu.max").split()
    if len(words) == 2 and words[0].isdigit():
        cpus = int(words[0]) / int(words[1])
        return max(1, math.floor(cpus))

    # Version 1 has a file for each; a quota of -1 is no limit.
    quota = _number(CGROUP / "cpu/cpu.cfs_quota_us")
    period = _number(CGROUP / "cpu/cpu.cfs_period_us")
    if quota is not None and period and quota > 0:
        cpus = quota / period
        return max(1, math.floor(cpus))

    return None


def load() -> float:
    """Processes that wanted to compute in the last minute, on average; 0 where it is not known."""
    # Windows has no such call.
    if not hasattr(os, "getloadavg"):
        return 0.0

    last_minute = os.getloadavg()[0]
    return last_minute


def free_cores(load: float) -> int:
    """Cores that other processes leave, at least one."""
    left = cores() - round(load)
    return max(1, left)


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    digits = text.lstrip("-")
    if not digits.isdigit():
        return None
    return int(text)


def _read(path: Path) -> str:
    """The content of a file; empty where there is none that can be read."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
