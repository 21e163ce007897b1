"""Reader of CSV and TSV files of any length: every column is text, as it is written.

Blank lines are no rows. A row that ends early has empty cells at its end. A row with more cells
than there are columns has lost them (a delimiter without quotes), so nothing of it is used; empty
ones at its end are none.
"""

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from bankintent.config import TableKeys
from bankintent.corpus import encoding as encodings
from bankintent.corpus import limits
from bankintent.corpus.headers import find_headerless
from bankintent.corpus.records import Header, Record, Table, regroup, rows_at_once
from bankintent.corpus.stray_quotes import Swallowed, refuse_swallowed, swallowed
from bankintent.errors import DataError

LONGEST_CELL = 1 << 24
"""Most characters of a CSV cell: an unclosed quote is noticed before it has filled the memory."""

DELIMITERS = ("\t", ";", "|", ",")
"""What a delimiter may be that is not configured; commas last, because texts are full of them."""

LOOKED_AT = 20
"""Records below the header by which a delimiter is found."""

Lines = Iterator[tuple[int, list[str]]]
"""The first line and the cells of each record of a CSV, the header's first."""


@dataclass(frozen=True)
class CsvTable(Table):
    """A CSV or TSV file."""

    codec: str = "utf-8-sig"
    """The encoding as Python's codec, which drops a byte order mark."""

    def records(self) -> Iterator[Record]:
        """All records below the header, in order.

        Raises DataError at the end where two stray quotes have made one text of several rows.
        """
        width = len(self.schema)
        suspects: list[Swallowed] = []
        filled = 0
        for number, (line, cells) in enumerate(self._lines(), 1):
            suspects += swallowed(line, cells, self._delimiter, width)
            filled += len(cells)
            limits.require_filled(self.path, number * width, filled)
            surplus = _count_surplus(cells, width)
            padding = [""] * (width - len(cells))
            yield Record(number, line, cells[:width] + padding, surplus)

        if suspects:
            refuse_swallowed(self.path, suspects, self._ordinary_rows(suspects))

    def _lines(self) -> Lines:
        """The records below the header."""
        assert self.header is not None
        lines = read_csv_records(self.path, self._delimiter, self.codec)
        return itertools.islice(lines, self.header.rows, None)

    @property
    def _delimiter(self) -> str:
        assert self.delimiter is not None
        return self.delimiter

    def _ordinary_rows(self, suspects: Iterable[Swallowed]) -> Iterator[list[str]]:
        """The cells of all other records, read once more."""
        starts = {suspect.first_line for suspect in suspects}
        for line, cells in self._lines():
            if line not in starts:
                yield cells

    def chunks(self, rows: int, column: int | None = None) -> Iterator[pa.Table]:
        schema = self.schema
        indices: Sequence[int] = range(len(schema))
        if column is not None:
            indices = [column]
            schema = pa.schema([schema.field(column)])

        remaining = self._whole_rows()
        few = rows_at_once(rows, len(self.schema))

        def blocks() -> Iterator[pa.Table]:
            while block := list(itertools.islice(remaining, few)):
                yield _to_arrow(block, indices, schema)

        yield from regroup(blocks(), rows)

    def _whole_rows(self) -> Iterator[list[str]]:
        for record in self.records():
            self.require_whole(record)
            yield record.cells


def _count_surplus(cells: list[str], width: int) -> int:
    """Cells beyond the header's; as a delimiter at the end of a line makes them, they are none."""
    beyond = cells[width:]
    return len(beyond) if any(cell.strip() for cell in beyond) else 0


def _to_arrow(block: list[list[str]], indices: Sequence[int], schema: pa.Schema) -> pa.Table:
    columns = []
    for index in indices:
        cells = [row[index] for row in block]
        columns.append(pa.array(cells, pa.string()))
    return pa.Table.from_arrays(columns, schema=schema)


def open_csv(path: Path, keys: TableKeys) -> CsvTable:
    """Read the first lines of a CSV or TSV file, or more to see whether it has a header.

    Raises DataError where it is empty, and where the columns of a file without a header are not
    named.
    """
    with encodings.readable(path):
        codec = encodings.find_encoding(path, keys.encoding)
    delimiter = keys.delimiter or _find_delimiter(path, codec)

    header = _find_header(path, delimiter, codec, keys)
    limits.require_columns(path, len(header.names))
    return CsvTable(
        path,
        pa.schema([pa.field(name, pa.string()) for name in header.names]),
        header.name_format("TSV" if _is_tsv(path) else "CSV"),
        delimiter,
        encodings.name_encoding(codec),
        header=header,
        codec=codec,
    )


def _find_header(path: Path, delimiter: str, codec: str, keys: TableKeys) -> Header:
    """The names of the columns; DataError where the first line has nothing in it."""

    def read_rows() -> Iterator[list[str]]:
        return (cells for _, cells in read_csv_records(path, delimiter, codec))

    first = next(read_rows(), [])
    if not any(name.strip() for name in first):
        raise DataError(f"{path} is empty", "Expected a header line and rows below it")

    headerless = find_headerless(path, read_rows, keys)
    if headerless is not None:
        return headerless
    return Header(tuple(name if name.strip() else "" for name in first))


def name_delimiter(delimiter: str) -> str:
    """A delimiter in words, as the key `delimiter` takes it too."""
    names = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe"}
    return names.get(delimiter, delimiter)


def _is_tsv(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".tsv")


def _find_delimiter(path: Path, codec: str) -> str:
    """The delimiter of the header line: the one that divides the lines below it in the same way.

    A header may hold a delimiter within a name, so its count alone is not enough. In a .tsv with a
    tab in its header, it is the tab.
    """
    header = _first_line(path, codec)
    candidates = [delimiter for delimiter in DELIMITERS if delimiter in header]
    if not candidates:
        return "\t" if _is_tsv(path) else ","
    if len(candidates) == 1:
        return candidates[0]
    if _is_tsv(path) and "\t" in candidates:
        return "\t"

    # Of equally good ones, max gives the first.
    fits = [_fit(path, codec, delimiter) for delimiter in candidates]
    return candidates[fits.index(max(fits))]


def _first_line(path: Path, codec: str) -> str:
    """The first line that is not blank."""
    with encodings.readable(path, codec), encodings.open_text(path, codec) as file:
        # Bounded, because a file of another kind may have no line ends at all.
        while line := file.readline(LONGEST_CELL):
            if line.strip():
                return line
    return ""


def _fit(path: Path, codec: str, delimiter: str) -> tuple[float, int]:
    """(share of the first records that are as wide as the header, the header's width)."""
    with encodings.readable(path, codec), encodings.open_text(path, codec) as file:
        reader = csv.reader(_short_lines(path, file, delimiter), delimiter=delimiter)
        try:
            widths = [len(cells) for cells in itertools.islice(reader, LOOKED_AT) if cells]
        except csv.Error:
            # A cell without an end: the delimiter is another, or the fault is named later.
            return 0.0, 0

    if not widths:
        return 0.0, 0
    below = widths[1:]
    if widths[0] < 2:
        # Within quotes it divides nothing.
        return 0.0, widths[0]
    return below.count(widths[0]) / max(len(below), 1), widths[0]


def read_csv_records(path: Path, delimiter: str, codec: str) -> Lines:
    """The first line and the cells of each record of a CSV, the header's first.

    Blank lines are skipped. DataError names the lines of a record that is not well formed.
    """
    # The limit holds for the whole process, so it is never lowered.
    csv.field_size_limit(max(LONGEST_CELL, csv.field_size_limit()))

    with encodings.readable(path, codec), encodings.open_text(path, codec) as file:
        # Strict: a quote that is not closed is an error and not a part of the text.
        lines = _short_lines(path, file, delimiter)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        first_line = 1
        rows = 0
        blank = 0
        try:
            for cells in reader:
                if cells:
                    rows += 1
                    yield first_line, cells
                else:
                    blank += 1
                    limits.require_few_blank(path, blank, rows)
                first_line = reader.line_num + 1
        except csv.Error as error:
            raise _csv_fault(path, first_line, reader.line_num, error) from None


def _short_lines(path: Path, file: TextIO, delimiter: str) -> Iterator[str]:
    """The lines of a file; DataError for one with far more delimiters than a table has columns."""
    for number, line in enumerate(file, 1):
        # A line that is shorter cannot have as many.
        if len(line) > limits.CELLS_OF_LINE and line.count(delimiter) > limits.CELLS_OF_LINE:
            raise DataError(
                f"{path} line {number} has more than {limits.CELLS_OF_LINE:,} cells",
                limits.NARROWER,
            )
        yield line


def _csv_fault(path: Path, first: int, last: int, error: csv.Error) -> DataError:
    where = f"{path} line {first}"
    if last > first:
        where += f" (to line {last})"
    return DataError(f"{where}: {error}", "Correct the quotes there")
