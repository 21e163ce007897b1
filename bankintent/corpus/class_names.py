"""Names of classes as the library `datasets` keeps them: a ClassLabel's ids stand for names."""

from typing import Any

from bankintent.errors import DataError


def find_class_names(feature: Any) -> tuple[str, ...] | None:
    """The names of a column's classes, from its feature as JSON; None where it has none.

    Also of a list of classes.
    """
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return tuple(feature.get("names") or ()) or None
    # `Sequence` in older versions, `List` in newer ones.
    return find_class_names(feature.get("feature"))


def name_class(value: Any, names: tuple[str, ...], where: str) -> Any:
    """The name that a class id stands for, and of a list of ids their names.

    None where a row has no class (null, or the id -1). Raises DataError where an id names none.
    """
    if isinstance(value, list):
        return [name_class(item, names, where) for item in value]
    if value is None or value == -1:
        return None
    if not isinstance(value, int):
        return value

    if not 0 <= value < len(names):
        raise DataError(f"{where} holds the class {value}, but has {len(names)} names of classes")
    return names[value]
