"""Shared by all commands: options, the Typer application, and the end of a process by an error."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import __version__, console, distribution, machine_errors, process
from bankintent.distribution import PROGRAM
from bankintent.errors import ProcessEnded, UserError

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


INTERRUPTED = 130
"""The exit code that shells give for SIGINT."""

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
    verbs: Mapping[str, Callable[..., Any]]


Command = Callable[..., Any] | Group


def run_verbs(help: str, panels: Mapping[str, Mapping[str, Command]]) -> None:
    """Run the command that the first word names as the process.

    `panels` has the title of each group in the help, and its commands by their words.
    """
    process.quiet_libraries()
    verbs_app(help, panels)(prog_name=_console_script())


def verbs_app(help: str, panels: Mapping[str, Mapping[str, Command]]) -> typer.Typer:
    """The application of several commands."""
    # A shell completes the words after a program, not those after `python -m`.
    has_completion = _console_script() is not None
    app = typer.Typer(**APP | {"add_completion": has_completion}, help=help, no_args_is_help=True)
    app.callback(context_settings={"help_option_names": ["--help", "-h"]})(_common_options)

    for title, commands in panels.items():
        for word, command in commands.items():
            if isinstance(command, Group):
                app.add_typer(_group_app(word, command), rich_help_panel=title)
            else:
                register = app.command(word, context_settings=CONTEXT, rich_help_panel=title)
                register(_reporting(command))
    return app


def _console_script() -> str | None:
    """The name of the installed program; None where Python was started with a module."""
    name = Path(sys.argv[0]).stem
    return name if name == PROGRAM else None


def _print_version(is_asked: bool) -> None:
    if is_asked:
        console.say(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _common_options(
    version: Annotated[
        bool,
        # Eager: it is asked without a verb.
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """The options that stand before the verb."""


def _group_app(word: str, group: Group) -> typer.Typer:
    app = typer.Typer(**APP, name=word)
    callback = app.callback(invoke_without_command=True, context_settings=CONTEXT)
    callback(_reporting(group.command))
    for verb, command in group.verbs.items():
        app.command(verb, context_settings=CONTEXT)(_reporting(command))
    return app


def _reporting(command: Callable[..., Any]) -> Callable[..., None]:
    """The command, with one line and an exit code for errors of the user or the machine."""

    # Keeps the signature, from which Typer makes the options.
    @functools.wraps(command)
    def call(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except ProcessEnded as error:
            # The main process says it for all that are left.
            if process.rank() > 0:
                raise SystemExit(error.exit_code) from None
            _fail(str(error), error.exit_code)
        except UserError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            if process.rank() > 0:
                raise SystemExit(INTERRUPTED) from None
            _fail(
                "interrupted; nothing was published. Run the same command again to go on.",
                INTERRUPTED,
            )
        except Exception as error:
            explained = _explain(error, command)
            # Any other error is unexpected: its traceback is needed.
            if explained is None:
                raise
            _fail(str(explained), explained.exit_code)

    return call


def _explain(error: Exception, command: Callable[..., Any]) -> UserError | None:
    """What a user can correct: a package that is not installed, or the machine."""
    module = command.__module__.rpartition(".")[2]
    missing = distribution.missing_package(error, distribution.NEEDS.get(module))
    if missing is not None:
        return missing

    explanation = machine_errors.explain(error)
    if explanation is None:
        return None
    return UserError(*explanation)


def _fail(message: str, code: int) -> None:
    process.leave_to_main()
    console.say_error(message)
    raise SystemExit(code)
