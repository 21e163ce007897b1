"""Values of JSON that must have a shape: an error says where one has another."""

from typing import Any, TypeGuard

from bankintent.errors import DataError
from bankintent.files import JsonObject


def is_objects(value: Any) -> TypeGuard[list[JsonObject]]:
    """Whether a value is a list of JSON objects, and not an empty one."""
    if not value or not isinstance(value, list):
        return False

    return all(isinstance(one, dict) for one in value)


def require_object(value: Any, place: str) -> JsonObject:
    """The value as a JSON object; DataError names its place where it is none."""
    if not isinstance(value, dict):
        raise DataError(f"{place} is not a JSON object", "Export it again")
    return value


def require_list(value: Any, place: str) -> list[Any]:
    """The value as a list, an empty one for null; DataError names its place where it is none."""
    # Tools write null where nothing has been filled in.
    if value is None:
        return []

    if not isinstance(value, list):
        raise DataError(f"{place} is not a list", "Export it again")
    return value


def require_objects(value: Any, place: str) -> list[JsonObject]:
    """The value as a list of objects, an empty one for null; DataError names what is none."""
    values = require_list(value, place)

    objects = []
    for number, one in enumerate(values, 1):
        entry = f"{place}, entry {number},"
        objects.append(require_object(one, entry))

    return objects


def require_strings(value: Any, place: str) -> list[str]:
    """The value as a list of strings, an empty one for null; DataError names its place."""
    values = require_list(value, place)

    for one in values:
        if not isinstance(one, str):
            raise DataError(f"{place} holds something that is not a string", "Export it again")

    return values


def as_list(value: Any) -> list[Any]:
    """The value where it is a list; otherwise an empty one."""
    if not isinstance(value, list):
        return []
    return value


def count(value: Any) -> int:
    """How many values a list or an object has; 0 for anything else."""
    # A string has a length too, and is no number of values.
    if not isinstance(value, list | dict):
        return 0
    return len(value)


def names_of(objects: Any, key: str) -> list[str]:
    """The names that a list of objects has under a key, "" for an item that is no object."""
    names = []
    for one in as_list(objects):
        name = ""
        if isinstance(one, dict):
            name = str(one.get(key))
        names.append(name)

    return names
