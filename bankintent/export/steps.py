"""What publishing is doing: named steps, as a bar in a terminal, as a line now and then in a log.

`begin` says what comes next, in whichever process it is called. `shown` shows it; the fresh process
hands its steps over in a file, which `recorded` writes and `followed` reads.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from bankintent import console
from bankintent.config import ExportSection
from bankintent.inference.exported_runtime import KINDS
from bankintent.progress import LogClock

logger = logging.getLogger(__name__)

Show = Callable[[str, int], None]
"""Shows a step and its number, from 1."""

TITLE = "Publishing"
BAR_WIDTH = 16
"""Characters of the bar: so that the longest step fits a line of 80."""

ALWAYS = 5
"""Steps of every publication: saved, asked, loaded again, compared, sealed."""

POLL_SECONDS = 0.2
"""Time between two looks at the steps of the fresh process."""


def begin(step: str) -> None:
    """Say what is done from here on, in a few words such as `exporting to ONNX`."""
    logger.info(step)


def count(export: ExportSection) -> int:
    """How many steps a publication has."""
    if not export.onnx:
        return ALWAYS
    return ALWAYS + 1 + export.int8 + KINDS["openvino"].installed


@contextlib.contextmanager
def shown(total: int) -> Iterator[None]:
    """Show the steps that begin within the block."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(BAR_WIDTH),
        TextColumn("{task.fields[position]}"),
        TimeElapsedColumn(),
    )
    console.say(f"{TITLE}: saving, loading again in a fresh process, comparing ...")
    is_terminal = console.stdout.is_terminal
    progress = Progress(*columns, console=console.stdout, transient=True, disable=not is_terminal)

    with progress as bar:
        task = bar.add_task(TITLE, total=total, position="")

        def show(step: str, number: int) -> None:
            title = f"{TITLE}: {step}"
            bar.update(task, description=title, position=f"{number}/{total}", completed=number - 1)
            # At once: what comes next may leave no time to the thread that draws.
            bar.refresh()

        with _attached(_Reporter(show)):
            yield


@contextlib.contextmanager
def recorded(file: Path) -> Iterator[None]:
    """Write the steps that begin within the block into a file, for another process."""
    handler = logging.FileHandler(file, encoding="utf-8")
    with contextlib.closing(handler), _attached(handler):
        yield


@contextlib.contextmanager
def followed(file: Path) -> Iterator[None]:
    """Begin here, within the block, the steps that another process writes into a file."""
    ended = threading.Event()

    def follow() -> None:
        known = 0
        while not ended.wait(POLL_SECONDS):
            steps = _complete_lines(file)
            for step in steps[known:]:
                begin(step)
            known = len(steps)

    watcher = threading.Thread(target=follow, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


class _Reporter(logging.Handler):
    """Counts the steps that begin and shows each; without a terminal one in half a minute."""

    def __init__(self, show: Show) -> None:
        super().__init__()
        self._show = show
        self._begun = 0
        self._clock = LogClock()

    def emit(self, record: logging.LogRecord) -> None:
        step = record.getMessage()
        self._begun += 1
        self._show(step, self._begun)
        if self._clock.is_due():
            console.say(f"{TITLE}: {step}")


class _Once(logging.Filter):
    """Lets each step through once.

    Where the fresh process is this one, as in a test, its steps come directly and by the file.
    """

    def __init__(self) -> None:
        super().__init__()
        self._begun: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        step = record.getMessage()
        is_new = step not in self._begun
        self._begun.add(step)
        return is_new


@contextlib.contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    # Not to the log of the program that this one is part of.
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler.addFilter(_Once())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _complete_lines(file: Path) -> list[str]:
    """The lines of a file that may still be written, without one that is not yet whole."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return text.split("\n")[:-1]
