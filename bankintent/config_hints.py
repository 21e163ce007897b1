"""What to do about a config that cannot be read: examples that are there, and usual causes."""

import re
from typing import Any

import yaml

from bankintent import distribution
from bankintent.texts import list_some

KINDS = {"FrontendConfig": "page", "CompareModelsConfig": "compare-models"}
"""Kinds of configs that are not called after their class."""

CAUSES = {
    "mapping values are not allowed": (
        'Put a value that holds ": " into quotes, and write "key: value" with no more indentation'
        " than the lines beside it"
    ),
    r"character '\\t'": "Indent with blanks, not with tabs",
    "that cannot start any token|undefined alias|constructor for the tag": (
        "Put a value that begins with one of * & ! % @ ` into quotes"
    ),
    "but got '<stream end>'": "Close the bracket of a list, or put a value that begins with one"
    " into quotes",
    "unexpected end of stream": "Close the quotes",
    "unknown escape character": "Use single quotes around a value that has a backslash",
    "expected <block end>": "Check the indentation, and the quotes and brackets before this place",
    "could not find expected ':'": 'Write "key: value" on each line',
}
"""Pattern of a message of PyYAML -> what mostly is the cause, as what to do."""


def cause(problem: str) -> str:
    """What to do about a problem that PyYAML names."""
    for pattern, to_do in CAUSES.items():
        if re.search(pattern, problem):
            return to_do
    return "Correct it"


def examples(model: str) -> str:
    """Where configs of a class are that can be named."""
    if not distribution.is_installed():
        return "Name a config file; examples are in configs/"

    names = shipped_examples(KINDS.get(model, model.removesuffix("Config").lower()))
    if not names:
        return "Name a config file of your own"
    return f"Name a config file of your own, or one that the package brings: {list_some(names)}"


def shipped_examples(kind: str) -> list[str]:
    """The configs of a kind that come with the package, the recommended ones first."""
    configs = distribution.shipped("configs")
    names = []
    for path in sorted(configs.rglob("*.yaml")):
        # Their first line names their schema.
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        if first.endswith(f"/{kind}.schema.json"):
            names.append(path.relative_to(configs.parent).as_posix())
    return sorted(names, key=_recommended_first)


def _recommended_first(name: str) -> tuple[bool, str]:
    return not name.startswith("configs/recommended/"), name


def as_list(value: Any) -> str:
    """A scalar that stands where a list belongs, as the list that is meant."""
    written = f"[{value}]"
    try:
        # A comma stands between two values.
        is_plain = all(isinstance(item, str) for item in yaml.safe_load(written))
    except yaml.YAMLError:
        is_plain = False
    if is_plain:
        return written
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True).strip()
