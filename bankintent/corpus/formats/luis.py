"""Apps of LUIS: its JSON of every schema, and its .lu files."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.clu import NONE_NOTE, require_utterances
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import as_list, count, names_of
from bankintent.corpus.formats.languages import Choice, Languages
from bankintent.corpus.formats.sentences import (
    ENTITIES,
    ENTITY_TYPES,
    has_no_intent,
    names_without,
    say_out_of_scope,
    whole,
)
from bankintent.corpus.rows import Row
from bankintent.files import JsonObject

LEFT = {
    "entities": ENTITY_TYPES,
    "bing_entities": ENTITY_TYPES,
    "prebuiltEntities": ENTITY_TYPES,
    "composites": ENTITY_TYPES,
    "hierarchicals": ENTITY_TYPES,
    "patternAnyEntities": ENTITY_TYPES,
    "closedLists": "lists",
    "patterns": "patterns",
    "phraselists": "phrase lists",
    "model_features": "phrase lists",
    "regex_entities": "regular expressions",
    "regex_features": "regular expressions",
}
"""Lists of an app beside its sentences, by what they are called when they are left."""

CULTURE = re.compile(r"^\s*>\s*!#\s*@app\.culture\s*=\s*(\S+)", re.MULTILINE)
"""The line of a .lu file that names its language."""

LOCALE = re.compile(r"[a-z]{2}-[a-z]{2,4}", re.IGNORECASE)
"""A word of a file's name that is a language, for example en-us."""

FOLDER_LOCALE = re.compile(r"[a-z]{2}(-[a-z]{2,4})?", re.IGNORECASE)
"""A folder's name that is a language, for example en or en-us."""

HEADING = re.compile(r"#+\s*(?P<name>.*)")
"""The line of a .lu file that begins an intent."""

ITEM = re.compile(r"[-*+]\s+(?P<text>.+)")
"""A line of a .lu file that holds a sentence, or a value of a list."""

FENCE = "```"
"""Begins and ends an answer in a .lu file."""

REFERENCE = re.compile(r"\[.*\]\(.*\)")
"""A sentence of a .lu file that stands for those of another file."""

ENTITY = re.compile(r"\{\s*@?[^{}=]+=([^{}]*)\}")
"""An entity in a sentence of a .lu file, with no other inside it: {city=Rome}."""

LU_OWN = re.compile(r".*\.(lu|qna|dialog|lg)", re.IGNORECASE)
"""Files of a bot beside its sentences."""

LU_TRACES = (
    re.compile(r"^\s*#+\s*[^#?\s]", re.MULTILINE),
    re.compile(r"^\s*[-*+]\s+\S", re.MULTILINE),
)
"""What a .lu file with sentences holds: the name of an intent, and a sentence."""


def find(files: ExportFiles) -> list[ExportFile]:
    """The files of apps."""
    found = []
    for file in files.with_ending(".json"):
        if _is_app(file.json):
            found.append(file)

    return found


def _is_app(content: Any) -> bool:
    if not isinstance(content, dict) or "luis_schema_version" not in content:
        return False
    return isinstance(content.get("utterances"), list)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of the apps; those of the intent None are out of scope.

    Raises DataError for a broken file, and where `language` has to be chosen.
    """
    apps = {file.name: _require_app(file) for file in taken}

    languages = Languages()
    for app in apps.values():
        culture = _culture(app)
        for utterance in app["utterances"]:
            languages.add(culture, utterance.get("intent"))

        # An app without sentences has a language too.
        languages.add(culture, "", 0)

    choice = languages.choose(files.path, config.language)

    rows: list[Row] = []
    intents: list[str] = []
    left: Counter[str] = Counter()
    for name, app in apps.items():
        if _culture(app) in choice.names:
            rows += _rows_of_app(name, app, left)
            intents += names_of(app.get("intents"), "name")

    return _as_export(rows, intents, left, choice)


def _require_app(file: ExportFile) -> JsonObject:
    """The content of an app's file; DataError where an utterance of it is no object."""
    app: JsonObject = file.require_json()
    require_utterances(file, app["utterances"])
    return app


def _culture(app: JsonObject) -> str:
    return str(app.get("culture") or "")


def _rows_of_app(name: str, app: JsonObject, left: Counter[str]) -> Iterator[Row]:
    """The sentences of an app; what else it has is counted."""
    for key, called in LEFT.items():
        left[called] += count(as_list(app.get(key)))

    for number, utterance in enumerate(app["utterances"], 1):
        left[ENTITIES] += count(as_list(utterance.get("entities")))
        yield Row(name, number, utterance.get("text"), utterance.get("intent"))


def _as_export(rows: list[Row], intents: list[str], left: Counter[str], choice: Choice) -> Export:
    """The rows of an app; those of its intent None, which LUIS creates itself, are out of scope."""
    kept = []
    out_of_scope = []
    for row in rows:
        if has_no_intent(row):
            out_of_scope.append(row)
        else:
            kept.append(row)

    every_left = left + Counter(choice.left)
    empty = names_without(intents, rows)

    note = say_out_of_scope(NONE_NOTE, len(out_of_scope))
    notes = (*choice.notes, *note)
    return Export({"all": kept}, whole(out_of_scope), every_left, empty, notes)


def find_lu(files: ExportFiles) -> list[ExportFile]:
    """The .lu files with the name of an intent and a sentence."""
    found = []
    for file in files.with_ending(".lu"):
        if _has_sentences(file):
            found.append(file)

    return found


def _has_sentences(file: ExportFile) -> bool:
    text = file.peek()
    return all(trace.search(text) for trace in LU_TRACES)


def read_lu(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of the files without the marks of entities; read like apps."""
    parts = {}
    languages = Languages()
    for file in taken:
        part = _read_lu_file(file)
        parts[file.name] = part
        for row in part.rows:
            languages.add(part.language, row.label)
        # A file without sentences has a language too.
        languages.add(part.language, "", 0)

    choice = languages.choose(files.path, config.language)

    rows: list[Row] = []
    intents: list[str] = []
    left: Counter[str] = Counter()
    for part in parts.values():
        if part.language in choice.names:
            rows += part.rows
            intents += part.intents
            left += part.left

    return _as_export(rows, intents, left, choice)


@dataclass(frozen=True)
class _LuFile:
    """What a .lu file holds."""

    language: str
    rows: list[Row]
    intents: list[str]
    """The names of its headings."""
    left: Counter[str]


def _read_lu_file(file: ExportFile) -> _LuFile:
    rows: list[Row] = []
    intents: list[str] = []
    left: Counter[str] = Counter()
    # Where it is not within an intent, an item is a value of an entity or of a list.
    intent = None
    is_answer = False

    for number, line in enumerate(file.text.split("\n"), 1):
        stripped = line.strip()
        if stripped.startswith(FENCE):
            is_answer = not is_answer
        if is_answer:
            continue

        heading = HEADING.fullmatch(stripped)
        item = ITEM.fullmatch(stripped)
        if heading:
            intent = _intent_of(heading["name"])
            left["questions with answers"] += intent is None
            if intent:
                intents.append(intent)
        elif stripped.startswith(("@", "$")):
            intent = None
            left[ENTITY_TYPES] += 1
        elif item and intent:
            text = _plain_text(item["text"], left)
            if text is not None:
                row_number = len(rows) + 1
                rows.append(Row(file.name, row_number, text, intent, number))

    language = _language_of(file)
    return _LuFile(language, rows, intents, left)


def _intent_of(heading: str) -> str | None:
    """The intent that a heading names; None where it is a question of a list of answers."""
    if heading.startswith("?"):
        return None
    return heading.strip()


def _plain_text(sentence: str, left: Counter[str]) -> str | None:
    """A sentence without the marks of its entities; None where it is a pattern or a reference."""
    if REFERENCE.fullmatch(sentence):
        left["references"] += 1
        return None

    # The inner ones of nested entities go first.
    text = sentence
    entities = 0
    found = 1
    while found:
        text, found = ENTITY.subn(r"\1", text)
        entities += found

    # A brace that is left stands for any value: {city} without a word of its own.
    if "{" in text:
        left["patterns"] += 1
        return None

    left[ENTITIES] += entities
    return text


def _language_of(file: ExportFile) -> str:
    """The language that a .lu file or its name gives, for example en-us."""
    named = CULTURE.search(file.text)
    if named:
        return named[1]

    path = PurePosixPath(file.name)
    # The name of the file counts more than those of its folders.
    for word in path.name.split("."):
        if LOCALE.fullmatch(word):
            return word
    for folder in path.parts[:-1]:
        if FOLDER_LOCALE.fullmatch(folder):
            return folder

    return ""


APP_FORMAT = Format("LUIS app", "LUIS", find, read)
LU_FORMAT = Format("LUIS (.lu)", "LUIS", find_lu, read_lu, LU_OWN)
