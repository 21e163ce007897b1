"""Looks at an uploaded table before it is scored: its columns, its first rows, what to choose."""

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bankintent.config import LabelledTableKeys
from bankintent.corpus.columns import LABEL_COLUMNS, TEXT_COLUMNS, find_column, find_table_text
from bankintent.corpus.records import Table
from bankintent.corpus.workbooks import sheet_names
from bankintent.errors import DataError
from bankintent.gradio_app.upload import (
    AS_FOUND,
    explain_trouble,
    open_upload,
    read_all_rows,
    to_text,
)

FIRST_ROWS = 3
"""Rows that are shown, so that a wrong column or encoding is seen."""

FIRST_COLUMNS = 6
"""Columns of these rows: more do not fit on a page."""

FIRST_CHARS = 80
"""Characters of each cell."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """An uploaded table as far as a person needs it to choose columns."""

    rows: int
    columns: list[str]
    """Names of the columns to choose from: those that have one of their own."""
    repeated: list[str]
    """Names that several columns bear."""
    text_column: str | None
    """The column of messages that the names suggest."""
    label_column: str | None
    """The column of intents that the names suggest."""
    first_rows: list[list[str]]
    """Cells of the first rows under the first of `columns`."""


def find_sheets(path: Path) -> list[str]:
    """The sheets of a workbook, none of another file; Trouble where it cannot be read."""
    if path.suffix.lower() != ".xlsx":
        return []
    try:
        return sheet_names(path)
    except DataError as error:
        raise explain_trouble(error, path) from None


def inspect(path: Path, max_rows: int, keys: LabelledTableKeys = AS_FOUND) -> Inspection:
    """Read a table and find its columns; Trouble where it cannot be read."""
    try:
        source = open_upload(path, max_rows, keys)
        rows = read_all_rows(source, max_rows)
        text_column = _suggest_text(source)

        counts = Counter(name for name in source.columns if name.strip())
        columns = [name for name, count in counts.items() if count == 1]
        first_rows = _first_rows(source, columns[:FIRST_COLUMNS])
    except DataError as error:
        raise explain_trouble(error, path) from None

    return Inspection(
        rows=rows.num_rows,
        columns=columns,
        repeated=[name for name, count in counts.items() if count > 1],
        text_column=text_column,
        label_column=_suggest_label(source),
        first_rows=first_rows,
    )


def _suggest_text(source: Table) -> str | None:
    """The column of messages; None where only a person can tell.

    Raises DataError where its name stands twice.
    """
    try:
        return find_table_text(source, None)
    except DataError:
        if any(name.strip().lower() in TEXT_COLUMNS for name in source.columns):
            raise
        return None


def _suggest_label(source: Table) -> str | None:
    found = source.header.label if source.header else None
    name = source.path.name
    try:
        return find_column(source.columns, "label_column", found, LABEL_COLUMNS, name)
    except DataError:
        return None


def _first_rows(source: Table, columns: list[str]) -> list[list[str]]:
    """The beginnings of the cells of these columns in the first rows."""
    indices = [source.columns.index(name) for name in columns]
    rows = []
    for record in itertools.islice(source.records(), FIRST_ROWS):
        cells = []
        for index in indices:
            cells.append(to_text(record.cells[index])[:FIRST_CHARS])
        rows.append(cells)
    return rows
