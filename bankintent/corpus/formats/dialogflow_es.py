"""Dialogflow ES, once API.AI: an agent as a zip or a folder of JSON files."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import count, is_objects, require_objects
from bankintent.corpus.formats.languages import Languages
from bankintent.corpus.formats.sentences import (
    ENTITIES,
    ENTITY_TYPES,
    join_parts,
    number_rows,
    say_out_of_scope,
    whole,
)
from bankintent.corpus.rows import Row
from bankintent.files import JsonObject

SENTENCES = re.compile(
    r"(?P<intent>.*)_usersays_(?P<language>[a-z]{2,3}([-_]\w{2,4})?)\.json", re.IGNORECASE
)
"""The name of a file with the sentences of one intent in one language."""

IGNORED = "@sys.ignore"
"""Marks a word that is part of no entity."""

INTENT_KEYS = {"responses", "fallbackIntent", "userSays", "webhookUsed"}
"""Keys of which an intent's own file has at least one."""

OWN = re.compile(r"(.*/)?(agent|package)\.json|(.*/)?(intents|entities)/[^/]+\.json")
"""Files of an agent beside its sentences."""

TEMPLATES = 'Words such as "@sys.date:date" stand for an entity and stay as they are'


@dataclass(frozen=True)
class _Sentences:
    """The sentences of one intent in one language."""

    file: ExportFile
    language: str
    intent: JsonObject
    """The intent's own file; empty where the export lacks it."""
    name: str
    entries: list[JsonObject]

    @property
    def is_fallback(self) -> bool:
        """Whether they are negative examples, for which none of the intents is the answer."""
        return self.intent.get("fallbackIntent") is True


def find(files: ExportFiles) -> list[ExportFile]:
    """Files of sentences, and intents of older exports that hold their own.

    Of an agent without any sentence the files of its intents are taken, so that they can be named.
    """
    found = [file for file in files.with_ending(".json") if _has_sentences(file)]
    if found or not any(map(_is_agent, files.files)):
        return found
    return [file for file in files.with_ending(".json") if _is_intent(file)]


def _is_agent(file: ExportFile) -> bool:
    """Whether a file is the settings of an agent of Dialogflow ES."""
    path = PurePosixPath(file.name)
    content = file.json if path.name == "agent.json" else None
    return isinstance(content, dict) and "displayName" not in content


def _is_intent(file: ExportFile) -> bool:
    content = file.json if PurePosixPath(file.name).parent.name == "intents" else None
    return isinstance(content, dict) and bool(INTENT_KEYS & content.keys())


def _has_sentences(file: ExportFile) -> bool:
    if SENTENCES.fullmatch(PurePosixPath(file.name).name):
        # One that is no JSON is taken too: the reader says where it is broken.
        return file.json in (None, []) or _is_usersays(file.json)
    return isinstance(file.json, dict) and _is_usersays(file.json.get("userSays"))


def _is_usersays(value: Any) -> bool:
    return is_objects(value) and all("data" in entry for entry in value)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of one language, each under its intent; those of fallback intents as none.

    Raises DataError for a broken file, and where `language` has to be chosen.
    """
    intents = _read_intents(files, taken)
    agent_language = _agent_language(files)
    every = [_open(file, intents, agent_language) for file in taken]

    languages = Languages()
    for one in every:
        languages.add(one.language, one.name, len(one.entries))
    choice = languages.choose(files.path, config.language)
    chosen = [one for one in every if one.language in choice.names and one.entries]

    rows: list[Row] = []
    negative: list[Row] = []
    for one in chosen:
        (negative if one.is_fallback else rows).extend(_read_rows(one))

    return Export(
        {"all": rows},
        whole(negative),
        _count_left(files, intents, chosen) | choice.left,
        _names_without(intents, chosen),
        (*choice.notes, *_notes(chosen, len(negative))),
    )


def _read_intents(files: ExportFiles, taken: list[ExportFile]) -> dict[str, JsonObject]:
    """The intents' own files by name, of the folders in which sentences were found."""
    folders = {PurePosixPath(file.name).parent for file in taken}
    intents = {}
    for file in files.with_ending(".json"):
        path = PurePosixPath(file.name)
        if path.parent not in folders or SENTENCES.fullmatch(path.name):
            continue

        content = file.require_json()
        if isinstance(content, dict) and INTENT_KEYS & content.keys():
            intents[file.name] = content
    return intents


def _open(file: ExportFile, intents: dict[str, JsonObject], agent_language: str) -> _Sentences:
    path = PurePosixPath(file.name)
    match = SENTENCES.fullmatch(path.name)
    if match is None:
        intent = intents.get(file.name, {})
        value = intent.get("userSays")
        stem = path.stem
        language = agent_language
    else:
        stem = match["intent"]
        intent = intents.get(str(path.with_name(f"{stem}.json")), {})
        value = file.require_json()
        language = match["language"].lower()

    name = intent.get("name")
    entries = require_objects(value, file.name)
    return _Sentences(file, language, intent, name if isinstance(name, str) else stem, entries)


def _agent_language(files: ExportFiles) -> str:
    """The language of an older agent, which has one alone; "" where it is not told."""
    for file in files.with_ending(".json"):
        if PurePosixPath(file.name).name == "agent.json" and isinstance(file.json, dict):
            return str(file.json.get("language") or "").lower()
    return ""


def _read_rows(sentences: _Sentences) -> list[Row]:
    pairs = []
    for number, entry in enumerate(sentences.entries, 1):
        place = f"{sentences.file.name}, sentence {number},"
        text = join_parts(require_objects(entry.get("data"), place), place)
        pairs.append((text, sentences.name))
    return number_rows(sentences.file, pairs)


def _names_without(intents: dict[str, JsonObject], chosen: list[_Sentences]) -> tuple[str, ...]:
    """The names of intents without sentences in the chosen language."""
    named = {one.name for one in chosen}
    names = []
    for file, intent in intents.items():
        name = str(intent.get("name") or PurePosixPath(file).stem)
        if name not in named:
            names.append(name)
    return tuple(names)


def _count_left(
    files: ExportFiles, intents: dict[str, JsonObject], chosen: list[_Sentences]
) -> dict[str, int]:
    marked = 0
    for one in chosen:
        for entry in one.entries:
            marked += sum(_is_entity(part) for part in entry.get("data") or [])

    responses = 0
    for intent in intents.values():
        for response in _objects(intent.get("responses")):
            responses += count(response.get("messages"))

    events = sum(count(intent.get("events")) for intent in intents.values())
    return {
        ENTITIES: marked,
        ENTITY_TYPES: _count_entity_types(files),
        "responses": responses,
        "events": events,
    }


def _objects(value: Any) -> list[JsonObject]:
    return value if is_objects(value) else []


def _is_entity(part: JsonObject) -> bool:
    return bool(part.get("meta") or part.get("alias")) and part.get("meta") != IGNORED


def _count_entity_types(files: ExportFiles) -> int:
    names = set()
    for file in files.with_ending(".json"):
        path = PurePosixPath(file.name)
        if path.parent.name == "entities":
            names.add(path.with_name(re.sub(r"_entries_[\w-]+$", "", path.stem)))
    return len(names)


def _notes(chosen: list[_Sentences], negative: int) -> list[str]:
    notes = []
    templates = 0
    for one in chosen:
        templates += sum(entry.get("isTemplate") is True for entry in one.entries)
    if templates:
        notes.append(f"Sentences that are templates: {templates:,}. {TEMPLATES}.")
    return [*notes, *say_out_of_scope("Negative examples of fallback intents", negative)]


FORMAT = Format("Dialogflow ES", "Dialogflow", find, read, OWN)
