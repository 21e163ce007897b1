"""What readers of exports make of sentences: rows, splits, and what is said of them."""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from bankintent.corpus.formats.files import ExportFile
from bankintent.corpus.rows import SPLIT_NAMES, Row
from bankintent.errors import DataError
from bankintent.files import JsonObject

ENTITIES = "entities (their words stay)"
"""How parts of sentences that an export marks as entities are counted in what is left."""

ENTITY_TYPES = "entity types"
"""The same for the definitions of entities."""

WHOLE = "all"
"""The split of rows that are in none."""

NEVER_AN_INTENT = "none"
"""The intent of sentences that have none of the intents, in lower case: LUIS and CLU create it."""


def join_parts(parts: Iterable[JsonObject], place: str) -> str:
    """The sentence whose words stand in the `text` of several parts.

    Raises DataError where a part has a text that is no string.
    """
    words = []
    for part in parts:
        text = part.get("text", "")
        if not isinstance(text, str):
            raise DataError(f'{place} has a part whose "text" is not a string', "Export it again")
        words.append(text)
    return "".join(words)


def number_rows(file: ExportFile, labelled: Iterable[tuple[Any, Any]], first: int = 1) -> list[Row]:
    """The rows of (text, label) pairs of a file, numbered from `first`."""
    rows = []
    for number, (text, label) in enumerate(labelled, first):
        rows.append(Row(file.name, number, text, label))
    return rows


def pool(splits: Mapping[str, list[Row]]) -> list[Row]:
    """The rows of all splits, one split after the other."""
    rows: list[Row] = []
    for part in splits.values():
        rows += part
    return rows


def splits_by_name(names: Iterable[str]) -> dict[str, str]:
    """The split of each file where all are named after one, train among them; else empty.

    One file alone is no division.
    """
    splits = {}
    for name in names:
        split = SPLIT_NAMES.get(PurePosixPath(name).stem.lower())
        if split is None:
            return {}
        splits[name] = split
    return splits if len(splits) > 1 and "train" in splits.values() else {}


def whole(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows that are in no split; no split at all where there are none."""
    return {WHOLE: rows} if rows else {}


def has_no_intent(row: Row) -> bool:
    """Whether a row is of the intent None."""
    return isinstance(row.label, str) and row.label.lower() == NEVER_AN_INTENT


def names_without(intents: Iterable[str], rows: Iterable[Row]) -> tuple[str, ...]:
    """Those of the intents that no row has, each once; the intent None is none."""
    found = {str(row.label) for row in rows}
    names = dict.fromkeys(name for name in intents if name and name not in found)
    return tuple(name for name in names if name.lower() != NEVER_AN_INTENT)


def say_out_of_scope(what: str, count: int) -> list[str]:
    """A note on sentences that are kept as out of scope; none where there are none."""
    return [f"{what}, kept as out of scope: {count:,}."] if count else []
