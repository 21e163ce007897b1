"""Shared by all commands: options, the Typer application, and the end of a process by an error."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import console, machine_errors, process
from bankintent.errors import UserError

APP: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "markdown",
}
"""Settings of every Typer application: Python's own tracebacks, and help texts in Markdown."""

ALIASES = {"cfg-path": "config", "train-config": "config"}
"""Original name of an option -> its name in the help, where two would not fit a line."""


def _option_name(name: str) -> str:
    """The name under which an option is known: `checkpoint_path` is `checkpoint-path` too."""
    name = name.replace("_", "-")
    return ALIASES.get(name, name)


CONTEXT: dict[str, Any] = {"token_normalize_func": _option_name}
"""Settings of every command."""

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config key, for example --set lora.r=8. Repeatable.",
    ),
]


def config_option(help: str) -> Any:
    """The `--config` option."""
    return typer.Option("--config", metavar="YAML", help=help, show_default=False)


def run(command: Callable[..., Any]) -> None:
    """Run one command as the process: parse, call, and turn a UserError into one line."""
    process.quiet_libraries()
    app = typer.Typer(**APP)
    app.command(context_settings=CONTEXT)(_reporting(command))
    app(prog_name=_program_name())


def _program_name() -> str | None:
    """What a user types before the options; None where Typer finds it by itself."""
    # Typer names a module of no package, such as `python -m etl`, by its file.
    if sys.modules["__main__"].__package__ == "":
        return f"python -m {Path(sys.argv[0]).stem}"
    return None


@dataclass(frozen=True)
class Group:
    """A command with further commands below it, such as `audit` and `audit review`."""

    command: Callable[..., Any]
    """Runs where no further word is given; its first parameter is the `typer.Context`."""
    verbs: tuple[Callable[..., Any], ...]


def run_verbs(help: str, *commands: Callable[..., Any] | Group) -> None:
    """Run one of several commands as the process; the first word is the function's name."""
    process.quiet_libraries()
    app = typer.Typer(**APP, help=help, no_args_is_help=True)
    # Without a callback, Typer would run a single command without its name.
    app.callback()(lambda: None)

    for command in commands:
        if isinstance(command, Group):
            app.add_typer(_group_app(command))
        else:
            app.command(context_settings=CONTEXT)(_reporting(command))

    app()


def _group_app(group: Group) -> typer.Typer:
    app = typer.Typer(**APP, name=group.command.__name__)
    callback = app.callback(invoke_without_command=True, context_settings=CONTEXT)
    callback(_reporting(group.command))
    for verb in group.verbs:
        app.command(context_settings=CONTEXT)(_reporting(verb))
    return app


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
        except Exception as error:
            explanation = machine_errors.explain(error)
            # Any other error is unexpected: its traceback is needed.
            if explanation is None:
                raise
            _fail(str(UserError(*explanation)), UserError.exit_code)

    return call


def _fail(message: str, code: int) -> None:
    console.say_error(message)
    raise SystemExit(code)
