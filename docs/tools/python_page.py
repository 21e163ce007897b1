"""docs/reference/python.md: the public names of the package, from their source and docstrings."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import bankintent
from bankintent.api.predictions import DecisionName, ReasonName
from bankintent.config import RuntimeName
from docs.tools.schemas import unwrap

PAGE = Path("docs/reference/python.md")

CARD = Path(bankintent.__file__).parent / "bundle" / "card.md.jinja"
"""The model card, whose snippets are run by its own tests."""

GROUPS = {
    "Load and predict": (
        "load",
        "Model",
        "Prediction",
        "Score",
        "Explanation",
        "Attribution",
        "Neighbour",
        "load_adapters",
        "Adapters",
    ),
    "Prepare, train, evaluate": (
        "etl",
        "PreparedData",
        "train",
        "TrainedBundle",
        "evaluate",
        "Evaluation",
    ),
    "Errors and version": ("UserError", "__version__"),
}
"""Heading -> the public names below it."""

SNIPPETS = {
    "transformers": "The merged weights are a plain sequence classifier.",
    "PEFT": "With the regime `lora`: the adapter brings the trained head; the base's own is"
    " untrained. The folder of the base is called `base_N`, with the number of intents.",
    "ONNX Runtime": "The exported format needs neither PyTorch nor transformers."
    " `onnx/model_int8.onnx`, where the bundle has it, works the same way.",
}
"""Heading of a snippet on the model card -> what is said of it here."""

OF_THE_CARD = {
    "merged": "merged",
    "adapter": "adapter",
    "base": "base_77",
    "example": "my card has not arrived yet",
}
"""What stands for the names of the card's template."""


def _literal(alias: Any) -> str:
    words = ", ".join(f'"{word}"' for word in get_args(alias))
    return f"Literal[{words}]"


ALIASES = {
    "StrPath": "str | os.PathLike[str]",
    "Floats": "NDArray[np.floating]",
    "JsonObject": "dict[str, Any]",
    "RuntimeName": _literal(RuntimeName),
    "DecisionName": _literal(DecisionName),
    "ReasonName": _literal(ReasonName),
}
"""Names of types that a reader could not look up -> what they stand for."""

WIDTH = 88
"""Columns of a signature on one line."""

Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Attribute:
    """A field or a property of a class."""

    name: str
    annotation: str
    words: str


def page(generated: str) -> str:
    """The page's text, with `generated` as its last line."""
    text = (Path(__file__).parent / "python_overview.txt").read_text(encoding="utf-8")
    api: list[str] = []
    for title, names in GROUPS.items():
        api.append(f"## {title}")
        for name in names:
            api += _blocks(name)

    text = text.replace("<NAMES>", "\n".join(_rows()))
    text = text.replace("<API>", "\n\n".join(api))
    text = text.replace("<SNIPPETS>", "\n\n".join(_snippets()))
    return f"{text.strip()}\n\n{generated}\n"


def _rows() -> Iterator[str]:
    """The table of all public names."""
    yield "| name | what it is |"
    yield "| --- | --- |"
    for names in GROUPS.values():
        for name in names:
            summary = _docstring(name).partition("\n\n")[0]
            yield f"| [`{name}`](#{name.lower()}) | {summary} |"


def _docstring(name: str) -> str:
    value = getattr(bankintent, name)
    if isinstance(value, str):
        return "The version of the package, as text."
    return unwrap(inspect.getdoc(value) or "")


def _blocks(name: str) -> Iterator[str]:
    """A public name: its heading, its call, its docstring and, of a class, what it has."""
    yield f"### `{name}`"
    value = getattr(bankintent, name)
    if isinstance(value, str):
        yield _docstring(name)
        return

    definition = _definition(value)
    if isinstance(definition, ast.FunctionDef):
        yield _fenced(signature(name, definition))
    yield _docstring(name)
    if isinstance(definition, ast.ClassDef):
        yield from _class_blocks(name, definition)


def _definition(value: Any) -> Definition:
    """The definition of a function or a class in its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    definition = tree.body[0]
    if not isinstance(definition, Definition):
        raise TypeError(f"{value!r} is neither a function nor a class")
    return definition


def _class_blocks(name: str, definition: ast.ClassDef) -> Iterator[str]:
    rows = ["| attribute | type | meaning |", "| --- | --- | --- |"]
    for attribute in _attributes(definition):
        # A bar would end the cell.
        kinds = " or ".join(f"`{kind}`" for kind in attribute.annotation.split(" | "))
        rows.append(f"| `{attribute.name}` | {kinds} | {attribute.words} |")
    if len(rows) > 2:
        yield "\n".join(rows)
    for method in _methods(definition):
        yield f"#### `{name}.{method.name}`"
        yield _fenced(signature(method.name, method))
        yield unwrap(ast.get_docstring(method) or "")


def _attributes(definition: ast.ClassDef) -> Iterator[Attribute]:
    """The public fields of a class with the docstrings below them, and its properties."""
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            words = _text_of(following)
            yield Attribute(statement.target.id, _annotation(statement.annotation), words)
        elif isinstance(statement, ast.FunctionDef) and _is_property(statement):
            words = _one_line(ast.get_docstring(statement) or "")
            yield Attribute(statement.name, _annotation(statement.returns), words)


def _text_of(statement: ast.stmt | None) -> str:
    """The docstring that a statement is; empty where it is none."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return _one_line(inspect.cleandoc(str(statement.value.value)))
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _is_property(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator) == "property" for decorator in function.decorator_list)


def _methods(definition: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """The public methods, of several forms of one the last, which has the docstring."""
    for statement in definition.body:
        if not isinstance(statement, ast.FunctionDef) or statement.name.startswith("_"):
            continue
        if not statement.decorator_list:
            yield statement


def signature(name: str, function: ast.FunctionDef) -> str:
    """A call with its types, on one line or a line for each parameter."""
    parameters = _parameters(function.args)
    returns = f" -> {_annotation(function.returns)}"
    line = f"{name}({', '.join(parameters)}){returns}"
    if len(line) <= WIDTH:
        return line
    inside = "".join(f"    {parameter},\n" for parameter in parameters)
    return f"{name}(\n{inside}){returns}"


def _parameters(arguments: ast.arguments) -> list[str]:
    """Each parameter with its type and default, without `self`."""
    defaults: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
    words = []
    for argument, default in zip(arguments.args, [*defaults, *arguments.defaults], strict=True):
        if argument.arg != "self":
            words.append(_parameter(argument, default))
    if arguments.kwonlyargs:
        words.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        words.append(_parameter(argument, default))
    if arguments.kwarg:
        words.append(f"**{_parameter(arguments.kwarg, None)}")
    return words


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    words = f"{argument.arg}: {_annotation(argument.annotation)}"
    if default is None:
        return words
    value = ast.unparse(default).replace("'", '"')
    return f"{words} = {value}"


def _annotation(node: ast.expr | None) -> str:
    """A type as it reads without the quotes of a late one."""
    words = "None" if node is None else re.sub(r"['\"]", "", ast.unparse(node))
    for alias, meaning in ALIASES.items():
        words = re.sub(rf"\b{alias}\b", meaning, words)
    return words


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def _snippets() -> Iterator[str]:
    """The snippets of the model card that need other libraries alone."""
    card = CARD.read_text(encoding="utf-8")
    for heading, words in SNIPPETS.items():
        after = card.partition(f"### {heading}\n")[2]
        code = after.partition("```python\n")[2].partition("\n```")[0]
        for name, value in OF_THE_CARD.items():
            code = code.replace("{{ " + name + " }}", value)
        yield f"### {heading}"
        yield words
        yield _fenced(code)
