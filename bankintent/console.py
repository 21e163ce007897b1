"""Standard output: lines, tables and progress, in a terminal or in a log."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape

stdout = Console(highlight=False)
"""All functions of this module print here. Without highlighting, numbers have no colours."""

REPORT_SECONDS = 30.0
"""Without a terminal, time between two lines of progress: few enough for a log of hours."""

Advance = Callable[[int], None]
"""Counts that many more rows as done."""


def say(text: str) -> None:
    """Print one line of plain text: brackets in it are not markup."""
    # Soft wrapping leaves the line whole, so that paths can be copied and lines found in a log.
    stdout.print(text, markup=False, soft_wrap=True)


def show_path(path: Path) -> str:
    """A path as a user would type it: relative if it is inside the working folder."""
    absolute = path.absolute()
    here = Path.cwd()

    if absolute.is_relative_to(here):
        return str(absolute.relative_to(here))
    return str(absolute)


@contextlib.contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show rows done, rate and time left: a bar in a terminal, otherwise a line every half minute.

    `done` rows are those of an earlier process; they do not count for the rate.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    is_terminal = stdout.is_terminal
    started = time.monotonic()
    last_report = started
    done_before = done

    with Progress(*columns, console=stdout, transient=True, disable=not is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=done, state="")

        def advance(rows: int) -> None:
            nonlocal done, last_report
            done += rows
            now = time.monotonic()
            # Two readings of the clock can be equal.
            rate = (done - done_before) / max(now - started, 1e-9)
            state = _pace(done, total, rate)
            bar.update(task, completed=done, state=state)

            if not is_terminal and now - last_report >= REPORT_SECONDS:
                last_report = now
                say(f"{title}: {state}")

        yield advance


def _pace(done: int, total: int, rate: float) -> str:
    pace = f"{done:,} of {total:,} rows, {rate:,.0f} rows/s"
    if rate == 0:
        return pace

    time_left = timedelta(seconds=round((total - done) / rate))
    return f"{pace}, {time_left} left"


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print an aligned table; numbers are aligned to the right, long cells are wrapped."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for index, name in enumerate(header):
        # The first column holds names, even where they begin with a digit.
        is_numeric = index > 0 and all(_looks_numeric(row[index]) for row in rows)
        table.add_column(name, justify="right" if is_numeric else "left", overflow="fold")

    for row in rows:
        table.add_row(*map(escape, row))
    stdout.print(table)


def _looks_numeric(cell: str) -> bool:
    # A dash is a minus sign or a missing number.
    return cell[:1].isdigit() or cell[:1] in ("", "-")


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table as lines of Markdown; a bar in a cell does not end the cell."""
    divider = ["---"] * len(header)
    lines = [_markdown_row(header), _markdown_row(divider)]
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append(_markdown_row(cells))
    return lines


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
