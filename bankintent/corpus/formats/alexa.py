"""Interaction models of Alexa skills, each one JSON file for a locale."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import (
    count,
    is_objects,
    require_objects,
    require_strings,
)
from bankintent.corpus.formats.lex import Intent, make_export
from bankintent.files import JsonObject

LOCALE = re.compile(r"[a-z]{2}-[A-Z]{2}")
"""The name of a model's file, for example en-US.json."""

BUILT_IN = "AMAZON."
"""Begins the names of intents that every skill has, mostly without sentences of their own."""

OWN = re.compile(r"(.*/)?(skill|ask-resources|ask-states|package|manifest)\.json|(.*/)?lambda/.*")
"""Files of a skill beside its sentences."""


def find(files: ExportFiles) -> list[ExportFile]:
    """The files with a language model."""
    found = []
    for file in files.with_ending(".json"):
        if _model(file.json):
            found.append(file)

    return found


def _model(content: Any) -> JsonObject:
    """The language model of a file; empty where it has none. The first skills had it at the top."""
    if not isinstance(content, dict):
        return {}

    whole = content.get("interactionModel", content)
    if not isinstance(whole, dict):
        return {}

    model = whole.get("languageModel")
    if not isinstance(model, dict):
        return {}

    # Files of other tools may have a language model too, of another shape.
    intents = model.get("intents")
    if not is_objects(intents):
        return {}
    for intent in intents:
        if "name" not in intent:
            return {}

    return model


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The samples of one locale, with their slots as they are written: `{city}`.

    Raises DataError for a broken file, and where `language` has to be chosen.
    """
    intents: list[Intent] = []
    left: Counter[str] = Counter()
    for file in taken:
        model = _model(file.require_json())
        intents += _intents(file, model)

        # Sentences keep the names of their slots, whose values are not taken.
        for intent in model["intents"]:
            left["slots"] += count(intent.get("slots"))
        left["slot types"] += count(model.get("types"))

    export = make_export(files, intents, config)
    own = _names_of_own(export.empty)
    every_left = {**left, **export.left}
    return Export(export.rows, {}, every_left, own, export.notes)


def _names_of_own(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of intents that the skill itself defines."""
    own = []
    for name in names:
        if not name.startswith(BUILT_IN):
            own.append(name)

    return tuple(own)


def _intents(file: ExportFile, model: JsonObject) -> Iterator[Intent]:
    # The model does not name its locale: its file does.
    stem = PurePosixPath(file.name).stem
    locale = stem if LOCALE.fullmatch(stem) else ""

    intents = require_objects(model["intents"], f"{file.name}: intents")
    for intent in intents:
        name = str(intent["name"])
        place = f'{file.name}: the samples of "{name}"'
        samples = require_strings(intent.get("samples"), place)
        yield Intent(file, locale, name, samples)


FORMAT = Format("Alexa interaction model", "Alexa", find, read, OWN)
