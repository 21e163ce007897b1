"""A YAML file and its `--set` overrides to a typed config, or one line that says what is wrong with it."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bankintent.config import Section
from bankintent.errors import ConfigError

ConfigType = TypeVar("ConfigType", bound=Section)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, which YAML would let the last one win."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f'the key "{key}" stands twice', key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(
    model: type[ConfigType], path: Path | None, overrides: Sequence[str] = (), **flags: Any
) -> ConfigType:
    """Read a YAML file into a config, apply `key=value` overrides, then the flags that were given (not None).

    Raises ConfigError with one line that names the file, the key, what was found and what was expected.
    """
    values = _read(path) if path else {}
    for override in overrides:
        _override(values, override)
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(model, detail) for detail in error.errors())
        where = f"{path}: " if path else ""
        raise ConfigError(f"{where}{problems}", "Correct the file or the --set option") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", "Name a config file; examples are in configs/"
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder, not a YAML file", "Name a config file; examples are in configs/"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", "Save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path}{line}: {getattr(error, 'problem', None) or 'is not YAML'}", "Correct it"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(
            f"{path} does not hold `key: value` lines", "See the examples in configs/"
        )
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f'--set "{override}" is not of the form key=value', "Write for example --set lora.r=8"
        )
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError:
        raise ConfigError(f'--set "{override}": the value is not YAML', "Quote it") from None
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(
                f'--set "{override}": "{parent}" is a value, not a section', "Set the key itself"
            )
        values = child
    values[last] = value


def _problem(model: type[BaseModel], detail: ErrorDetails) -> str:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path) or "the config"
    found = repr(detail["input"])
    found = found if len(found) <= 60 else found[:57] + "..."
    match detail["type"]:
        case "extra_forbidden":
            known = _keys_at(model, path[:-1])
            near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
            hint = (
                f'did you mean "{near[0]}"?'
                if near
                else f"known keys are {', '.join(sorted(known))}"
            )
            return f'unknown key "{key}"' + (f", {hint}" if known else "")
        case "missing":
            return f'the key "{key}" is missing'
        case "value_error":
            return (
                f"{key}: {detail['msg'].removeprefix('Value error, ')}"
                if path
                else detail["msg"].removeprefix("Value error, ")
            )
        case _:
            return f"{key}: {detail['msg'][0].lower()}{detail['msg'][1:]}, found {found}"


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        sections = [
            a
            for a in (annotation, *get_args(annotation))
            if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)
