"""Reads a YAML file and `--set` overrides into a typed config; a mistake is named in one line."""

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bankintent import __version__, config_hints, distribution, typed_yaml
from bankintent.config import Section
from bankintent.errors import ConfigError
from bankintent.texts import shorten

ConfigType = TypeVar("ConfigType", bound=Section)

MOST_VALUE_CHARACTERS = 60
"""Longest value that a message repeats in full."""


def load(
    model: type[ConfigType], path: Path | None, overrides: Sequence[str] = (), **flags: Any
) -> ConfigType:
    """Read a YAML file into a config; apply `key=value` overrides, then flags that are not None.

    Raises ConfigError with one line that names the file, the key, the value and what was expected.
    """
    values = _read(model, path) if path else {}
    for override in overrides:
        _override(model, values, override)

    # A flag that the user left out is None, and must not hide the file's value.
    for key, value in flags.items():
        if value is not None:
            values[key] = value

    return _validate(model, values, path, "Correct the file or the --set option")


def build(
    model: type[ConfigType],
    config: Path | Mapping[str, Any] | Section | None,
    overrides: Mapping[str, Any] | None = None,
) -> ConfigType:
    """A config from Python: of a YAML file, a mapping, or another config, with overrides.

    An override has a key such as `lr` or `lora.r`, and a value of Python; None unsets a key.
    Raises ConfigError as `load` does.
    """
    values = _read_any(model, config)
    for dotted, value in (overrides or {}).items():
        keys = dotted.split(".")
        if not all(keys):
            raise ConfigError(f'"{dotted}" is no key', "Write for example lora.r")
        _set(values, keys, _plain(value), dotted)

    path = config if isinstance(config, Path) else None
    return _validate(model, values, path, "Correct the config or the argument")


def _read_any(
    model: type[Section], config: Path | Mapping[str, Any] | Section | None
) -> dict[str, Any]:
    """The values of a file, a mapping or a config, as a copy that may be changed."""
    if config is None:
        return {}
    if isinstance(config, Path):
        return _read(model, config)
    if isinstance(config, Section) and not isinstance(config, model):
        raise ConfigError(
            f"the config is a {type(config).__name__}", f"Give a {model.__name__} here"
        )

    values: dict[str, Any] = _plain(config)
    return values


def _plain(value: Any) -> Any:
    """A value without sections: they, and mappings, are copied as dictionaries."""
    if isinstance(value, Section):
        # Without what was not said: some keys may not stand beside others, whatever their value.
        return value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    return value


def _validate(
    model: type[ConfigType], values: dict[str, Any], path: Path | None, next_step: str
) -> ConfigType:
    """The config of these values; ConfigError names what is wrong with them in one line."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(model, detail) for detail in error.errors()]
        file = f"{path}: " if path else ""
        raise ConfigError(file + "; ".join(problems), next_step) from None


def _find(path: Path) -> Path:
    """The file itself or, where it is not there, the one of that name that the package brings.

    From the repository nothing but the file itself is taken: its configs are in the working folder.
    """
    if path.is_absolute() or path.exists() or not distribution.is_installed():
        return path

    shipped = distribution.shipped(os.path.normpath(path))
    if not shipped.is_relative_to(distribution.SHIPPED) or not shipped.is_file():
        return path

    program = f"{distribution.PROGRAM} {__version__}"
    print(f"{path} is the one that comes with {program}", file=sys.stderr)
    return shipped


def _read(model: type[Section], path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file holds an empty one."""
    path = _find(path)
    values = _parse_yaml(model, path, _read_text(model, path))
    if values is None:
        return {}

    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} does not hold `key: value` lines", config_hints.examples(model.__name__)
        )

    return values


def _read_text(model: type[Section], path: Path) -> str:
    try:
        # Some editors begin a file with a byte order mark.
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", config_hints.examples(model.__name__)) from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder, not a YAML file", config_hints.examples(model.__name__)
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", "Save it as UTF-8") from None


def _parse_yaml(model: type[Section], path: Path, text: str) -> Any:
    try:
        return typed_yaml.parse(text, model)
    except yaml.YAMLError as error:
        # Only some classes of YAMLError have a place and a problem.
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""

        problem = getattr(error, "problem", None) or "is not YAML"
        raise ConfigError(f"{path}{line}: {problem}", config_hints.cause(problem)) from None


def _override(model: type[Section], values: dict[str, Any], override: str) -> None:
    """Set one `section.key=value` in nested values.

    Text and paths are taken as they stand; other values are read as YAML.
    """
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f'--set "{override}" is not of the form key=value', "Write for example --set lora.r=8"
        )

    annotation = typed_yaml.type_at(model, keys)
    may_be_empty = typed_yaml.takes_text(annotation) and not typed_yaml.takes_nothing(annotation)
    if not text and not may_be_empty:
        raise ConfigError(f'--set "{override}" has no value', "Write null to unset a key")
    try:
        value = typed_yaml.parse_override(text, annotation)
    except yaml.YAMLError:
        raise ConfigError(f'--set "{override}": the value is not YAML', "Quote it") from None

    _set(values, keys, value, f'--set "{override}"')


def _set(values: dict[str, Any], keys: list[str], value: Any, what: str) -> None:
    """Set a value in nested ones; `what` names the override in an error."""
    # A section that the file does not have is added.
    section = values
    for key in keys[:-1]:
        child = section.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f'{what}: "{key}" is a value, not a section', "Set the key itself")
        section = child

    section[keys[-1]] = value


def _problem(model: type[BaseModel], detail: ErrorDetails) -> str:
    """One validation error as one line: the key and the problem."""
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path) or "the config"
    message = detail["msg"]

    match detail["type"]:
        case "extra_forbidden":
            return f'unknown key "{key}"{_suggestion(model, path)}'
        case "missing":
            return f'the key "{key}" is missing{_hint(model, path)}'
        case "value_error":
            # Raised by our own validators. Without a path it is about the config as a whole.
            own_message = message.removeprefix("Value error, ")
            return f"{key}: {own_message}" if path else own_message
        case "list_type" if isinstance(detail["input"], str | int | float):
            found = shorten(repr(detail["input"]), MOST_VALUE_CHARACTERS)
            written = config_hints.as_list(detail["input"])
            return f"{key}: input should be a list, found {found}; write {written}"
        case _:
            # None is YAML's null.
            written = "null" if detail["input"] is None else repr(detail["input"])
            found = shorten(written, MOST_VALUE_CHARACTERS)
            return f"{key}: {message[0].lower()}{message[1:]}, found {found}"


def _suggestion(model: type[BaseModel], path: list[str]) -> str:
    """The known key that is most similar to an unknown one, or all of them, after a comma."""
    keys = _keys_at(model, path[:-1])
    if not keys:
        return ""

    similar = difflib.get_close_matches(path[-1], keys, n=1, cutoff=0.5)
    if similar:
        return f', did you mean "{similar[0]}"?'
    return f", known keys are {', '.join(sorted(keys))}"


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    section = _section_at(model, path)
    if section is None:
        return []
    return list(section.model_fields)


def _hint(model: type[BaseModel], path: list[str]) -> str:
    """The first sentence of a key's docstring, to follow a message; empty if it has none."""
    section = _section_at(model, path[:-1])
    field = section.model_fields.get(path[-1]) if section else None
    if field is None or not field.description:
        return ""

    description = " ".join(field.description.split())
    first_sentence = description.partition(". ")[0].rstrip(".")
    return f": {first_sentence}"


def _section_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """The section that a path of keys leads to; None where one of them is not a section."""
    section = model

    for key in path:
        # Of a list or a dictionary the path also has an index or a key, which is no field.
        field = section.model_fields.get(key)
        if field is None:
            return None

        child = typed_yaml.section_in(field.annotation)
        if child is None:
            return None
        section = child

    return section
