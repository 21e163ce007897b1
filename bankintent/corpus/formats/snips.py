"""Snips: the benchmark's lists of `data` parts, and datasets of snips-nlu in JSON and YAML."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import yaml

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import count, is_objects, require_object, require_objects
from bankintent.corpus.formats.languages import Languages
from bankintent.corpus.formats.sentences import (
    ENTITIES,
    ENTITY_TYPES,
    join_parts,
    number_rows,
    pool,
)
from bankintent.corpus.formats.yaml_nodes import Entry, compose_all, entries, line_of
from bankintent.corpus.rows import Row
from bankintent.files import JsonObject
from bankintent.texts import list_some

BENCHMARK = re.compile(
    r"(?P<split>train|validate)_(?P<intent>.+?)(?P<size>_full|_\d+)?\.json", re.IGNORECASE
)
"""The name of a file of the benchmark, which may have the same sentences in several sizes."""

SPLITS = {"train": "train", "validate": "test"}

YAML_INTENT = re.compile(r"^type:[ \t]*intent[ \t]*$", re.MULTILINE)
YAML_UTTERANCES = re.compile(r"^utterances:", re.MULTILINE)

SLOT = re.compile(r"\[[^\]\[]*\]\((?P<words>[^()]*)\)")
"""The words of a slot in a YAML sentence: `[room:kind_of_room](kitchen)`."""

BARE_SLOT = re.compile(r"\[[^\]\[]+\](?!\()")
"""A slot without words, for which Snips draws a value: `[month]`."""

Pairs = list[tuple[str, str]]
"""(sentence, intent) of a file."""


def find_benchmark(files: ExportFiles) -> list[ExportFile]:
    """Files of the form {intent: [{"data": [{"text": ...}]}]}.

    Another of the benchmark that cannot be read is taken too: the reader says what is wrong.
    """
    found = [file for file in files.with_ending(".json") if _is_benchmark(file.json)]
    if not found:
        return []
    for file in files.with_ending(".json"):
        if file.json is None and _match(file):
            found.append(file)
    return found


def _is_benchmark(content: Any) -> bool:
    return isinstance(content, dict) and bool(content) and all(map(_have_data, content.values()))


def _have_data(utterances: Any) -> bool:
    """Whether these are the utterances of an intent."""
    if not is_objects(utterances):
        return False
    for utterance in utterances:
        data = utterance.get("data")
        if not is_objects(data) or not all("text" in part for part in data):
            return False
    return True


def _match(file: ExportFile) -> re.Match[str] | None:
    return BENCHMARK.fullmatch(PurePosixPath(file.name).name)


def read_benchmark(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences; `validate` files are test where there are `train` files as well.

    Raises DataError for a broken file.
    """
    kept = _largest(taken)
    rows: dict[str, list[Row]] = {}
    left: Counter[str] = Counter()
    for file in kept:
        pairs: Pairs = []
        for intent, utterances in require_object(file.require_json(), file.name).items():
            pairs += _join(file, intent, utterances, left)
        rows.setdefault(_split(file), []).extend(number_rows(file, pairs))

    notes = []
    if len(kept) < len(taken):
        names = [file.name for file in taken if file not in kept]
        notes.append(f"Files of the same sentences in a smaller size are left: {list_some(names)}.")
    if rows.keys() == {"train", "test"}:
        notes.append("The validate files are the test split.")
        return Export(rows, left=dict(left), notes=tuple(notes))

    # Without both there is no division.
    return Export({"all": pool(rows)}, left=dict(left), notes=tuple(notes))


def _largest(taken: list[ExportFile]) -> list[ExportFile]:
    """The files without those that another has in full."""
    best: dict[tuple[str, ...], ExportFile] = {}
    for file in taken:
        match = _match(file)
        folder = str(PurePosixPath(file.name).parent)
        key = (file.name,) if match is None else (folder, match["split"].lower(), match["intent"])
        if key not in best or _size(file) > _size(best[key]):
            best[key] = file
    return list(best.values())


def _size(file: ExportFile) -> float:
    """How much of its sentences a file has, to compare it with others of the same ones."""
    match = _match(file)
    size = (match["size"] or "_0") if match else "_0"
    return float("inf") if size.lower() == "_full" else int(size[1:])


def _split(file: ExportFile) -> str:
    match = _match(file)
    return SPLITS[match["split"].lower()] if match else "all"


def _join(file: ExportFile, intent: str, utterances: Any, left: Counter[str]) -> Pairs:
    """The sentences of an intent; its entities are counted in `left`."""
    pairs = []
    place = f'{file.name}: the sentences of "{intent}"'
    for number, utterance in enumerate(require_objects(utterances, place), 1):
        where = f'{file.name}, sentence {number} of "{intent}",'
        data = require_objects(utterance.get("data"), where)
        pairs.append((join_parts(data, where), intent))
        left[ENTITIES] += sum("entity" in part for part in data)
    return pairs


def find_dataset(files: ExportFiles) -> list[ExportFile]:
    """Datasets of snips-nlu: JSON with intents by name."""
    return [file for file in files.with_ending(".json") if _is_dataset(file.json)]


def _is_dataset(content: Any) -> bool:
    intents = content.get("intents") if isinstance(content, dict) else None
    if not intents or not isinstance(intents, dict):
        return False
    if not all(isinstance(intent, dict) for intent in intents.values()):
        return False
    return any(_have_data(intent.get("utterances")) for intent in intents.values())


def read_dataset(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The utterances of one language.

    Raises DataError for a broken file, and where `language` has to be chosen.
    """
    languages = Languages()
    for file in taken:
        for name, intent in _intents(file):
            languages.add(_language(file), name, count(intent.get("utterances")))
    choice = languages.choose(files.path, config.language)

    rows: list[Row] = []
    empty = []
    left: Counter[str] = Counter()
    for file in taken:
        if _language(file) not in choice.names:
            continue
        pairs: Pairs = []
        for name, intent in _intents(file):
            if not intent.get("utterances"):
                empty.append(name)
            pairs += _join(file, name, intent.get("utterances"), left)
        rows += number_rows(file, pairs)
        left[ENTITY_TYPES] += count(file.require_json().get("entities"))
    return Export({"all": rows}, {}, left | choice.left, tuple(empty), choice.notes)


def _language(file: ExportFile) -> str:
    """The language that a dataset names; "" where it names none."""
    return str(file.require_json().get("language") or "")


def _intents(file: ExportFile) -> Iterator[tuple[str, JsonObject]]:
    """(name, intent) of a dataset."""
    yield from file.require_json()["intents"].items()


def find_yaml(files: ExportFiles) -> list[ExportFile]:
    """Datasets of snips-nlu in YAML: documents of the type `intent`."""
    return [file for file in files.with_ending(".yaml", ".yml") if _is_yaml(file)]


def _is_yaml(file: ExportFile) -> bool:
    text = file.peek()
    return bool(YAML_INTENT.search(text) and YAML_UTTERANCES.search(text))


def read_yaml(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The utterances without the marks of slots; DataError names the line of a fault."""
    rows: list[Row] = []
    empty = []
    left: Counter[str] = Counter()
    for file in taken:
        first = len(rows)
        for document in compose_all(file):
            keys = entries(file, document, "Expected type, name and utterances")
            kind = _text_of(file, keys, "type")
            left[ENTITY_TYPES] += kind == "entity"
            if kind == "intent":
                part = list(_unmark(file, keys, left))
                rows += [replace(row, number=len(rows) - first + row.number) for row in part]
                if not part:
                    empty.append(_text_of(file, keys, "name"))

    bare = sum(bool(BARE_SLOT.search(row.text)) for row in rows)
    notes = (
        [f"Sentences that keep a slot without words, such as [month]: {bare:,}."] if bare else []
    )
    return Export({"all": rows}, {}, left, tuple(empty), tuple(notes))


def _text_of(file: ExportFile, keys: dict[str, Entry], name: str) -> str:
    """The text of a key; empty where there is none. DataError where it is no text."""
    if name not in keys:
        return ""
    entry = keys[name]
    if not isinstance(entry.node, yaml.ScalarNode):
        raise file.fault(entry.line, f"{name} is no text", f"Expected {name}: and one text")
    return str(entry.node.value)


def _unmark(file: ExportFile, keys: dict[str, Entry], left: Counter[str]) -> Iterator[Row]:
    """The sentences of an intent, numbered from 1; its slots are counted in `left`."""
    name = _text_of(file, keys, "name")
    if "utterances" not in keys:
        return
    entry = keys["utterances"]
    # A key without a value is an empty text.
    if isinstance(entry.node, yaml.ScalarNode) and not entry.node.value:
        return
    if not isinstance(entry.node, yaml.SequenceNode):
        raise file.fault(entry.line, "utterances is no list", "Begin each with a dash")

    for number, node in enumerate(entry.node.value, 1):
        if not isinstance(node, yaml.ScalarNode):
            found = f'an utterance of "{name}" is no sentence'
            raise file.fault(line_of(node), found, "Put it in quotation marks")
        text, slots = SLOT.subn(r"\g<words>", node.value)
        left[ENTITIES] += slots
        yield Row(file.name, number, text, name, line_of(node))


BENCHMARK_FORMAT = Format("Snips benchmark", "Snips", find_benchmark, read_benchmark)
DATASET_FORMAT = Format("Snips NLU (JSON)", "Snips", find_dataset, read_dataset)
YAML_FORMAT = Format("Snips NLU (YAML)", "Snips", find_yaml, read_yaml)
