"""YAML read with a config's types at hand: where a key is text or a path, its text stays as it is.

YAML 1.1 reads `yes` as true, `010` as eight, `1:30` as ninety and `2024-01-01` as a date. That is
no use where a key is the name of a column or a file, and no good where it is a number.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

INT = "tag:yaml.org,2002:int"
FLOAT = "tag:yaml.org,2002:float"
NULL = "tag:yaml.org,2002:null"
TIMESTAMP = "tag:yaml.org,2002:timestamp"

QUOTED = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""")
"""A text in quotes, from the first to the last character."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without the numbers of YAML 1.1 that people write as something else."""


def _drop_resolvers() -> dict[str, list[tuple[str, Any]]]:
    """SafeLoader's rules for plain scalars, by first character, without numbers and dates."""
    kept = {}
    for character, rules in yaml.SafeLoader.yaml_implicit_resolvers.items():
        kept[character] = [rule for rule in rules if rule[0] not in (INT, FLOAT, TIMESTAMP)]
    return kept


_Loader.yaml_implicit_resolvers = _drop_resolvers()
_Loader.add_implicit_resolver(INT, re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    FLOAT,
    # `1e-3` stays a string, which pydantic reads as a number where a number is expected.
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+|\.(?:inf|Inf|INF))$|\.nan$"),
    list("-+0123456789."),
)


def parse(text: str, annotation: Any) -> Any:
    """The value of a YAML text for a key of this type; None where it holds nothing.

    Raises yaml.YAMLError where it is not YAML, holds a key twice or a key without a value.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        return _construct(loader, node, annotation)
    except RecursionError:
        raise _error("a value holds itself") from None
    finally:
        loader.dispose()


def parse_override(text: str, annotation: Any) -> Any:
    """The value of a `--set` for a key of this type; raises like `parse`.

    Text stays as it is, but for quotes around the whole of it; without quotes, null unsets a key.
    """
    is_list = text.startswith("[") and _item_of(annotation) is not None
    if is_list or not takes_text(annotation):
        return parse(text, annotation)

    if text in ("null", "~"):
        return None
    if QUOTED.fullmatch(text):
        return parse(text, annotation)
    return text


def takes_text(annotation: Any) -> bool:
    """Whether a scalar of this type can be nothing but text: a string, a path or one of some words.

    A type that takes numbers or truth values too is read as YAML.
    """
    kinds = set()
    for member in members(annotation):
        if get_origin(member) is Literal:
            kinds |= {type(value) for value in get_args(member)}
        elif get_origin(member) is None and not _is_section(member):
            kinds.add(member)
    kinds.discard(NoneType)
    return bool(kinds) and kinds <= {str, Path}


def takes_nothing(annotation: Any) -> bool:
    """Whether None is a value of this type."""
    return NoneType in members(annotation)


def members(annotation: Any) -> Iterator[Any]:
    """The types that a type is made of: those of a union, and what `Annotated` annotates."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section of a key's type, which may be optional (`LoraSection | None`)."""
    for member in members(annotation):
        if _is_section(member):
            return member
    return None


def type_at(model: type[BaseModel], keys: list[str]) -> Any:
    """The type of the value that a path of keys leads to; Any where it leads to none."""
    annotation: Any = model
    for key in keys:
        annotation = _value_of(annotation, key)
    return annotation


def _is_section(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, BaseModel)


def _value_of(annotation: Any, key: str) -> Any:
    """The type of the value under a key of a section or a dictionary."""
    section = section_in(annotation)
    if section is not None:
        field = section.model_fields.get(key)
        return Any if field is None else field.annotation

    for member in members(annotation):
        if get_origin(member) is dict:
            return get_args(member)[1]
    return Any


def _item_of(annotation: Any) -> Any:
    """The type of the items of a list; None where the type has no list."""
    for member in members(annotation):
        if get_origin(member) is list:
            return get_args(member)[0]
    return None


def _construct(loader: _Loader, node: yaml.Node, annotation: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(loader, node, annotation)
    if isinstance(node, yaml.SequenceNode):
        item = _item_of(annotation)
        return [_construct(loader, child, item) for child in node.value]

    is_null = node.tag == NULL
    if takes_text(annotation) and not is_null:
        return node.value
    return loader.construct_object(node)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode, annotation: Any) -> dict[str, Any]:
    keys: set[str] = set()
    for key_node, value_node in node.value:
        _check_entry(key_node, value_node, keys)
        keys.add(key_node.value)

    # Puts what `<<` refers to in front of the mapping's own keys.
    loader.flatten_mapping(node)
    values = {}
    for key_node, value_node in node.value:
        key = key_node.value
        values[key] = _construct(loader, value_node, _value_of(annotation, key))
    return values


def _check_entry(key_node: yaml.Node, value_node: yaml.Node, keys: set[str]) -> None:
    """Raise YAMLError where a key is none, stands twice or has no value."""
    key = key_node.value
    if not isinstance(key, str):
        raise _error("a key is no text", key_node)
    if key in keys:
        raise _error(f'the key "{key}" stands twice', key_node)
    if value_node.tag == NULL and value_node.value == "":
        raise _error(
            f'the key "{key}" has no value (a # begins a comment: put a text with one in quotes;'
            " null unsets a key)",
            key_node,
        )


def _error(problem: str, node: yaml.Node | None = None) -> yaml.YAMLError:
    mark = None if node is None else node.start_mark
    return yaml.constructor.ConstructorError(None, None, problem, mark)
