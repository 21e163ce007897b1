"""Wit.ai: an app as a zip or a folder, in its older and its newer form."""

import json
import re
from collections import Counter
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import count, is_objects, require_object
from bankintent.corpus.formats.sentences import ENTITIES, ENTITY_TYPES
from bankintent.corpus.rows import Row
from bankintent.files import JsonObject

NEWER = "utterances"
OLDER = "data"
"""The one key of a file of sentences."""

ENTITY = re.compile(r"(.*/)?entities/[^/]+\.json")

OWN = re.compile(r"(.*/)?(app|stories)\.json|(.*/)?(entities|intents|traits|utterances)/.*\.json")
"""Files of an app beside its sentences."""


def find(files: ExportFiles) -> list[ExportFile]:
    """Files of sentences: `utterances/utterances-1.json`, or `expressions.json` of older apps."""
    candidates = files.with_ending(".json")
    return [file for file in candidates if _has_sentences(file.json)]


def _has_sentences(content: Any) -> bool:
    """Whether a file holds nothing but sentences as Wit.ai marks them.

    A sentence of the newer form has `traits`, one of the older has its intent as an entity.
    """
    if not isinstance(content, dict) or len(content) != 1:
        return False
    [(key, sentences)] = content.items()
    if not is_objects(sentences):
        return False

    have_texts = all("text" in sentence for sentence in sentences)
    if not have_texts:
        return False

    # A list of texts may be any tool's: one sentence at least has to be marked.
    if key == NEWER:
        return any("traits" in sentence for sentence in sentences)
    if key == OLDER:
        return any(map(_names_an_intent, sentences))
    return False


def _names_an_intent(sentence: JsonObject) -> bool:
    return any(map(_is_intent, _entities(sentence)))


def _is_intent(entity: JsonObject) -> bool:
    """Whether an entity is the intent of its sentence, as in older apps."""
    return bool(entity.get("entity") == "intent")


def _entities(sentence: JsonObject) -> list[JsonObject]:
    entities = sentence.get("entities")
    if not is_objects(entities):
        return []
    return entities


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences that have an intent; DataError for a broken file."""
    rows: list[Row] = []
    left: Counter[str] = Counter()

    for file in taken:
        content = require_object(file.require_json(), file.name)
        sentences = content.get(NEWER) or content[OLDER]

        # The number counts all sentences, so that people find theirs in the file.
        for number, sentence in enumerate(sentences, 1):
            intent = _intent(sentence)
            if intent is None:
                left["sentences without an intent"] += 1
                continue

            row = Row(file.name, number, sentence["text"], intent)
            rows.append(row)
            left[ENTITIES] += _count_entities(sentence)
            left["traits"] += count(sentence.get("traits"))

    # Each entity of an app has a file of its own.
    left[ENTITY_TYPES] = 0
    for file in files.files:
        if ENTITY.fullmatch(file.name):
            left[ENTITY_TYPES] += 1

    return Export({"all": rows}, left=dict(left))


def _intent(sentence: JsonObject) -> str | None:
    """The intent of a sentence; None where it has none."""
    intent = sentence.get("intent")
    for entity in _entities(sentence):
        if _is_intent(entity):
            value = entity.get("value")
            intent = _unquote(value)

    if not isinstance(intent, str):
        return None
    name = intent.strip()
    return name or None


def _unquote(value: Any) -> Any:
    """The value of an older entity, which is written as JSON within a string."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _count_entities(sentence: JsonObject) -> int:
    entities = _entities(sentence)
    intents = sum(map(_is_intent, entities))
    return len(entities) - intents


FORMAT = Format("Wit.ai", "Wit.ai", find, read, OWN)
