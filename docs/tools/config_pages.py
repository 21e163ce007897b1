"""docs/reference/config: a page for each kind of YAML file, from the models' docstrings."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from docs.tools import schemas, wording
from docs.tools.kinds import KINDS, Kind, in_repository

REPOSITORY = Path(__file__).parents[2]

OVERVIEW = Path("docs/reference/config.md")
FOLDER = Path("docs/reference/config")

GENERATED = "*Written by `make reference` from the code and its docstrings.*"
"""The last line of every page."""

MAPPINGS = re.compile(r"(\.\*)+")
"""Stands in a path for the names of a mapping."""

DOCS_PAGE = re.compile(r"`?\bdocs/([\w/-]+\.md)\b`?")


@dataclass(frozen=True)
class Key:
    """One key of a file."""

    path: str
    """Dotted, such as `lora.r`."""
    node: dict[str, Any]
    """Its JSON Schema."""
    is_required: bool


@dataclass(frozen=True)
class Group:
    """A section of a file, or its keys at the top."""

    path: str
    """Empty at the top."""
    description: str
    key: Key | None
    """The key that the section is the value of; None at the top."""
    keys: tuple[Key, ...]
    """Without those that are sections themselves."""


def pages() -> dict[Path, str]:
    """Each page and its text."""
    texts = {OVERVIEW: overview()}
    for kind in KINDS:
        texts[FOLDER / f"{kind.name}.md"] = page(kind)
    return texts


def overview() -> str:
    """The page that names the kinds and says how all of them are read."""
    rows = ["| file | read by | what it sets |", "| --- | --- | --- |"]
    for kind in KINDS:
        commands = ", ".join(f"`{in_repository(verb)}`" for verb in kind.verbs)
        link = f"[{kind.name}.yaml](config/{kind.name}.md)"
        rows.append(f"| {link} | {commands} | {summary(kind)} |")
    text = (Path(__file__).parent / "config_overview.txt").read_text(encoding="utf-8")
    return text.replace("<KINDS>", "\n".join(rows)) + f"\n{GENERATED}\n"


def page(kind: Kind) -> str:
    """The page of one kind of file."""
    groups = list(groups_of(kind))
    commands = " and ".join(f"`{in_repository(verb)} --config FILE`" for verb in kind.verbs)
    blocks = [
        f"# {kind.name}.yaml",
        f"{summary(kind)}",
        f"Read by {commands}. How all files are read, and how the command line sets a key, is on"
        " [Configuration files](../config.md). JSON Schema:"
        f" `{schemas.path_of(kind).as_posix()}`.",
        "A small file:",
        f"```yaml\n{kind.example}```",
        _index(kind, groups),
    ]
    for group in groups:
        blocks += _group_blocks(kind, group)
    blocks.append(GENERATED)
    return "\n\n".join(blocks) + "\n"


def summary(kind: Kind) -> str:
    """What a kind of file is, in a sentence without its name."""
    text = schemas.unwrap(kind.model.__doc__ or "").partition("\n\n")[0]
    text = text.removeprefix(f"{kind.name}.yaml: ")
    sentence = text.partition(". ")[0].rstrip(".")
    return f"{sentence[0].upper()}{sentence[1:]}."


def groups_of(kind: Kind) -> Iterator[Group]:
    """The keys at the top of a file, then each section."""
    schema = schemas.raw_schema(kind.model)
    names = _own_keys_first(kind.model)
    yield from _groups("", None, schema, schema.get("$defs", {}), names)


def _own_keys_first(model: type[BaseModel]) -> list[str]:
    """A class's own keys stand before those that it shares with others."""
    own = [name for name in model.model_fields if name in model.__annotations__]
    return [*own, *(name for name in model.model_fields if name not in own)]


def _groups(
    path: str,
    key: Key | None,
    schema: dict[str, Any],
    definitions: dict[str, Any],
    names: list[str] | None = None,
) -> Iterator[Group]:
    plain = []
    sections = []
    for name in names or schema["properties"]:
        node = schema["properties"][name]
        inner = Key(f"{path}.{name}".lstrip("."), node, name in schema.get("required", []))
        found = list(_sections_in(node))
        if found:
            sections += [(inner, steps, section) for steps, section in found]
        if not found or found[0][0]:
            plain.append(inner)

    yield Group(path, schema["description"], key, tuple(plain))
    for inner, steps, section in sections:
        yield from _groups(inner.path + steps, inner, definitions[section], definitions)


def _sections_in(node: Any, steps: str = "") -> Iterator[tuple[str, str]]:
    """(`.*` for each mapping on the way, the section's name) of the sections in a key's value."""
    if "$ref" in node:
        yield steps, node["$ref"].rpartition("/")[2]
    for union in ("anyOf", "oneOf"):
        for child in node.get(union, []):
            yield from _sections_in(child, steps)
    inner = node.get("additionalProperties")
    # Keys that have to be of some form are a pattern.
    patterns = node.get("patternProperties", {}).values()
    for values in [*([inner] if isinstance(inner, dict) else []), *patterns]:
        yield from _sections_in(values, f"{steps}.*")


def anchor(kind: Kind, path: str) -> str:
    """The name by which a key of a kind can be linked to, such as `train.lora.r`."""
    return f"{kind.name}.{MAPPINGS.sub('.each', path)}"


def _index(kind: Kind, groups: list[Group]) -> str:
    """Every key as a link, a line for each section."""
    lines = []
    for group in groups:
        links = []
        for key in group.keys:
            name = key.path.rpartition(".")[2]
            links.append(f"[`{name}`](#{anchor(kind, key.path)})")
        keys = " · ".join(links)
        if group.path:
            lines.append(f"- [`{group.path}`](#{anchor(kind, group.path)}): {keys}")
        else:
            lines.append(f"- {keys}")
    return "\n".join(lines)


def _group_blocks(kind: Kind, group: Group) -> Iterator[str]:
    if group.key is not None:
        yield _heading(kind, 2, group.path)
        yield from _section_blocks(kind, group, group.key)
    else:
        yield "## Keys"
    for key in group.keys:
        yield _heading(kind, 3, key.path)
        yield _facts(kind, key)
        yield _prose(key.node.get("description", ""), wording.values_of(key.node))


def _section_blocks(kind: Kind, group: Group, key: Key) -> Iterator[str]:
    """What a section is, and what its key says of it."""
    if key.path == group.path:
        yield _facts(kind, key)
        own = key.node.get("description", group.description)
        if own != group.description:
            yield _prose(own, wording.values_of(key.node))
    yield _prose(group.description, [])


def _heading(kind: Kind, level: int, path: str) -> str:
    return f'<a id="{anchor(kind, path)}"></a>\n\n{"#" * level} `{path}`'


def _facts(kind: Kind, key: Key) -> str:
    """The line under a key's name: its type and its default."""
    words = wording.type_words(key.node)
    if not key.is_required:
        return f"{words[0].upper()}{words[1:]}. {_default(key.node)}"
    if key.path in kind.on_the_command_line:
        return f"{words[0].upper()}{words[1:]}. **Required**, here or on the command line."
    return f"{words[0].upper()}{words[1:]}. **Required.**"


def _default(node: dict[str, Any]) -> str:
    default = node["default"]
    if default == {} and "additionalProperties" not in node:
        return "Default: the values below."
    return f"Default: {wording.code(default)}."


def _prose(text: str, values: list[str]) -> str:
    words = wording.prose(text, values)
    return DOCS_PAGE.sub(_link, words)


def _link(match: re.Match[str]) -> str:
    """A link to a page that a docstring names; the words as they are where there is none."""
    target = REPOSITORY / "docs" / match.group(1)
    if not target.is_file():
        return match.group(0)
    path = os.path.relpath(target, REPOSITORY / FOLDER)
    return f"[docs/{match.group(1)}]({Path(path).as_posix()})"
