"""Tables for the terminal and for Markdown, made from the JSON record of a benchmark alone."""

from dataclasses import dataclass
from typing import Any

from bankintent import console

Record = dict[str, Any]
"""The JSON object that a benchmark writes, or one entry of a list in it."""


@dataclass(frozen=True)
class Table:
    """Cells are shown as they are, the note below them."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def show(tables: list[Table]) -> None:
    """Print tables one below the other."""
    for table in tables:
        console.print_table(table.title, table.header, table.rows)
        if table.note:
            console.say(f"  {table.note}\n")


def markdown(table: Table) -> str:
    """The table under a heading, its columns aligned in the source: figures right, texts left."""
    header = _escape(table.header)
    rows = [_escape(row) for row in table.rows]
    columns = list(zip(header, *rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    is_right = [index > 0 and _all_figures(table.rows, index) for index in range(len(columns))]

    def line(cells: list[str]) -> str:
        padded = []
        for cell, width, right in zip(cells, widths, is_right, strict=True):
            padded.append(cell.rjust(width) if right else cell.ljust(width))
        return f"| {' | '.join(padded)} |"

    rule = []
    for width, right in zip(widths, is_right, strict=True):
        rule.append("-" * (width - 1) + ":" if right else "-" * width)

    lines = [f"### {table.title}", "", line(header), line(rule), *map(line, rows)]
    if table.note:
        lines += ["", table.note]
    return "\n".join(lines) + "\n"


def _escape(cells: list[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


def _all_figures(rows: list[list[str]], index: int) -> bool:
    """Whether every cell of a column is empty or begins like a number."""
    return all(row[index][:1] in "-0123456789" for row in rows)


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent; empty where the whole is zero."""
    if not whole:
        return ""
    return f"{100 * part / whole:.0f} %"
