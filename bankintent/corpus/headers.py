"""Tables without a header: which those are, what their columns are called, and what they hold.

The columns of such a table are called by their numbers, from 1. A blank one has no name, so that
nobody reads it.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bankintent.config import LabelledTableKeys, TableKeys
from bankintent.corpus.columns import LABEL_COLUMNS, TEXT_COLUMNS
from bankintent.corpus.records import Header
from bankintent.errors import DataError

WIDTH_ROWS = 1_000
"""Rows from which the number of columns is taken."""

SEARCHED_ROWS = 100_000
"""Rows in which the first row's intent is looked for."""

HEADER_WORDS = {
    *TEXT_COLUMNS,
    *LABEL_COLUMNS,
    "comment",
    "content",
    "email",
    "example",
    "examples",
    "input",
    "intents",
    "labels",
    "mail",
    "phrase",
    "question",
    "questions",
    "review",
    "sentences",
    "texts",
    "title",
    "tweet",
    "utterances",
}
"""What columns are called: a first row with one of these in it is a header, even where the other
name is also an intent (email, spam)."""

SHOWN_CELLS = 6
"""Cells of the first row that an error shows."""

SHOWN_CHARS = 30
"""Characters of each of them."""

Rows = Callable[[], Iterator[Sequence[Any]]]
"""Reads the rows of a table from the start, the first one too."""


def find_headerless(path: Path, rows: Rows, keys: TableKeys) -> Header | None:
    """The columns of a table without a header; None where the first row is its header.

    Without a header is a table of `header: none`, and one of two columns whose first row holds an
    intent: a value that stands in its column again, beside another text. Raises DataError where a
    table of `header: none` has other than two columns, and the keys do not name those to read.
    """
    if keys.header == "none":
        return _number_columns(path, rows, keys)
    if keys.header is None:
        return _recognise(rows, keys)
    return None


def _number_columns(path: Path, rows: Rows, keys: TableKeys) -> Header:
    first = next(rows(), [])
    beginning = itertools.islice(rows(), WIDTH_ROWS)
    names = _find_names(beginning)

    # Of two columns one is the text and the other the intent; of more nobody knows.
    named = [name for name in names if name]
    if len(named) != 2:
        _require_configured(path, first, named, keys)
    return _with_roles(names, named, keys)


def _find_names(rows: Iterator[Sequence[Any]]) -> list[str]:
    """The numbers of the columns; an empty text for those that are blank in all rows."""
    widths: Counter[int] = Counter()
    filled: set[int] = set()
    for row in rows:
        widths[len(row)] += 1
        for index, cell in enumerate(row):
            if not _is_blank(cell):
                filled.add(index)
    # A text with a delimiter that has no quotes around it makes a few rows too wide. Were their
    # width taken, they would be read with a part of the text for the intent.
    most = max(widths.values(), default=0)
    usual = 0
    for width, count in widths.items():
        if count == most:
            usual = max(usual, width)

    names = []
    for index in range(usual):
        name = ""
        if index in filled:
            name = str(index + 1)
        names.append(name)
    return names


def _require_configured(
    path: Path, first: Sequence[Any], named: list[str], keys: TableKeys
) -> None:
    """Raise DataError where the columns to read are neither named nor plain."""
    wanted = {"text_column": keys.text_column}
    if isinstance(keys, LabelledTableKeys):
        wanted["label_column"] = keys.label_column

    settings = []
    for key, column in wanted.items():
        if column is None:
            settings.append(f"--set {key}=NUMBER")
    if not settings:
        return

    # The only column of a table without intents is its text.
    is_single = len(named) == 1
    if is_single and len(wanted) == 1:
        return

    noun = "columns"
    if is_single:
        noun = "column"
    shown = _show(first)
    examples = " and ".join(settings)
    raise DataError(
        f"{path} has no header and {len(named)} {noun}; its first row is {shown}",
        f"Name the columns by their numbers: {examples}",
    )


def _show(row: Sequence[Any]) -> str:
    """The first cells of a row, each with the number of its column."""
    parts = []
    cells = row[:SHOWN_CELLS]
    for number, cell in enumerate(cells, 1):
        text = _text_of(cell)
        if len(text) > SHOWN_CHARS:
            text = f"{text[:SHOWN_CHARS]}..."
        parts.append(f'{number}: "{text}"')

    if len(row) > SHOWN_CELLS:
        parts.append("and so on")
    return ", ".join(parts)


def _with_roles(names: Sequence[str], likely: Sequence[str], keys: TableKeys) -> Header:
    """A header with the columns of sentences and intents: those of the keys, else the likely."""
    text = keys.text_column
    label = None
    if isinstance(keys, LabelledTableKeys):
        label = keys.label_column

    # The text takes the first column that no key names.
    free = [name for name in likely if name not in (text, label)]
    if text is None and free:
        text = free.pop(0)
    if label is None and free:
        label = free.pop(0)
    return Header(tuple(names), 0, text, label)


def _recognise(rows: Rows, keys: TableKeys) -> Header | None:
    """The columns of a table whose first row can only be one of its sentences; otherwise None."""
    try:
        first_row = next(rows(), [])
        first = _stripped(first_row)
        if not _may_be_data(first, keys):
            return None

        beginning = itertools.islice(rows(), SEARCHED_ROWS)
        pairs = _read_pairs(beginning)
    except DataError:
        # The fault is named when the table is read.
        return None

    label_index = _find_labels(pairs)
    if label_index is None:
        return None

    # Numbers beside the intents are no sentences.
    text = first[1 - label_index]
    if not _has_letters(text):
        return None

    likely = ("1", "2")
    if label_index == 0:
        likely = ("2", "1")
    return _with_roles(("1", "2"), likely, keys)


def _may_be_data(first: list[str], keys: TableKeys) -> bool:
    """Whether a first row of two cells may be something else than names of columns."""
    if len(first) != 2 or not all(first):
        return False

    names = set(map(str.lower, first))
    if names & HEADER_WORDS:
        return False

    configured = {keys.text_column}
    if isinstance(keys, LabelledTableKeys):
        configured.add(keys.label_column)
    # A configured name is one of a header, unless it is the number of a column.
    numbers = {None, "1", "2"}
    return configured <= numbers.difference(first)


def _read_pairs(rows: Iterator[Sequence[Any]]) -> list[tuple[str, str]]:
    """The rows of two cells; none where they are not nearly all rows."""
    pairs = []
    count = 0
    for row in rows:
        count += 1
        cells = _stripped(row)
        if len(cells) == 2:
            pair = (cells[0], cells[1])
            pairs.append(pair)

    # A text with a delimiter in it may have more cells.
    if len(pairs) < 0.9 * count:
        return []
    return pairs


def _find_labels(pairs: list[tuple[str, str]]) -> int | None:
    """Index of the column whose first value is an intent; None where neither or both may be."""
    if not pairs:
        return None

    kinds = []
    for column in zip(*pairs, strict=True):
        different = set(column)
        kinds.append(len(different))

    found = []
    for index in (0, 1):
        # Intents are fewer than sentences.
        has_fewer = kinds[index] < kinds[1 - index]
        if has_fewer and _stands_again(pairs, index):
            found.append(index)

    if len(found) != 1:
        return None
    return found[0]


def _stands_again(pairs: list[tuple[str, str]], index: int) -> bool:
    """Whether the first value of a column stands in it again, beside another text."""
    other = 1 - index
    first = pairs[0]
    texts = set()
    for pair in pairs:
        if pair[index] == first[index]:
            texts.add(pair[other])

    # A whole row that stands twice may be the header of files that were put together.
    return len(texts) > 1


def _stripped(row: Sequence[Any]) -> list[str]:
    """The cells as texts, without the blank ones at the end."""
    cells = []
    for cell in row:
        text = _text_of(cell).strip()
        cells.append(text)

    while cells and not cells[-1]:
        cells.pop()
    return cells


def _text_of(cell: Any) -> str:
    """A cell as a text; tables other than text files have cells that hold nothing."""
    if cell is None:
        return ""
    return str(cell)


def _is_blank(cell: Any) -> bool:
    return not _text_of(cell).strip()


def _has_letters(text: str) -> bool:
    return any(map(str.isalpha, text))
