"""Amazon Lex: bots of version 2 as a zip or a folder, bots and intents of version 1 as JSON."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import (
    count,
    is_objects,
    require_object,
    require_objects,
    require_strings,
)
from bankintent.corpus.formats.languages import Languages
from bankintent.corpus.formats.sentences import number_rows
from bankintent.corpus.rows import Row
from bankintent.files import JsonObject

INTENT = re.compile(
    r"(?:(?:.*/)?(?P<locale>[^/]+)/)?Intents/(?P<folder>[^/]+)/Intent\.json", re.IGNORECASE
)
"""The path of an intent of version 2."""

SLOT = re.compile(r"(.*/)?Slots/[^/]+/Slot\.json", re.IGNORECASE)
OWN = re.compile(
    r"(.*/)?(Manifest|Bot|BotLocale|Intent|Slot|SlotType)\.json|(.*/)?CustomVocabulary/.*",
    re.IGNORECASE,
)
"""Files of a bot of version 2 beside its sentences."""

SLOT_TYPE = re.compile(r"(.*/)?SlotTypes/[^/]+/SlotType\.json", re.IGNORECASE)


@dataclass(frozen=True)
class Intent:
    """The sentences of one intent."""

    file: ExportFile
    locale: str
    name: str
    utterances: list[str]


def find_v2(files: ExportFiles) -> list[ExportFile]:
    """The files of intents, also of those without sentences."""
    found = []
    for file in files.with_ending(".json"):
        if not INTENT.fullmatch(file.name):
            continue

        # One that is no JSON is taken too: the reader says where it is broken.
        if file.json is None or _is_v2_intent(file.json):
            found.append(file)

    return found


def _is_v2_intent(content: Any) -> bool:
    if not isinstance(content, dict) or "sampleUtterances" not in content:
        return False
    # An intent without sentences is one all the same.
    utterances = content["sampleUtterances"] or [{"utterance": ""}]
    return is_objects(utterances) and all("utterance" in one for one in utterances)


def read_v2(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sample utterances of one locale.

    Raises DataError for a broken file, and where `language` has to be chosen.
    """
    intents = [_open_v2(file) for file in taken]
    export = make_export(files, intents, config)

    slots = 0
    slot_types = 0
    for file in files.files:
        slots += bool(SLOT.fullmatch(file.name))
        slot_types += bool(SLOT_TYPE.fullmatch(file.name))

    left = {"slots": slots, "slot types": slot_types, **export.left}
    return replace(export, left=left)


def _open_v2(file: ExportFile) -> Intent:
    path = INTENT.fullmatch(file.name)
    content = require_object(file.require_json(), file.name)
    place = f"{file.name}: sampleUtterances"

    utterances = []
    for one in require_objects(content.get("sampleUtterances"), place):
        utterances.append(one.get("utterance"))

    folder = PurePosixPath(file.name).stem
    locale = ""
    if path:
        folder = path["folder"]
        # The path may begin at Intents, with no folder of a locale.
        locale = path["locale"] or ""

    name = str(content.get("name") or folder)
    sentences = require_strings(utterances, place)
    return Intent(file, locale, name, sentences)


def find_v1(files: ExportFiles) -> list[ExportFile]:
    """Files of a bot or an intent of version 1 that have sentences."""
    found = []
    for file in files.with_ending(".json"):
        if any(map(_is_v1_intent, _resource_intents(file.json))):
            found.append(file)
    return found


def _resource_intents(content: Any) -> list[JsonObject]:
    """The intents of a file of version 1: those of a bot, or the one that it is."""
    if not isinstance(content, dict):
        return []

    resource = content.get("resource")
    if not isinstance(resource, dict):
        return []

    intents = resource.get("intents", [resource])
    if is_objects(intents):
        return intents
    return []


def _is_v1_intent(intent: JsonObject) -> bool:
    utterances = intent.get("sampleUtterances")
    if not utterances or not isinstance(utterances, list) or "name" not in intent:
        return False
    return all(isinstance(one, str) for one in utterances)


def read_v1(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sample utterances of one locale; DataError where `language` has to be chosen."""
    intents = []
    left: Counter[str] = Counter()
    for file in taken:
        resource = file.require_json()["resource"]
        locale = str(resource.get("locale") or "")
        for intent in _resource_intents(file.json):
            name = str(intent.get("name"))
            place = f'{file.name}: the utterances of "{name}"'
            utterances = require_strings(intent.get("sampleUtterances"), place)
            intents.append(Intent(file, locale, name, utterances))
            left["slots"] += count(intent.get("slots"))
        left["slot types"] += count(resource.get("slotTypes"))

    export = make_export(files, intents, config)
    return replace(export, left={**left, **export.left})


def make_export(files: ExportFiles, intents: list[Intent], config: DataConfig) -> Export:
    """The rows of the chosen locale; DataError where it has to be chosen."""
    languages = Languages()
    for intent in intents:
        languages.add(intent.locale, intent.name, len(intent.utterances))
    choice = languages.choose(files.path, config.language)
    chosen = []
    empty = []
    for intent in intents:
        if intent.locale in choice.names:
            chosen.append(intent)
            if not intent.utterances:
                empty.append(intent.name)

    rows = {"all": _read_rows(chosen)}
    return Export(rows, left=choice.left, empty=tuple(empty), notes=choice.notes)


def _read_rows(chosen: list[Intent]) -> list[Row]:
    rows: list[Row] = []
    numbers: Counter[str] = Counter()
    # A file of version 1 may hold several intents: its sentences are numbered on.
    for intent in chosen:
        name = intent.file.name
        first = numbers[name] + 1
        part = number_rows(intent.file, _pairs(intent), first)
        numbers[name] += len(part)
        rows += part

    return rows


def _pairs(intent: Intent) -> Iterator[tuple[str, str]]:
    for utterance in intent.utterances:
        yield utterance, intent.name


V2_FORMAT = Format("Amazon Lex V2", "Amazon Lex", find_v2, read_v2, OWN)
V1_FORMAT = Format("Amazon Lex V1", "Amazon Lex", find_v1, read_v1)
