"""A table, for the terminal and for Markdown: each benchmark makes its tables from its JSON record alone."""

from dataclasses import dataclass

from bankintent import console


@dataclass(frozen=True)
class Table:
    """Cells are shown as they are; a note stands below."""

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
    """The table under a heading, its columns aligned in the source too; columns of figures are set right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [table.header, *table.rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(table.header))]
    right = [
        i > 0 and all(row[i][:1] in "-0123456789" for row in table.rows) for i in range(len(widths))
    ]

    def line(row: list[str]) -> str:
        padded = (
            cell.rjust(w) if r else cell.ljust(w)
            for cell, w, r in zip(row, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    body = [line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])]
    return (
        "\n".join([f"### {table.title}", "", *body, *(["", table.note] if table.note else [])])
        + "\n"
    )


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent; empty where the whole is not known."""
    return f"{100 * part / whole:.0f} %" if whole else ""
