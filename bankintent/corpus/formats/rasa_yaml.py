"""Rasa NLU 2.0 to 3.1: YAML files with a list `nlu:`, alone or in a project of any depth."""

import re
from collections import Counter
from collections.abc import Iterator

import yaml

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.rasa_rows import OWN, TOOL, Gathered
from bankintent.corpus.formats.yaml_nodes import (
    Entry,
    compose,
    entries,
    line_of,
    lines_of,
    size_of,
)
from bankintent.errors import DataError

NLU = re.compile(
    r"""
    ^["']?nlu["']?[ \t]*:[ \t]*
    (?: (?:\#.*)? \n [ \t]* )*       # comments and empty lines behind the key
    (?: [-\[] | intent[ \t]*: )      # a list, or one whose dash is missing
    """,
    re.MULTILINE | re.VERBOSE,
)
"""Training data, also where the rest of the file is broken; `nlu:` in endpoints.yml has a URL."""

ITEMS = {"synonym": "synonyms", "regex": "regexes", "lookup": "lookups"}
"""Items of `nlu:` that hold no sentences, and what people call them."""

SECTIONS = {"stories": "stories", "rules": "rules", "responses": "responses", "flows": "flows"}
"""Parts of the files of a project that hold no training sentences."""

SECTION = re.compile(rf"^(?:{'|'.join(SECTIONS)})[ \t]*:", re.MULTILINE)

MISPLACED = re.compile(r"(?:-\s*)?(?:intent|synonym|regex|lookup|examples)\s*:(?:\s|$)")
"""A line that begins an item, and is read as a sentence where it is indented too far."""

EXPECTED = "Expected version and nlu at the top, and items such as - intent: name"


def find(files: ExportFiles) -> list[ExportFile]:
    """The files with a list `nlu:` at their top."""
    return [file for file in files.with_ending(".yml", ".yaml") if NLU.search(file.peek())]


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of all files, with their entities as they are said.

    Raises DataError with file and line where a file is no YAML, repeats a key, has an item or an
    example of another kind, or an intent without sentences.
    """
    gathered = Gathered()
    for file in taken:
        _read_file(file, gathered)

    names = {file.name for file in taken}
    for file in files.with_ending(".yml", ".yaml"):
        if file.name not in names:
            _count_sections(file, gathered.left)
    return gathered.export(config)


def _read_file(file: ExportFile, gathered: Gathered) -> None:
    for key, entry in entries(file, compose(file), EXPECTED).items():
        if key in SECTIONS:
            gathered.left[SECTIONS[key]] += size_of(entry.node)
        if key != "nlu":
            continue

        if not isinstance(entry.node, yaml.SequenceNode):
            raise file.fault(
                entry.line, "nlu is no list", "Begin each item with a dash: - intent: name"
            )
        for item in entry.node.value:
            _read_item(file, item, gathered)


def _read_item(file: ExportFile, item: yaml.Node, gathered: Gathered) -> None:
    """One item of `nlu:`: an intent with its sentences, or what is left."""
    line = line_of(item)
    keys = entries(file, item, EXPECTED)
    for key, name in ITEMS.items():
        if key in keys:
            gathered.left[name] += 1
            return

    if "intent" not in keys:
        shown = ", ".join(keys)
        raise file.fault(
            line,
            f"an item of nlu has the keys {shown}",
            "Expected intent, synonym, regex or lookup",
        )

    intent = _intent_name(file, keys["intent"])
    count = 0
    if "examples" in keys:
        for sentence_line, sentence in _sentences(file, keys["examples"], gathered):
            gathered.add_marked(file, sentence_line, sentence, intent)
            count += 1
    if not count:
        raise file.fault(
            line,
            f'the intent "{intent}" has no sentences',
            "Write them under examples: |, each on a line that begins with a dash, or remove it",
        )


def _intent_name(file: ExportFile, entry: Entry) -> str:
    node = entry.node
    if isinstance(node, yaml.MappingNode):
        keys = entries(file, node, EXPECTED)
        node = keys["name"].node if "name" in keys else node
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise file.fault(entry.line, "an intent has no name", "Expected - intent: name")
    name: str = node.value
    return name.strip()


def _sentences(file: ExportFile, entry: Entry, gathered: Gathered) -> Iterator[tuple[int, str]]:
    """(line, sentence) of `examples:`, a text with a line for each or a list."""
    if isinstance(entry.node, yaml.ScalarNode):
        yield from _dashed_lines(file, entry.node, gathered)
    elif isinstance(entry.node, yaml.SequenceNode):
        for example in entry.node.value:
            yield _example(file, example)
    else:
        raise file.fault(entry.line, "examples is no list", "Begin each sentence with a dash")


def _dashed_lines(
    file: ExportFile, node: yaml.ScalarNode, gathered: Gathered
) -> Iterator[tuple[int, str]]:
    if node.style == ">":
        raise file.fault(
            line_of(node), "examples: > joins its lines to one", "Write examples: | instead"
        )

    for line, text in lines_of(node):
        stripped = text.strip()
        if MISPLACED.match(stripped):
            raise file.fault(
                line,
                f'"{stripped}" is read as a sentence of the intent above it',
                "Indent it like the line above that begins in the same way",
            )
        # Rasa skips a line that is indented further than the first; it is a sentence all the same.
        if stripped.startswith("-"):
            yield line, stripped[1:]
        elif stripped and not stripped.startswith("#"):
            gathered.leave_undashed(file, line)


def _example(file: ExportFile, node: yaml.Node) -> tuple[int, str]:
    """(line, sentence) of an item of a list: a text, or a mapping with the key `text`."""
    if isinstance(node, yaml.MappingNode):
        keys = entries(file, node, EXPECTED)
        if "text" not in keys:
            raise file.fault(
                line_of(node),
                "an example has keys and no text",
                "Write - text: sentence; a sentence with a colon needs quotation marks",
            )
        node = keys["text"].node

    if not isinstance(node, yaml.ScalarNode):
        raise file.fault(
            line_of(node),
            "an example is a list",
            "A sentence that begins with a bracket needs quotation marks",
        )
    for line, text in lines_of(node):
        if text.strip():
            return line, node.value
    return line_of(node), node.value


def _count_sections(file: ExportFile, left: Counter[str]) -> None:
    """Add the stories, rules and responses of a file that holds no sentences.

    Nothing depends on it: a file that is broken or something else is passed over.
    """
    if not SECTION.search(file.peek()):
        return
    try:
        keys = entries(file, compose(file), EXPECTED)
    except DataError:
        return
    for key, entry in keys.items():
        if key in SECTIONS:
            left[SECTIONS[key]] += size_of(entry.node)


FORMAT = Format("Rasa NLU (YAML)", TOOL, find, read, OWN)
