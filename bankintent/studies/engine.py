"""What executes the processes of a study, and the engine of this machine: one after another.

This module is imported by a light parent process and must import neither torch nor transformers,
see `plan`.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bankintent import console, process


@dataclass(frozen=True)
class Task:
    """One process of a study: `python -m module job_file`."""

    label: str
    """For people, for example `lora, 5 per intent, seed 3`."""
    module: str
    job_file: Path
    log: Path
    """The file of its output."""
    place: Path
    """What it works on, alone."""
    result: Path
    """The file that it writes last."""


@dataclass(frozen=True)
class Ended:
    """How a task ended."""

    task: Task
    cause: str | None
    """Why it failed; None where it did not."""
    seconds: float


class Engine(Protocol):
    """Executes tasks, each in a process of its own."""

    at_once: int
    """Tasks that run at the same time."""

    def execute(self, tasks: Iterable[Task]) -> Iterator[Ended]:
        """Yield each task when it has ended, in any order."""
        ...


class LocalEngine:
    """Executes tasks on this machine, in order."""

    at_once = 1

    def execute(self, tasks: Iterable[Task]) -> Iterator[Ended]:
        """Yield each task when it has ended, in order; the next one starts after that."""
        for task in tasks:
            status = f"{task.label}, see {console.show_path(task.log)}"
            started = time.monotonic()
            with console.stdout.status(status):
                cause = process.run_module(task.module, [task.job_file], task.log)
            yield Ended(task, cause, time.monotonic() - started)
