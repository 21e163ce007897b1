"""Dialogflow CX: an exported agent as a zip or a folder, or its intents as one JSON file."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import is_objects, require_object, require_objects
from bankintent.corpus.formats.languages import Languages
from bankintent.corpus.formats.sentences import (
    ENTITIES,
    join_parts,
    number_rows,
    say_out_of_scope,
    whole,
)
from bankintent.corpus.rows import Row
from bankintent.files import JsonObject

PHRASES = re.compile(r"(?:.*/)?(?P<folder>[^/]+)/trainingPhrases/(?P<language>[^/]+)\.json")
"""The path of the sentences of one intent in one language."""

OTHERS = {
    "entity types": re.compile(r"(.*/)?entityTypes/[^/]+/[^/]+\.json"),
    "flows": re.compile(r"(.*/)?flows/[^/]+/[^/]+\.json"),
    "pages": re.compile(r"(.*/)?flows/[^/]+/pages/[^/]+\.json"),
    "webhooks": re.compile(r"(.*/)?webhooks/[^/]+\.json"),
}
"""Files of an agent that hold no sentences of intents, by what is counted."""

OWN = re.compile(
    r"(.*/)?(agent|[^/]*[sS]ettings)\.json"
    r"|(.*/)?(intents|entityTypes|flows|webhooks|testCases|playbooks|tools)/.*\.json"
)
"""Files of an agent beside its sentences."""

NEGATIVE = "Default Negative Intent"


@dataclass(frozen=True)
class _Intent:
    """The sentences of one intent of a file in one language."""

    file: ExportFile
    name: str
    language: str
    is_negative: bool
    phrases: list[JsonObject]


def find(files: ExportFiles) -> list[ExportFile]:
    """Files of training phrases in an agent's folders, and files of intents that have their own.

    Of an agent without any phrase the files of its intents are taken, so that they can be named.
    """
    found = []
    for file in files.with_ending(".json"):
        if PHRASES.fullmatch(file.name):
            if file.json is None or _has_phrases(file.json):
                found.append(file)
        elif any(map(_has_name_and_phrases, _listed_intents(file.json))):
            found.append(file)
    return found or [file for file in files.with_ending(".json") if _is_bare_intent(file)]


def _is_bare_intent(file: ExportFile) -> bool:
    """Whether a file is `intents/NAME/NAME.json` of an agent."""
    path = PurePosixPath(file.name)
    if path.parent.parent.name != "intents" or path.stem != path.parent.name:
        return False
    content = file.json
    return isinstance(content, dict) and {"name", "displayName"} <= content.keys()


def _listed_intents(content: Any) -> list[Any]:
    """The intents that a JSON file lists; none where it is something else."""
    if isinstance(content, dict):
        listed = content.get("intents")
        content = listed if listed is not None else [content]
    return content if isinstance(content, list) else []


def _has_name_and_phrases(value: Any) -> bool:
    return isinstance(value, dict) and "displayName" in value and _has_phrases(value)


def _has_phrases(value: Any) -> bool:
    phrases = value.get("trainingPhrases") if isinstance(value, dict) else None
    return is_objects(phrases) and all("parts" in phrase for phrase in phrases)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The training phrases of one language; those of the negative intent have no intent.

    Raises DataError for a broken file, and where `language` has to be chosen.
    """
    own_files = _read_own_files(files)
    intents: list[_Intent] = []
    for file in taken:
        intents += _read_intents(file, own_files)

    languages = Languages()
    for intent in intents:
        languages.add(intent.language, intent.name, len(intent.phrases))
    choice = languages.choose(files.path, config.language)
    chosen = [one for one in intents if one.language in choice.names and one.phrases]

    rows, negative = _read_rows(chosen)
    return Export(
        {"all": rows},
        whole(negative),
        _count_left(files, chosen) | choice.left,
        _names_without(own_files, intents, chosen),
        (*choice.notes, *say_out_of_scope(f'Sentences of "{NEGATIVE}"', len(negative))),
    )


def _read_own_files(files: ExportFiles) -> dict[str, JsonObject]:
    """The files `intents/NAME/NAME.json` of an agent, by their folder."""
    own = {}
    for file in files.with_ending(".json"):
        path = PurePosixPath(file.name)
        if path.parent.parent.name == "intents" and path.stem == path.parent.name:
            own[str(path.parent)] = require_object(file.require_json(), file.name)
    return own


def _read_intents(file: ExportFile, own_files: dict[str, JsonObject]) -> Iterator[_Intent]:
    content = file.require_json()
    match = PHRASES.fullmatch(file.name)
    if match is not None:
        own = own_files.get(str(PurePosixPath(file.name).parent.parent), {})
        name = own.get("displayName") or unquote(match["folder"])
        whole = own | require_object(content, file.name)
        yield _open(file, whole, str(name), match["language"])
        return

    for intent in _listed_intents(content):
        name = require_object(intent, file.name).get("displayName")
        for language, phrases in _by_language(intent, file.name).items():
            yield _open(file, intent | {"trainingPhrases": phrases}, str(name), language)


def _by_language(intent: JsonObject, place: str) -> dict[str, list[JsonObject]]:
    """The phrases of an intent by the language that each names; "" where it names none."""
    groups: dict[str, list[JsonObject]] = {}
    for phrase in require_objects(intent.get("trainingPhrases"), place):
        groups.setdefault(str(phrase.get("languageCode") or ""), []).append(phrase)
    # An intent without phrases counts as one.
    return groups or {"": []}


def _open(file: ExportFile, intent: JsonObject, name: str, language: str) -> _Intent:
    phrases = require_objects(intent.get("trainingPhrases"), file.name)
    is_negative = name == NEGATIVE or intent.get("isFallback") is True
    return _Intent(file, name, language, is_negative, phrases)


def _read_rows(chosen: list[_Intent]) -> tuple[list[Row], list[Row]]:
    """(rows of intents, rows without one)."""
    rows: list[Row] = []
    negative: list[Row] = []
    numbers: Counter[str] = Counter()

    for intent in chosen:
        first = numbers[intent.file.name] + 1
        part = number_rows(intent.file, _pairs(intent), first)
        numbers[intent.file.name] += len(part)
        (negative if intent.is_negative else rows).extend(part)
    return rows, negative


def _pairs(intent: _Intent) -> Iterator[tuple[str, str]]:
    for number, phrase in enumerate(intent.phrases, 1):
        place = f'{intent.file.name}, sentence {number} of "{intent.name}",'
        yield (
            join_parts(require_objects(phrase.get("parts"), place), place),
            intent.name,
        )


def _names_without(
    own_files: dict[str, JsonObject], intents: list[_Intent], chosen: list[_Intent]
) -> tuple[str, ...]:
    """The names of intents without sentences in the chosen language."""
    names: dict[str, None] = {}
    for folder, own in own_files.items():
        names[str(own.get("displayName") or unquote(PurePosixPath(folder).name))] = None
    for intent in intents:
        names[intent.name] = None

    named = {intent.name for intent in chosen}
    return tuple(name for name in names if name not in named)


def _count_left(files: ExportFiles, chosen: list[_Intent]) -> dict[str, int]:
    marked = 0
    for intent in chosen:
        for phrase in intent.phrases:
            marked += sum(bool(part.get("parameterId")) for part in phrase["parts"] or [])

    left = {ENTITIES: marked}
    for name, path in OTHERS.items():
        left[name] = sum(bool(path.fullmatch(file.name)) for file in files.files)
    return left


FORMAT = Format("Dialogflow CX", "Dialogflow", find, read, OWN)
