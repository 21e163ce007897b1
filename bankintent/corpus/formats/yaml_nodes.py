"""YAML as nodes that know their lines, and what is wrong with it in plain words.

All scalars stay texts: `yes`, `0.5` and `~` are sentences and names too.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml

from bankintent.corpus.formats.files import ExportFile
from bankintent.errors import DataError

LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

TAB_INDENT = re.compile(r" *\t\s*\S")

BLANK_LINE = re.compile(r"^[ \t]+$", re.MULTILINE)

ODD_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Characters at which YAML breaks a line and editors do not."""

NOT_YAML = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML does not allow."""

TAB = "found a tab where blanks were expected; YAML is indented with blanks"

REASONS = {
    "tab character": TAB,
    "quoted scalar": "found a quotation mark that is not closed",
    "mapping values": "found a colon where none may stand: the indentation is wrong, or a text "
    "with a colon needs quotation marks",
    "parsing a flow": "found a bracket or brace that is not closed; a text that begins with one "
    "needs quotation marks",
    "did not find expected": "the indentation does not fit the lines above it, or a text needs "
    "quotation marks",
    "block sequence entries": "found a dash where none may stand: the indentation is wrong",
    "could not find expected ':'": "found a line without a colon where a key was expected",
    "cannot start any token": "found a text that begins with @, ` or %; it needs quotation marks",
    "alias": "found a text that begins with *; it needs quotation marks",
    "anchor": "found a text that begins with &; it needs quotation marks",
    "another document": "a second document begins here, where one was expected",
}
"""What the parser says, and what it mostly is; in the order in which they are looked for."""


class Entry(NamedTuple):
    """The value of a key, and where the key stands."""

    line: int
    node: yaml.Node


def compose(file: ExportFile) -> yaml.Node:
    """The one document of a file; DataError with the line at which it is no YAML."""
    text = _plain_text(file)
    try:
        node = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        raise _explain(file, error) from None
    except (yaml.YAMLError, RecursionError):
        raise _unreadable(file) from None

    if node is None:
        raise DataError(f"{file.name} is empty")
    return node


def compose_all(file: ExportFile) -> list[yaml.Node]:
    """The documents of a file; DataError with the line at which it is no YAML."""
    text = _plain_text(file)
    try:
        documents = list(yaml.compose_all(text, Loader=LOADER))
    except yaml.MarkedYAMLError as error:
        raise _explain(file, error) from None
    except (yaml.YAMLError, RecursionError):
        raise _unreadable(file) from None

    return [document for document in documents if document is not None]


def entries(file: ExportFile, node: yaml.Node, expected: str) -> dict[str, Entry]:
    """The keys of a mapping; DataError for anything else, and where a key is repeated.

    `expected` says in words what a mapping of this format looks like.
    """
    if not isinstance(node, yaml.MappingNode):
        raise file.fault(line_of(node), "found no key where one was expected", expected)

    found: dict[str, Entry] = {}
    for key, value in node.value:
        name = str(key.value)
        line = line_of(key)

        # The parser would take the last one, and lose the sentences of the first.
        if name in found:
            first = found[name].line
            raise file.fault(
                line,
                f"{name} stands here a second time, first on line {first}",
                "Join the two, or begin a new item",
            )
        found[name] = Entry(line, value)
    return found


def line_of(node: yaml.Node) -> int:
    """The line on which a node begins, from 1."""
    return int(node.start_mark.line) + 1


def lines_of(node: yaml.ScalarNode) -> Iterator[tuple[int, str]]:
    """(line of the file, text) of each line of a text; of a quoted one its first line."""
    first = line_of(node)
    is_block = node.style in ("|", ">")
    texts = node.value.split("\n")

    # The text of a block begins below the line of its mark.
    for number, text in enumerate(texts, 1):
        if is_block:
            yield first + number, text
        else:
            yield first, text


def size_of(node: yaml.Node) -> int:
    """How many values a list or a mapping has; 0 for a text."""
    if isinstance(node, yaml.ScalarNode):
        return 0
    return len(node.value)


def _plain_text(file: ExportFile) -> str:
    """The text for the parser; DataError for a character that YAML does not allow."""
    # Editors leave blanks and tabs on empty lines, and a tab there is an error too.
    one_break = ODD_BREAKS.sub(" ", file.text)
    text = BLANK_LINE.sub("", one_break)

    match = NOT_YAML.search(text)
    if match:
        line = text.count("\n", 0, match.start()) + 1
        code = ord(match[0])
        found = f"found the character U+{code:04X}"
        raise file.fault(line, found, "Remove it: YAML has none")
    return text


def _unreadable(file: ExportFile) -> DataError:
    return DataError(f"{file.name} cannot be read as YAML", "Export it again")


def _explain(file: ExportFile, error: yaml.MarkedYAMLError) -> DataError:
    """What the parser found, in plain words, and the line to look at."""
    context = error.context or ""
    problem = error.problem or ""
    said = f"{context} {problem}".strip()

    mark = error.problem_mark or error.context_mark
    if "quoted scalar" in said and error.context_mark is not None:
        # The parser is at the end of the file by then.
        mark = error.context_mark

    line = 1
    if mark is not None:
        line = int(mark.line) + 1
    reason = _reason(file, said, line)
    return file.fault(line, reason, "Correct that line or the one above it")


def _reason(file: ExportFile, said: str, line: int) -> str:
    # The parser does not always say so of a tab.
    lines = file.text.split("\n")
    content = lines[line - 1 : line]
    if content and TAB_INDENT.match(content[0]):
        return TAB

    for words, plain in REASONS.items():
        if words in said:
            return plain
    return f"is no YAML ({said})"
