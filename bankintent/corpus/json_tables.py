"""Readers of JSON and JSON lines: objects in a list, at the top or one level down."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bankintent.config import TableKeys
from bankintent.corpus import encoding as encodings
from bankintent.corpus import limits
from bankintent.corpus.records import HeldTable, Record, infer_schema
from bankintent.errors import DataError

JsonRecord = dict[str, Any]

LINES_HEAD = 1 << 16
"""Characters of a broken file that are looked at for JSON lines."""


class _RepeatedKey(ValueError):
    """An object names a key twice, of which a reader would drop the first."""


def open_jsonl(path: Path, keys: TableKeys, most_rows: int | None = None) -> HeldTable:
    """Read a file of JSON lines; DataError names the line that is no object."""
    text, encoding = _decode(path, keys)
    numbered: list[tuple[int, JsonRecord]] = []

    # Not splitlines, which also breaks lines at characters that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            numbered.append((number, _parse_line(line, f"{path} line {number}")))
            limits.require_rows(path, len(numbered), most_rows)

    names = _column_names(path, [record for _, record in numbered])
    records = []
    for number, record in numbered:
        records.append(Record(number, number, _take_cells(record, names)))
    return HeldTable(
        path, infer_schema(names, records), "JSON lines", encoding=encoding, held=records
    )


def open_json(path: Path, keys: TableKeys, most_rows: int | None = None) -> HeldTable:
    """Read a JSON file with a list of objects, or with one such list under some key."""
    text, encoding = _decode(path, keys)
    objects = _find_objects(path, _parse_whole(path, text))
    limits.require_rows(path, len(objects), most_rows)
    names = _column_names(path, objects)

    records = []
    for number, record in enumerate(objects, 1):
        records.append(Record(number, None, _take_cells(record, names)))
    return HeldTable(path, infer_schema(names, records), "JSON", encoding=encoding, held=records)


def parse_json(path: Path, keys: TableKeys) -> Any:
    """The content of a JSON file; DataError where it is none."""
    text, _ = _decode(path, keys)
    return _parse_whole(path, text)


def _parse_whole(path: Path, text: str) -> Any:
    try:
        return _parse_json(text)
    except _RepeatedKey as error:
        raise DataError(f'{path} names "{error}" twice in one object', "Rename one") from None
    except (ValueError, RecursionError) as error:
        next_step = "Correct it at that place, or export it again"
        if _looks_like_lines(text):
            next_step = "It looks like JSON lines, whose name must end in .jsonl: rename it"
        raise DataError(f"{path} is not JSON ({error})", next_step) from None


def _looks_like_lines(text: str) -> bool:
    """Whether the first two lines of a text are an object each."""
    lines = [line for line in text[:LINES_HEAD].split("\n") if line.strip()]
    if len(lines) < 2:
        return False
    try:
        return all(isinstance(json.loads(line), dict) for line in lines[:2])
    except (ValueError, RecursionError):
        return False


def _decode(path: Path, keys: TableKeys) -> tuple[str, str]:
    """(the file's text, the name of its encoding)."""
    with encodings.readable(path):
        codec = encodings.find_encoding(path, keys.encoding)
    with encodings.readable(path, codec), encodings.open_text(path, codec) as file:
        return file.read(), encodings.name_encoding(codec)


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> JsonRecord:
    """A JSON object; _RepeatedKey where a key stands twice in it."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKey(repeated)
    return record


def _parse_line(line: str, where: str) -> JsonRecord:
    try:
        record = _parse_json(line)
    except _RepeatedKey as error:
        raise DataError(f'{where} names "{error}" twice', "Rename one") from None
    except (ValueError, RecursionError):
        raise DataError(f"{where} is not JSON", "Correct or remove that line") from None
    if not isinstance(record, dict):
        raise DataError(f"{where} is not a JSON object", 'Expected {"text": ..., "label": ...}')
    return record


def _find_objects(path: Path, content: Any) -> list[JsonRecord]:
    """The list of objects that a JSON file holds: the file itself, or the only one a level down."""
    if _is_list_of_objects(content):
        return list(content)

    lists: dict[str, list[JsonRecord]] = {}
    if isinstance(content, dict):
        lists = dict(_lists_of_objects(content))
    if not lists:
        raise DataError(
            f"{path} is neither a list of objects nor CLINC150's layout",
            'Expected [{"text": ..., "label": ...}, ...], or one such list under a key',
        )
    if len(lists) > 1:
        raise DataError(
            f"{path} holds {len(lists)} lists of objects: {', '.join(lists)}",
            "Save each to a file of its own (a folder of train.json and test.json is one dataset)",
        )
    [objects] = lists.values()
    return objects


def _lists_of_objects(content: JsonRecord) -> Iterator[tuple[str, list[JsonRecord]]]:
    for key, value in content.items():
        # An empty list may be one of anything.
        if value and _is_list_of_objects(value):
            yield key, value


def _is_list_of_objects(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(item, dict) for item in value)


def _column_names(path: Path, records: list[JsonRecord]) -> list[str]:
    """All keys, in the order in which they are met; DataError where they are far too many."""
    # A dict keeps the order, which a set does not.
    names: dict[str, None] = {}
    filled = 0
    for record in records:
        names |= dict.fromkeys(record)
        filled += len(record)
        limits.require_columns(path, len(names))

    limits.require_filled(path, len(records) * len(names), filled)
    return list(names)


def _take_cells(record: JsonRecord, names: list[str]) -> list[Any]:
    return [record.get(name) for name in names]
