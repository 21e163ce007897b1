"""Shared by all commands: options, the Typer application, and the end of a process by an error."""

import errno
import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bankintent import process
from bankintent.errors import UserError

APP: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "markdown",
}
"""Settings of every Typer application: Python's own tracebacks, and help texts in Markdown."""

PLACE_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.ENOTDIR)
"""Errors of the system that a user can correct: a full or read-only disk, a missing permission, a
file where a folder is needed."""

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config key, for example --set lora.r=8. Repeatable.",
    ),
]


def config_option(*aliases: str, help: str) -> Any:
    """The `--config` option with a command's original names as aliases."""
    return typer.Option("--config", *aliases, metavar="YAML", help=help, show_default=False)


def run(command: Callable[..., Any]) -> None:
    """Run one command as the process: parse, call, and turn a UserError into one line."""
    process.quiet_libraries()
    app = typer.Typer(**APP)
    app.command()(_reporting(command))
    app()


def run_verbs(help: str, *commands: Callable[..., Any]) -> None:
    """Run one of several commands as the process; the first word is the function's name."""
    process.quiet_libraries()
    app = typer.Typer(**APP, help=help, no_args_is_help=True)
    # Without a callback, Typer would run a single command without its name.
    app.callback()(lambda: None)

    for command in commands:
        app.command()(_reporting(command))

    app()


def _reporting(command: Callable[..., Any]) -> Callable[..., None]:
    """The command, with one line and an exit code for errors of the user or the machine."""

    # Keeps the signature, from which Typer makes the options.
    @functools.wraps(command)
    def call(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except UserError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            # The exit code that shells give for SIGINT.
            _fail(
                "interrupted; nothing was published. Run the same command again to go on.",
                code=130,
            )
        except OSError as error:
            # Any other error is unexpected: its traceback is needed.
            if error.errno not in PLACE_ERRORS:
                raise

            place = error.filename or "a file"
            _fail(f"{place}: {error.strerror}. Free the place or name another output.", code=2)

    return call


def _fail(message: str, code: int) -> None:
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    stderr.print(f"[red]error:[/red] {escape(message)}")
    raise SystemExit(code)
