"""`intents.json` as chatbot tutorials have it: intents with sentences, and answers beside them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.intents_layouts import (
    ANSWERS,
    NAMES,
    Intent,
    count_items,
    find_intents,
    is_name,
    plain,
)
from bankintent.corpus.formats.sentences import ENTITIES, splits_by_name
from bankintent.corpus.rows import Row
from bankintent.errors import DataError
from bankintent.files import JsonObject
from bankintent.texts import list_some

TRACES = (
    re.compile(r"""["'](tag|intent|name|intents)["']\s*:""", re.I),
    re.compile(r"""["'](patterns|examples|utterances|phrases|questions)["']\s*:\s*\[""", re.I),
)
"""What a file of intents shows of itself even where it is no JSON."""

ENDINGS_OF_TABLES = ("csv", "tsv", "jsonl", "parquet", "xlsx")


def find(files: ExportFiles) -> list[ExportFile]:
    """The files with objects that have a name and sentences, also where they are broken."""
    if _has_table_of_train(files):
        return []

    # Lists under any names are intents only where the user has named this very file.
    is_only = len(files.files) == 1
    whole = []
    broken = []
    for file in files.with_ending(".json"):
        if find_intents(file.json, is_only):
            whole.append(file)
        elif file.json is None and _shows_traces(file):
            broken.append(file)

    # A broken file is taken so that its line is named, unless it may be of another tool.
    if whole or is_only or _is_named_intents(broken):
        return whole + broken
    return []


def _is_named_intents(broken: list[ExportFile]) -> bool:
    """Whether one of the files has `intent` in its name."""
    for file in broken:
        stem = PurePosixPath(file.name).stem
        if "intent" in stem.lower():
            return True
    return False


def _has_table_of_train(files: ExportFiles) -> bool:
    """Whether a folder holds train.csv or the like: then it is a folder of tables."""
    for file in files.files:
        stem, _, endings = file.name.lower().partition(".")
        # What follows the first ending is a compression: train.csv.gz.
        ending = endings.split(".")[0]
        if stem == "train" and ending in ENDINGS_OF_TABLES:
            return True

    return False


def _shows_traces(file: ExportFile) -> bool:
    # Both must be there: many files of other tools have a name, or a list of examples.
    text = file.peek()
    return all(trace.search(text) for trace in TRACES)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of all intents; DataError for a broken file, and for a key that is repeated."""
    split_of = splits_by_name(file.name for file in taken)
    is_only = len(files.files) == 1
    reading = _Reading()

    for file in taken:
        numbers = 0
        content = _parse(file)

        for split, objects in find_intents(content, is_only).items():
            # The name of a file says more than a key within it.
            part = split_of.get(file.name, split)

            for position, one in enumerate(objects, 1):
                intent = _require_intent(file, position, one)
                numbers += reading.add(file, part, intent, numbers)

    notes = tuple(reading.notes())
    return Export(reading.rows, left=reading.left, empty=reading.empty, notes=notes)


def _parse(file: ExportFile) -> Any:
    """The content of a file; DataError where it is no JSON, or an object has a key twice."""
    # It names the line of a fault; the second reading sees keys that the first has dropped.
    file.require_json()

    hook = _refuse_repeated(file)
    return json.loads(file.text, object_pairs_hook=hook)


def _refuse_repeated(file: ExportFile) -> Callable[[list[tuple[str, Any]]], JsonObject]:
    def to_object(pairs: list[tuple[str, Any]]) -> JsonObject:
        # A reader of JSON keeps the last value of a key, and drops the sentences of the others.
        counts = Counter(key for key, _ in pairs)

        for key, count in counts.items():
            if count > 1 and not _is_dispensable(key):
                whose = _whose(pairs)
                raise DataError(
                    f'{file.name} names "{key}" {count} times in one object{whose}',
                    "Give each intent one object with one list of sentences",
                )

        return dict(pairs)

    return to_object


def _is_dispensable(key: str) -> bool:
    """Whether a key holds no sentences of an intent, so that it may be repeated."""
    known = plain(key)
    return known in ANSWERS or known.startswith("context")


def _whose(pairs: list[tuple[str, Any]]) -> str:
    """The names of an object in brackets, for a message; empty where it has none."""
    names = []
    for key, value in pairs:
        if plain(key) in NAMES:
            names.append(str(value))

    if not names:
        return ""
    return f" ({list_some(names)})"


def _require_intent(file: ExportFile, position: int, content: Any) -> Intent:
    """The intent at a place of the list, counted from 1; DataError where it is none."""
    where = f"{file.name}: item {position} of the intents"
    if not isinstance(content, dict):
        raise DataError(f"{where} is no object", 'Expected {"tag": ..., "patterns": [...]}')

    intent = Intent.of(content)
    # An object without sentences may be anything, and needs no name.
    if intent.items and not is_name(intent.name):
        raise DataError(f"{where} has sentences and no name", 'Name the intent with "tag"')

    if not isinstance(intent.sentences, str | list | None):
        raise DataError(
            f'"{intent.key}" of "{intent.name}" in {file.name} is neither a list nor a sentence',
            "Expected a list of sentences",
        )

    return intent


@dataclass
class _Reading:
    """What is taken of one file after the other."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)
    objects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Objects of each split and intent."""
    sentences: Counter[str] = field(default_factory=Counter)
    """Sentences of each intent."""

    def add(self, file: ExportFile, split: str, intent: Intent, numbers: int) -> int:
        """Take the sentences of an intent; how many they are. Numbers go on behind `numbers`."""
        rows = self.rows.setdefault(split, [])
        items = intent.items

        for number, item in enumerate(items, numbers + 1):
            text = item
            if _has_text(item):
                text = item["text"]
                self.left[ENTITIES] += count_items(item.get("entities"))

            row = Row(file.name, number, text, intent.name)
            rows.append(row)

        self._count_left(intent)

        if intent.name is not None:
            name = _name(intent.name)
            self.objects[split, name] += 1
            self.sentences[name] += len(items)

        return len(items)

    def _count_left(self, intent: Intent) -> None:
        """Count what is not taken of an intent."""
        self.left["responses"] += intent.answers

        for key, count in intent.others.items():
            what = f'sentences under "{key}" beside "{intent.key}"'
            self.left[what] += count

        # One sentence that is no list is there, or there is none: neither is an empty one.
        if isinstance(intent.sentences, list):
            blank = len(intent.sentences) - len(intent.items)
            self.left["empty sentences"] += blank

    def notes(self) -> Iterator[str]:
        """Sentences for people about intents in several objects."""
        several = set()
        for (_, name), count in self.objects.items():
            if count > 1:
                several.add(name)

        joined = sorted(several)
        if joined:
            yield (
                f"{_number(joined)} in more than one object of the file; the sentences of these "
                f"objects are taken together: {list_some(joined)}."
            )

    @property
    def empty(self) -> tuple[str, ...]:
        """The intents without sentences."""
        names = []
        for name, count in self.sentences.items():
            if count == 0:
                names.append(name)

        return tuple(sorted(names))


def _has_text(item: Any) -> bool:
    return isinstance(item, dict) and "text" in item


def _name(name: Any) -> str:
    """The name of an intent; a list with one name is that name."""
    if isinstance(name, list) and len(name) == 1:
        return str(name[0])
    return str(name)


def _number(names: list[str]) -> str:
    if len(names) == 1:
        return "1 intent is"
    return f"{len(names)} intents are"


FORMAT = Format("intents.json", "intents.json", find, read)
