"""Standard output: lines and tables, in a terminal or in a log.

In a terminal nothing is wider than the terminal, and no word is broken: lines are wrapped between
words, and a table that is too wide is shown row by row. Without one, lines are as long as they are.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.text import Text


def make_console() -> Console:
    """A console on standard output, which a notebook shows as a log does.

    There rich would make a block of HTML of each line, and show no bars without a widget.
    """
    is_notebook = Console().is_jupyter
    return Console(
        # Numbers have no colours.
        highlight=False,
        force_jupyter=False,
        # Not by FORCE_COLOR, which Jupyter sets.
        force_terminal=False if is_notebook else None,
    )


stdout = make_console()
"""All functions of this module print here."""

GAP = 2
"""Spaces between two columns of a table."""

NARROWEST_TEXT = 16
"""Columns to which a column of texts may shrink: narrower ones are hard to read."""

COMMAND = re.compile(
    # From the start of a word: a bracket or a quote before a command is part of it.
    r"(?<!\S)(?:"
    r"(?:[A-Z_]+=\S+ )*(?:\S*python[\d.]* -m (?:bankintent )?\S+|bankintent [a-z-]+)"
    r"(?: (?:--?\w[\w-]*(?: [^\s-]\S*)?|\S*[/=.]\S+))*"
    r"|\S*pip install \S+"
    r"|\S*--[\w-]+ \S*[/=]\S+"
    r")"
)
"""A command or an option with its value in a sentence: a line break inside could not be copied."""

WORD = re.compile(r"\s*\S+(?: %\S*| = \S+)*")
"""A word with the white space before it; a number keeps its per cent sign, and a p its value."""

NUMBER = re.compile(r"\**[-+<>~]? ?\d.*|-?")
"""A cell of figures: a number, in bold or not, an interval; a dash or nothing is a missing one."""

COUNTED = re.compile(r"[\d,.]+ [^\W\d_]{3}")
"""A number and a word, for example `5 per intent`: the name of something, not a figure."""


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Within the block nothing of this module is printed, and no bar is shown."""
    was_quiet = stdout.quiet
    stdout.quiet = True
    try:
        yield
    finally:
        stdout.quiet = was_quiet


def say(text: str) -> None:
    """Print plain text, a line for each of its lines: brackets in it are not markup."""
    # Soft wrapping leaves lines whole, so that paths can be copied and lines found in a log.
    stdout.print(_fit_lines(text, stdout), markup=False, soft_wrap=True)


def say_beside(prefix: str, text: str) -> None:
    """Print a text after a prefix, in a terminal its further lines below its first."""
    if not stdout.is_terminal:
        say(prefix + text)
        return

    room = stdout.width - cell_len(prefix)
    if _longest_word(text) > room:
        # A long path or name has the line to itself.
        say(prefix.rstrip())
        prefix = " " * GAP
        room = stdout.width - GAP

    for line in wrap_words(text, room):
        stdout.print(prefix + line, markup=False, soft_wrap=True)
        prefix = " " * cell_len(prefix)


def say_error(message: str) -> None:
    """Print an error on standard error, after the word "error" in red."""
    prefix = "error:"
    # Made for each message: standard error may be another file than at the time of the import.
    stderr = Console(stderr=True, highlight=False)

    text = Text(_fit_lines(f"{prefix} {message}", stderr))
    text.stylize("red", 0, len(prefix))
    stderr.print(text, soft_wrap=True)


def _fit_lines(text: str, target: Console) -> str:
    """The text with the line breaks that the target needs: none where it is no terminal."""
    if not target.is_terminal:
        return text

    lines = []
    for line in text.split("\n"):
        lines += wrap_words(line, target.width)
    return "\n".join(lines)


def wrap_words(line: str, width: int) -> list[str]:
    """The line in lines of at most `width` columns, broken between words.

    All have its indent, and those of a list's item two spaces more. Paths and commands stay whole:
    a longer one has a line of its own.
    """
    if cell_len(line) <= width:
        return [line]

    content = line.lstrip()
    indent = line[: len(line) - len(content)]
    hanging_indent = f"{indent}  " if content.startswith("- ") else indent
    lines = []
    current = ""
    for word in _split_words(content):
        if current and cell_len(indent + current + word) > width:
            lines.append(indent + current)
            indent = hanging_indent
            current = ""
        # The space before a word is not needed at the start of a line.
        current += word if current else word.lstrip()
    return [*lines, indent + current]


def _split_words(line: str) -> list[str]:
    """The words of a line, each with the white space before it; a command is one word."""
    words = []
    position = 0
    for match in COMMAND.finditer(line):
        start = match.start()
        before = line[position:start].rstrip()
        words += WORD.findall(before)
        # With the space before the command, and what follows it up to the next space.
        rest = re.match(r"\S*", line[match.end() :])
        assert rest is not None
        command_end = match.end() + rest.end()
        words.append(line[position + len(before) : command_end])
        position = command_end
    return words + WORD.findall(line[position:])


def show_path(path: Path) -> str:
    """A path as a user would type it: relative if it is inside the working folder."""
    absolute = path.absolute()
    here = Path.cwd()

    if absolute.is_relative_to(here):
        return str(absolute.relative_to(here))
    return str(absolute)


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print an aligned table, numbers to the right.

    In a terminal that is too narrow for it, texts are wrapped between words, or if that is not
    enough, each row is shown as a list of its cells. Without a terminal it is as wide as it needs.
    """
    columns = list(zip(header, *rows, strict=True))
    numeric = numeric_columns(header, rows)
    widths = [max(map(cell_len, column)) for column in columns]

    if not stdout.is_terminal:
        _print_grid(title, header, rows, widths)
        return

    least: list[int] = []
    for column, is_number in zip(columns, numeric, strict=True):
        least.append(_least_width(column, is_wrapped=not is_number and bool(least)))
    room = stdout.width - GAP * (len(header) - 1)

    if sum(least) > room:
        _print_stacked(title, header, rows)
    else:
        _print_grid(title, header, rows, _shrink(widths, least, room))


def _least_width(column: Sequence[str], is_wrapped: bool) -> int:
    """The columns of a terminal that a column needs at least; its first cell is the header.

    Where its cells are not wrapped, the header is.
    """
    header, *cells = column
    longest_cell = max(map(cell_len, cells), default=0)
    if not is_wrapped:
        return max(_longest_word(header), longest_cell)

    longest_word = max(map(_longest_word, column))
    return max(longest_word, min(longest_cell, NARROWEST_TEXT))


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def _shrink(widths: list[int], least: list[int], room: int) -> list[int]:
    """The widths, of which the widest shrink until the sum is `room`, none below its least."""
    widths = list(widths)
    while sum(widths) > room:
        shrinkable = [index for index in range(len(widths)) if widths[index] > least[index]]
        widest = max(shrinkable, key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _print_grid(title: str, header: list[str], rows: list[list[str]], widths: list[int]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        # One space, and one of the box.
        padding=(0, GAP - 1, 0, 0),
        # Also without a terminal, where rich would take 80 columns.
        width=sum(widths) + GAP * (len(widths) - 1),
    )
    numeric = numeric_columns(header, rows)
    for name, is_number, width in zip(header, numeric, widths, strict=True):
        table.add_column(escape(name), justify="right" if is_number else "left", width=width)

    for row in rows:
        table.add_row(*map(escape, row))
    _print_bold(title)
    # Soft wrapping leaves lines whole that are longer than 80 columns where there is no terminal.
    stdout.print(table, soft_wrap=True)
    say("")


def _print_bold(text: str) -> None:
    stdout.print(Text(_fit_lines(text, stdout), style="bold"), soft_wrap=True)


def _print_stacked(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Each row as a block, with a line for each cell that is not empty."""
    _print_bold(title)
    name_width = max(map(cell_len, header))

    for row in rows:
        say("")
        for name, cell in zip(header, row, strict=True):
            if cell:
                padding = " " * (name_width + GAP - cell_len(name))
                say_beside(name + padding, cell)
    say("")


def numeric_columns(header: list[str], rows: list[list[str]]) -> list[bool]:
    """Of each column whether all of its cells are figures; the first column holds names."""
    numeric = []
    for index in range(len(header)):
        cells = [row[index] for row in rows]
        # The first column holds names, even where they begin with a digit.
        numeric.append(index > 0 and any(cells) and all(map(_looks_numeric, cells)))
    return numeric


def _looks_numeric(cell: str) -> bool:
    return NUMBER.fullmatch(cell) is not None and COUNTED.match(cell) is None


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A table as lines of Markdown, numbers to the right; a bar in a cell does not end the cell."""
    numeric = numeric_columns(header, rows)
    divider = ["---:" if is_number else "---" for is_number in numeric]

    lines = [_markdown_row(header), _markdown_row(divider)]
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append(_markdown_row(cells))
    return lines


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
