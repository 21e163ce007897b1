"""docs/reference/commands.md: every command with its arguments, options and help, from Typer."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from bankintent import cli
from bankintent.__main__ import HELP, VERBS
from bankintent.config import ExplainConfig
from bankintent.distribution import FRONT_DOOR, PROGRAM
from docs.tools import wording
from docs.tools.kinds import KINDS, in_repository
from docs.tools.schemas import raw_schema, unwrap

PAGE = Path("docs/reference/commands.md")

METAVARS = {int: "NUMBER", float: "NUMBER", Path: "PATH", str: "TEXT"}
"""What stands for a value of each type where an option has no word of its own."""

PARAMETERS = {"input": "source"}
"""Key of a config -> the parameter of a command that sets it, where their names differ."""

EXAMPLE = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:python -m|uvicorn) .*$", re.MULTILINE)
"""A line of a command's docstring that shows a call."""

Parameter = TyperArgument | TyperOption


def page(generated: str) -> str:
    """The page's text, with `generated` as its last line."""
    app = typer.main.get_group(cli.verbs_app(HELP, VERBS))
    text = (Path(__file__).parent / "commands_overview.txt").read_text(encoding="utf-8")
    blocks = [text.replace("<VERBS>", "\n".join(_rows(app))).strip()]
    for title, verbs in VERBS.items():
        blocks.append(f"## {title}")
        for verb in verbs:
            blocks += _command_blocks(verb, app.commands[verb])
    blocks.append(generated)
    return "\n\n".join(blocks) + "\n"


def _rows(app: TyperGroup) -> Iterator[str]:
    """The table of all commands."""
    yield "| command | in a checkout | what it does |"
    yield "| --- | --- | --- |"
    for verbs in VERBS.values():
        for verb in verbs:
            summary = unwrap(app.commands[verb].help or "").partition("\n\n")[0]
            yield f"| [`{PROGRAM} {verb}`](#{verb}) | `{in_repository(verb)}` | {summary} |"


def _command_blocks(verb: str, command: Any) -> Iterator[str]:
    """A command, and then those below it."""
    yield f"### `{verb}`"
    yield f"```text\n{_usage(verb, command)}\n```"
    yield _help(command.help or "")
    rows = list(_parameter_rows(verb, command))
    if rows:
        yield "\n".join(rows)
    yield from _config_links(verb)

    examples = EXAMPLE.findall(sys.modules[command.callback.__module__].__doc__ or "")
    own = [line for line in examples if _is_of(line, verb)]
    if own:
        yield "For example:\n\n```text\n" + "\n".join(own) + "\n```"
    if isinstance(command, TyperGroup):
        for word, child in command.commands.items():
            yield from _command_blocks(f"{verb} {word}", child)


def _usage(verb: str, command: Any) -> str:
    """How a command is called, in both forms."""
    words = []
    for parameter in _parameters(command):
        if isinstance(parameter, TyperArgument):
            dots = "..." if parameter.nargs == -1 else ""
            word = f"{_metavar(parameter)}{dots}"
            words.append(word if parameter.required else f"[{word}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {_metavar(parameter)}")
    line = " ".join([*words, "[OPTIONS]"])
    return f"{PROGRAM} {verb} {line}\n{in_repository(verb)} {line}"


def _help(text: str) -> str:
    """A command's help: paragraphs in one line each, lists as they are."""
    blocks = []
    for block in text.strip().split("\n\n"):
        blocks.append(block if block.startswith("- ") else " ".join(block.split()))
    return "\n\n".join(blocks)


def _parameters(command: Any) -> list[Parameter]:
    """The arguments, then the options, without the hidden ones."""
    shown = [parameter for parameter in command.params if not parameter.hidden]
    return sorted(shown, key=lambda parameter: isinstance(parameter, TyperOption))


def _parameter_rows(verb: str, command: Any) -> Iterator[str]:
    parameters = _parameters(command)
    if not parameters:
        return
    needed = _needed(verb)
    yield "| argument or option | default | meaning |"
    yield "| --- | --- | --- |"
    for parameter in parameters:
        help_text = " ".join((parameter.help or "").split()).replace("|", r"\|")
        default = _default(parameter)
        if parameter.name in needed:
            default = "**required**, here or in the file"
        yield f"| {_names(parameter)} | {default} | {help_text} |"


def _needed(verb: str) -> set[str]:
    """Parameters of a command that its config needs: a file may hold them too."""
    names: set[str] = set()
    for kind in KINDS:
        # `doctor` reads a train.yaml, and knows one where none is named.
        if kind.verbs[0] == verb:
            names |= {PARAMETERS.get(key, key) for key in kind.on_the_command_line}
    return names


def _names(parameter: Parameter) -> str:
    if isinstance(parameter, TyperArgument):
        return f"`{_metavar(parameter)}`"
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    return names if parameter.is_flag else f"{names} `{_metavar(parameter)}`"


def _metavar(parameter: Parameter) -> str:
    if parameter.metavar:
        return parameter.metavar
    kind = parameter.type_descriptor.annotation
    return METAVARS.get(kind, "VALUE")


def _default(parameter: Parameter) -> str:
    """What holds where a parameter is left out."""
    if parameter.required:
        return "**required**"
    shown = parameter.show_default
    # A text in place of the default says what it is.
    if isinstance(shown, str):
        return shown if " " in shown else f"`{shown}`"
    default = parameter.default
    if default is None or default is False:
        return ""
    return f"`{default}`"


def _config_links(verb: str) -> Iterator[str]:
    pages = [f"[{kind.name}.yaml](config/{kind.name}.md)" for kind in KINDS if verb in kind.verbs]
    if pages:
        yield f"The keys of `--config` and `--set`: {', '.join(pages)}."
    elif verb == "init":
        yield "The keys of `--set`: [data.yaml](config/data.md)."
    elif verb == "explain":
        yield "The keys of `--set`:\n\n" + "\n".join(_explain_rows())


def _explain_rows() -> Iterator[str]:
    """The keys of `explain`, which no file holds, but for those that are options."""
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    properties = raw_schema(ExplainConfig)["properties"]
    for key, node in properties.items():
        if "default" in node and key != "brief":
            words = node["description"].replace("\n", " ")
            kind = wording.type_words(node)
            yield f"| `{key}` | {kind} | {wording.code(node['default'])} | {words} |"


def _is_of(line: str, verb: str) -> bool:
    """Whether an example is one of this command, not of the one above or below it."""
    called = [in_repository(verb), f"uvicorn {FRONT_DOOR.get(verb)}", "uvicorn --factory"]
    has_own = any(word in line for word in called)
    below = (" audit review", " audit apply")
    return has_own and (verb.startswith("audit ") or not any(word in line for word in below))
