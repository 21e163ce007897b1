"""What the commands share: the option names, the console, and how an error ends a process."""

import contextlib
import errno
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bankintent.errors import UserError

console = Console(highlight=False)
"""Standard output: tables, progress, results."""

APP: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "markdown",
}
"""Settings of every Typer application here."""

SAY_SECONDS = 30.0
"""How often progress is said where there is no terminal to show it in."""

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key, for example --set lora.r=8. Repeatable."),
]


def config_option(*aliases: str, help: str) -> Any:
    """The `--config` option with a command's original names as aliases."""
    return typer.Option("--config", *aliases, metavar="YAML", help=help, show_default=False)


def run(command: Callable[..., Any]) -> None:
    """Run one command as the process: parse, call, and turn a UserError into one line and exit code 2."""
    quiet_libraries()
    app = typer.Typer(**APP)
    app.command()(_reporting(command))
    app()


def run_verbs(help: str, *commands: Callable[..., Any]) -> None:
    """Run one of several commands as the process, the one whose function's name is the first word."""
    quiet_libraries()
    app = typer.Typer(**APP, help=help, no_args_is_help=True)
    app.callback()(lambda: None)  # a single command would else be no verb
    for command in commands:
        app.command()(_reporting(command))
    app()


def _reporting(command: Callable[..., Any]) -> Callable[..., None]:
    """The command, ending the process with one line where the user or the machine stands in its way."""

    @functools.wraps(command)
    def call(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except UserError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted; nothing was published. Run the same command again to go on.", 130)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.ENOTDIR):
                raise
            _fail(f"{error.filename or 'a file'}: {error.strerror}. Free the place or name another output.", 2)

    return call


def _fail(message: str, code: int) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escape(message)}")
    raise SystemExit(code)


def quiet_libraries() -> None:
    """No telemetry, no bars and no advice of the libraries' own; most of it is read when they are imported."""
    warnings.simplefilter("ignore", FutureWarning)
    if not sys.stderr.isatty():  # in a terminal a download of some hundred megabytes should show
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)


def show_path(path: Path) -> str:
    """A path as a user would type it: relative to here where it is below here."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def say(text: str) -> None:
    """Print one line of plain text: nothing in it is markup."""
    console.print(text, markup=False, soft_wrap=True)


Advance = Callable[[int], None]
"""Counts that many more rows as done."""


@contextlib.contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show rows done, rate and time left: as a bar in a terminal, otherwise as a line every half minute.

    `done` are those that an earlier process did; they do not count for the rate.
    """
    from rich.progress import BarColumn, Progress, TextColumn

    style = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    terminal, started, before = console.is_terminal, time.monotonic(), done
    said = started
    with Progress(*style, console=console, transient=True, disable=not terminal) as bar:
        task = bar.add_task(title, total=total, completed=done, state="")

        def advance(rows: int) -> None:
            nonlocal done, said
            done += rows
            now = time.monotonic()
            state = _pace(done, total, (done - before) / max(now - started, 1e-9))
            bar.update(task, completed=done, state=state)
            if not terminal and now - said >= SAY_SECONDS:
                said = now
                say(f"{title}: {state}")

        yield advance


def _pace(done: int, total: int, rate: float) -> str:
    left = f", {timedelta(seconds=round((total - done) / rate))} left" if rate > 0 else ""
    return f"{done:,} of {total:,} rows, {rate:,.0f} rows/s{left}"


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print an aligned table; columns of numbers are set right, long cells fold rather than lose their end."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        numeric = index > 0 and all(row[index][:1].isdigit() or row[index][:1] in ("", "-") for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The same table as lines of Markdown; a bar in a cell stays a bar."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *escaped]]
