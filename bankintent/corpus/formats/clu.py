"""Projects of Azure's conversational language understanding (CLU)."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import as_list, count, names_of
from bankintent.corpus.formats.languages import Choice, Languages
from bankintent.corpus.formats.sentences import (
    ENTITIES,
    ENTITY_TYPES,
    has_no_intent,
    names_without,
    pool,
    say_out_of_scope,
    whole,
)
from bankintent.corpus.rows import Row
from bankintent.errors import DataError
from bankintent.files import JsonObject

OTHERS = ("orchestration", "workflow")
"""Kinds of projects that pass sentences on to other projects."""

NONE_NOTE = 'Sentences of the intent "None"'
"""What is said to be out of scope: LUIS and CLU create that intent."""

SPLITS = {"train": "train", "test": "test"}
"""The splits of a project by its own names, in lower case."""


def require_utterances(file: ExportFile, utterances: list[Any]) -> None:
    """Raise DataError that names the first of the sentences of LUIS or CLU that is no object."""
    for number, utterance in enumerate(utterances, 1):
        if not isinstance(utterance, dict):
            raise DataError(
                f"{file.name}: utterance {number} is no object",
                'Expected {"text": ..., "intent": ...}',
            )


def find(files: ExportFiles) -> list[ExportFile]:
    """The files of projects."""
    found = []
    for file in files.with_ending(".json"):
        if _kind(file.json):
            found.append(file)

    return found


def _kind(content: Any) -> str:
    """The kind of project that a file holds; empty where it is none."""
    if not isinstance(content, dict) or not isinstance(content.get("assets"), dict):
        return ""

    # Versions differ in where the kind stands, and in its key.
    for part in (content.get("metadata"), content["assets"]):
        if not isinstance(part, dict):
            continue

        kind = part.get("projectKind", part.get("type"))
        known = str(kind).lower().removeprefix("custom")
        if known in ("conversation", *OTHERS):
            return known

    return ""


@dataclass
class _Reading:
    """What is taken of one project after the other."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    out_of_scope: dict[str, list[Row]] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, split: str) -> None:
        """Take a sentence; one of the intent None is out of scope."""
        splits = self.rows
        if has_no_intent(row):
            splits = self.out_of_scope

        part = splits.setdefault(split, [])
        part.append(row)

    def as_export(self, choice: Choice, intents: list[str]) -> Export:
        """Everything that was taken, under `all` where the projects have not both splits."""
        rows = self.rows
        out_of_scope = self.out_of_scope
        # One split alone is no division.
        if not {"train", "test"} <= rows.keys():
            rows = whole(pool(rows))
            out_of_scope = whole(pool(out_of_scope))

        pooled = pool(rows)
        pooled_out = pool(out_of_scope)
        note = say_out_of_scope(NONE_NOTE, len(pooled_out))
        empty = names_without(intents, [*pooled, *pooled_out])

        left = self.left + Counter(choice.left)
        notes = (*choice.notes, *note)
        return Export(rows, out_of_scope, left, empty, notes)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of the projects; those of the intent None are out of scope.

    Raises DataError for a broken file, and where `language` has to be chosen.
    """
    projects = {}
    languages = Languages()
    for file in taken:
        project = _require_project(file)
        projects[file.name] = project

        pairs = zip(_utterances(project), _languages(project), strict=True)
        for utterance, language in pairs:
            languages.add(language, utterance.get("intent"))

    # Only after every project: the choice depends on all the languages that occur.
    choice = languages.choose(files.path, config.language)

    intents: list[str] = []
    reading = _Reading()
    for name, project in projects.items():
        assets = project["assets"]
        intents += names_of(assets.get("intents"), "category")
        reading.left[ENTITY_TYPES] += count(assets.get("entities"))
        _read_project(name, project, choice, reading)

    return reading.as_export(choice, intents)


def _require_project(file: ExportFile) -> JsonObject:
    """The content of a project's file; DataError where its sentences cannot be read."""
    project: JsonObject = file.require_json()
    if _kind(project) in OTHERS:
        raise DataError(
            f"{file.name} is an orchestration project, which passes sentences on to other projects",
            "Export the conversation projects that it names",
        )

    require_utterances(file, _utterances(project))
    return project


def _utterances(project: JsonObject) -> list[Any]:
    assets = project["assets"]
    utterances = as_list(assets.get("utterances"))
    if utterances:
        return utterances

    # Early previews call them examples.
    return as_list(assets.get("examples"))


def _languages(project: JsonObject) -> list[str]:
    """The language of each sentence of a project, the project's own where it names none."""
    metadata = project.get("metadata")
    own = None
    if isinstance(metadata, dict):
        own = metadata.get("language")

    languages = []
    for utterance in _utterances(project):
        language = utterance.get("language") or own or ""
        languages.append(str(language))

    return languages


def _read_project(name: str, project: JsonObject, choice: Choice, reading: _Reading) -> None:
    """Take the sentences of a project that are in one of the chosen languages."""
    pairs = zip(_utterances(project), _languages(project), strict=True)
    number = 0
    for utterance, language in pairs:
        if language not in choice.names:
            continue

        # Sentences of other languages are not numbered.
        number += 1
        dataset = str(utterance.get("dataset")).lower()
        split = SPLITS.get(dataset, "train")

        row = Row(name, number, utterance.get("text"), utterance.get("intent"))
        reading.add(row, split)
        reading.left[ENTITIES] += count(as_list(utterance.get("entities")))


FORMAT = Format("CLU project", "CLU", find, read)
