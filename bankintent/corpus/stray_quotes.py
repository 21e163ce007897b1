"""Rows of a CSV that two stray quotes have made one text.

A quote at the start of a cell opens a text that may span lines. Where it is a stray one, all lines
up to the next stray one are read as that text, labels included, and the CSV is well formed. A text
of several lines is as well formed. They differ in this: without the quotes, every line of the
swallowed rows is a whole record, whose cells are like those of the other records, or repeat one
another.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bankintent.errors import DataError

MANY = 4
"""Cells of a column that are enough to see that they repeat one another."""


class Swallowed(NamedTuple):
    """A record that may be several ones."""

    first_line: int
    last_line: int
    column: int
    """Index of the column with the text of several lines."""
    rows: list[list[str]]
    """The records as they would be without the quotes."""

    def foreign_cells(self) -> Iterator[tuple[int, str]]:
        """(index of the column, cell) of what was read as text but would stand in other columns."""
        for index, row in enumerate(self.rows):
            is_first = index == 0
            is_last = index == len(self.rows) - 1
            for column, cell in enumerate(row):
                # The cells before the opening quote and after the closing one were read as such.
                was_before = column < self.column and is_first
                was_after = column > self.column and is_last
                if column != self.column and not was_before and not was_after:
                    yield column, cell


def swallowed(line: int, cells: list[str], delimiter: str, width: int) -> list[Swallowed]:
    """The cells of a record that may be several records, each of `width` cells."""
    suspects = []
    for column, cell in enumerate(cells):
        # Nearly every cell is of one line.
        if width < 2 or ("\n" not in cell and "\r" not in cell):
            continue

        lines = re.split(r"\r\n|\r|\n", cell)
        rows = [part.split(delimiter) for part in lines]
        rows[0] = cells[:column] + rows[0]
        rows[-1] = rows[-1] + cells[column + 1 :]
        if all(len(row) == width for row in rows):
            suspects.append(Swallowed(line, line + len(lines) - 1, column, rows))
    return suspects


def refuse_swallowed(
    path: Path, suspects: Iterable[Swallowed], ordinary: Iterable[list[str]]
) -> None:
    """Raise DataError where the cells of a suspect are like those of the other records.

    They are where, in one column, each of them stands in another record too, or is made of digits
    and signs in the same way (a number, a date).
    """
    suspects = list(suspects)
    looked_for: set[tuple[int, str]] = set()
    for suspect in suspects:
        for column, cell in suspect.foreign_cells():
            looked_for |= {(column, cell), (column, _shape(cell))}

    known: set[tuple[int, str]] = set()
    for cells in ordinary:
        for column, cell in enumerate(cells):
            known |= looked_for & {(column, cell), (column, _shape(cell))}

    for suspect in suspects:
        if _has_column_of_known(suspect, known):
            raise DataError(
                f"{path} lines {suspect.first_line} to {suspect.last_line} are read as one text: "
                f"a quote opens on line {suspect.first_line} and closes on line "
                f"{suspect.last_line}",
                "Remove the stray quotes, or write each of them twice within a quoted text",
            )


def _has_column_of_known(suspect: Swallowed, known: set[tuple[int, str]]) -> bool:
    cells = sorted(suspect.foreign_cells())
    for column, group in itertools.groupby(cells, key=lambda pair: pair[0]):
        values = [cell for _, cell in group]
        if _repeat_each_other(values):
            return True
        if all(_is_known(column, cell, known) for cell in values):
            return True
    return False


def _repeat_each_other(cells: list[str]) -> bool:
    """Whether many cells are few different ones, as intents are.

    This tells where a whole file is one text, so that no other record is left.
    """
    if len(cells) < MANY or any(not cell or cell != cell.strip() for cell in cells):
        return False
    return len(set(cells)) <= len(cells) / 2


def _is_known(column: int, cell: str, known: set[tuple[int, str]]) -> bool:
    if not cell.strip():
        return False
    if (column, cell) in known:
        return True
    shape = _shape(cell)
    return shape != "" and (column, shape) in known


def _shape(cell: str) -> str:
    """A number or a date with 0 for each run of digits, marked as a shape; others have none."""
    if not cell or any(character.isalpha() for character in cell) or not cell.isascii():
        return ""
    return "\0" + re.sub(r"\d+", "0", cell)
