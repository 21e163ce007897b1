"""What a user sees while something takes time: a bar in a terminal, some lines in a log."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from bankintent import console

REPORT_SECONDS = 30.0
"""Time between two lines of progress in a log: few enough for a log of hours."""

Advance = Callable[[int], None]
"""Counts that many more rows as done."""


class LogClock:
    """Tells when the next line of progress is due in a log; in a terminal none ever is."""

    def __init__(self) -> None:
        self._last_line = time.monotonic()

    def is_due(self) -> bool:
        """Whether REPORT_SECONDS have passed since the last line; if so, this is the new one."""
        now = time.monotonic()
        if console.stdout.is_terminal or now - self._last_line < REPORT_SECONDS:
            return False
        self._last_line = now
        return True


def say_rows(title: str, rows: int) -> None:
    """Say how many rows are done, where nobody knows how many there are."""
    console.say(f"{title}: {rows:,} rows")


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show what is being done and for how long: a line that moves in a terminal, else a plain one.

    The one that moves is gone after the block.
    """
    if not console.stdout.is_terminal:
        console.say(f"{what} ...")
        yield
        return

    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} ..."), TimeElapsedColumn())
    with Progress(*columns, console=console.stdout, transient=True) as bar:
        bar.add_task(what, total=None)
        yield


@contextlib.contextmanager
def row_progress(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show rows done, rate and time left: a bar in a terminal, otherwise a line every half minute.

    `done` rows are those of an earlier process; they do not count for the rate.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.text import Text

    stdout = console.stdout
    # The title has a line of its own, as the name of a model may take most of one.
    columns = (BarColumn(bar_width=None), TextColumn("{task.fields[state]}"))
    bar = Progress(*columns, console=stdout, expand=True)
    task = bar.add_task(title, total=total, completed=done, state=_rows_done(done, total))

    started = time.monotonic()
    done_before = done
    clock = LogClock()

    group = Group(Text(title), bar)
    with Live(group, console=stdout, transient=True, auto_refresh=stdout.is_terminal):

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            # Two readings of the clock can be equal.
            seconds = max(time.monotonic() - started, 1e-9)
            state = _pace(done, total, (done - done_before) / seconds)

            bar.update(task, completed=done, state=state)
            if clock.is_due():
                console.say(f"{title}: {state}")

        yield advance


def _rows_done(done: int, total: int) -> str:
    return f"{done:,} of {total:,} rows"


def _pace(done: int, total: int, rate: float) -> str:
    pace = f"{_rows_done(done, total)}, {rate:,.0f} rows/s"
    if rate == 0:
        return pace

    time_left = timedelta(seconds=round((total - done) / rate))
    return f"{pace}, {time_left} left"
