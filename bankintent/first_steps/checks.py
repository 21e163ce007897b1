"""Findings on the machine: Python, cores, memory, disks, ports, the tracking store, the Hub."""

import os
import platform
import shutil
import socket
import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote

from bankintent import console, hub
from bankintent.config import FrontendConfig, ServeConfig, TrainConfig
from bankintent.errors import ConfigError, SourceUnavailable
from bankintent.first_steps import machine
from bankintent.first_steps.estimate import GIGABYTE, gigabytes
from bankintent.first_steps.finding import Finding, State
from bankintent.process import cores
from bankintent.tracking_store import SQLITE, database_file, require_usable

OLDEST_PYTHON = (3, 11)

LEAST_MEMORY = GIGABYTE
"""Bytes below which training with LoRA does not fit: it took 0.8 to 1.2 GB with short sentences."""

GOOD_MEMORY = 3 * GIGABYTE
"""Bytes from which long sentences and publishing fit as well."""

LEAST_DISK = GIGABYTE
"""Bytes below which a run does not fit: a bundle of the embedded encoder takes 0.3 GB, its
checkpoints as much again."""

GOOD_DISK = 5 * GIGABYTE

LOOPBACK = "127.0.0.1"

PORTS = {
    "API": ServeConfig.model_fields["port"].default,
    "Gradio page": FrontendConfig.model_fields["port"].default,
    "MLflow": 5000,
}
"""Ports that the commands of README take."""

LOCK_SECONDS = 1.0
"""Longest wait for a tracking store that another process is writing."""


def check_python() -> list[Finding]:
    """The version of Python and where it runs."""
    found = f"{platform.python_version()} in {console.show_path(Path(sys.prefix))}"
    if sys.version_info < OLDEST_PYTHON:
        return [Finding("Python", "problem", found, "install Python 3.11 or newer")]
    return [Finding("Python", "ok", found)]


def check_processor() -> list[Finding]:
    """Cores, threads, and who else computes."""
    available = cores()
    limit = machine.processor_limit()
    load = machine.load()
    threads = os.environ.get("OMP_NUM_THREADS")

    found = f"{available} cores, load {load:.1f}"
    if limit is not None:
        found += f", a container's limit of {limit}"
    if threads is not None:
        found += f", OMP_NUM_THREADS={threads}"

    usable = available if limit is None else min(available, limit)
    wanted = min(usable, machine.free_cores(load))
    used = int(threads) if threads is not None and threads.isdigit() else available
    if used <= wanted:
        return [Finding("processor", "ok", found)]
    return [
        Finding(
            "processor",
            "note",
            f"{found}: threads that wait for each other are slow",
            f"set OMP_NUM_THREADS={wanted}",
        )
    ]


def check_memory() -> list[Finding]:
    """Memory that a run may take."""
    free = machine.free_memory()
    if free is None:
        return [Finding("memory", "note", "this system does not say how much is free")]

    found = f"{gigabytes(free)} free"
    if free < LEAST_MEMORY:
        return [Finding("memory", "problem", found, "end other programs; training needs 1 GB")]
    if free < GOOD_MEMORY:
        return [Finding("memory", "note", found, "enough for short sentences; lower batch_size")]
    return [Finding("memory", "ok", found)]


def check_disks(settings: TrainConfig) -> list[Finding]:
    """Space and permission where a run writes."""
    # A run goes on without the cache of features; the Hub may not be needed at all.
    return [
        disk_finding("disk: data", settings.data_dir, worst="problem"),
        disk_finding("disk: models", settings.output_dir, worst="problem"),
        disk_finding("disk: features", settings.cache_dir, worst="note"),
        disk_finding("disk: Hub cache", _hub_cache(), worst="note"),
    ]


def disk_finding(name: str, path: Path, worst: State) -> Finding:
    """Whether a folder that may not exist yet can be written; `worst` is said where it cannot."""
    shown = console.show_path(path)
    parent = nearest_folder(path.absolute())
    if not parent.is_dir():
        return Finding(name, worst, f"{parent} is a file", f"move it away: {shown} is a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        found = f"{shown}: {parent} is not writable"
        return Finding(name, worst, found, "name another folder, or change its permissions")

    free = shutil.disk_usage(parent).free
    found = f"{shown}: writable, {gigabytes(free)} free"
    if free < LEAST_DISK:
        return Finding(name, worst, found, "free some space; a run needs 1 GB")
    if free < GOOD_DISK:
        return Finding(name, "note", found, "enough for some runs")
    return Finding(name, "ok", found)


def nearest_folder(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    for candidate in (path, *path.parents):
        if candidate.exists():
            return candidate
    return path


def _hub_cache() -> Path:
    """Where the Hub's client keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def check_ports() -> list[Finding]:
    """Whether the usual ports are free on loopback."""
    taken = [f"{port} ({name})" for name, port in PORTS.items() if not is_free(port)]
    if taken:
        found = f"in use: {', '.join(taken)}"
        return [Finding("ports", "note", found, "end that server, or take another with --port")]
    return [Finding("ports", "ok", f"{', '.join(map(str, PORTS.values()))} are free")]


def is_free(port: int) -> bool:
    """Whether a server can listen on a port of loopback."""
    with socket.socket() as probe:
        # A connection that has just ended does not count; on Windows this option means another.
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def check_tracking(settings: TrainConfig) -> list[Finding]:
    """Whether the store of MLflow can be opened.

    A run refuses one that can never work, and goes on without one that does not answer.
    """
    tracking = settings.tracking
    if not tracking.enabled:
        return [Finding("tracking", "ok", "off (tracking.enabled)")]
    try:
        require_usable(tracking)
    except ConfigError as error:
        return [Finding("tracking", "problem", error.found, "correct tracking.uri")]
    if not tracking.uri.startswith(SQLITE):
        return [Finding("tracking", "note", f"{tracking.uri} is no file and was not opened")]

    database = database_file(tracking.uri)
    shown = console.show_path(database)
    if not database.exists():
        return [Finding("tracking", "ok", f"{shown} will be made by the first run")]

    try:
        _write_nothing(database)
    except sqlite3.Error as error:
        found = f"{shown}: {error}; runs are not tracked"
        return [Finding("tracking", "note", found, "end what holds it, or move the file away")]
    return [Finding("tracking", "ok", f"{shown} opens")]


def _write_nothing(database: Path) -> None:
    """Take the lock that a writer needs, and give it back; sqlite3.Error where that fails."""
    address = f"file:{quote(str(database.absolute()))}?mode=rw"
    connection = sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def check_hub() -> list[Finding]:
    """Whether the Hub answers; the embedded encoder and dataset do without."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return [Finding("Hub", "ok", "not asked: HF_HUB_OFFLINE is set, what is cached is used")]

    endpoint = str(constants.ENDPOINT)
    try:
        hub.require_reachable("a model", "use what is embedded")
    except SourceUnavailable:
        found = f"{endpoint} does not answer; the embedded encoder and dataset need no Hub"
        return [Finding("Hub", "note", found, "connect, or set HF_HUB_OFFLINE=1 for the cache")]
    return [Finding("Hub", "ok", f"{endpoint} answers")]
