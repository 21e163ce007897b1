"""Rasa NLU of all versions up to 2: JSON with the key `rasa_nlu_data`."""

import json
import re
from collections.abc import Iterator
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.rasa_rows import OWN, TOOL, Gathered
from bankintent.corpus.formats.sentences import ENTITIES
from bankintent.errors import DataError

KEY = '"rasa_nlu_data"'

EXAMPLES = ("common_examples", "intent_examples")
"""Keys of lists of sentences; the second is that of the first versions."""

LEFT = {
    "entity_synonyms": "synonyms",
    "regex_features": "regexes",
    "lookup_tables": "lookups",
    "entity_examples": "examples without an intent",
}

TEXT = re.compile(r'"text"\s*:')
SEPARATOR = re.compile(r"[\s,]*")


def find(files: ExportFiles) -> list[ExportFile]:
    """The JSON files with `rasa_nlu_data` at their top, also where they are broken."""
    found = []
    for file in files.with_ending(".json"):
        if KEY not in file.peek():
            continue
        content = file.json
        if content is None or (isinstance(content, dict) and "rasa_nlu_data" in content):
            found.append(file)
    return found


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of all files; they hold no markup.

    Raises DataError with the file, and the line where one is known, for what is no such JSON.
    """
    gathered = Gathered()
    for file in taken:
        _read_file(file, gathered)
    return gathered.export(config)


def _read_file(file: ExportFile, gathered: Gathered) -> None:
    content = file.require_json()
    data = content.get("rasa_nlu_data") if isinstance(content, dict) else None
    if not isinstance(data, dict):
        raise DataError(f'{file.name}: "rasa_nlu_data" is no object', "Expected Rasa's JSON")

    for key, name in LEFT.items():
        if isinstance(data.get(key), list):
            gathered.left[name] += len(data[key])

    for key in EXAMPLES:
        examples = data.get(key) or []
        if not isinstance(examples, list):
            raise DataError(f'{file.name}: "{key}" is no list', "Expected Rasa's JSON")

        lines = _lines(file.text, key, examples)
        for number, example in enumerate(examples, 1):
            line = lines[number - 1] if lines else None
            place = f"number {number} of {key}" if line is None else f"line {line}"
            _read_example(file, place, example, line, gathered)


def _read_example(
    file: ExportFile, place: str, example: Any, line: int | None, gathered: Gathered
) -> None:
    if not isinstance(example, dict) or not isinstance(example.get("text"), str):
        raise DataError(f"{file.name} {place}: an example has no text", "Expected a text")
    intent = example.get("intent")
    if intent is not None and not isinstance(intent, str):
        raise DataError(f"{file.name} {place}: an intent is no text", "Expected a name")
    if not intent or not intent.strip():
        gathered.left["examples without an intent"] += 1
        return

    entities = example.get("entities")
    gathered.left[ENTITIES] += len(entities) if isinstance(entities, list) else 0
    gathered.add(file, line, example["text"], intent.strip())


def _lines(text: str, key: str, examples: list[Any]) -> list[int]:
    """The line of each example's text; none where they cannot be told."""
    start = re.search(rf'"{key}"\s*:\s*\[', text)
    if start is None:
        return []

    lines: list[int] = []
    line = 1
    counted = 0
    for position, example in _objects(text, start.end()):
        if len(lines) == len(examples) or example != examples[len(lines)]:
            return []
        match = TEXT.search(text, position)
        place = match.start() if match else position
        # Counted on from the one before: from the start it would take a minute for a large file.
        line += text.count("\n", counted, place)
        counted = place
        lines.append(line)
    return lines if len(lines) == len(examples) else []


def _objects(text: str, start: int) -> Iterator[tuple[int, Any]]:
    """(position, object) of a JSON list that begins before `start`."""
    decoder = json.JSONDecoder()
    position = start
    while True:
        separator = SEPARATOR.match(text, position)
        position = separator.end() if separator else position
        if text[position : position + 1] in ("]", ""):
            return
        value, end = decoder.raw_decode(text, position)
        yield position, value
        position = end


FORMAT = Format("Rasa NLU (JSON)", TOOL, find, read, OWN)
