"""Reader of .xlsx workbooks: one sheet, whose first row that is not blank is mostly its header."""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bankintent.config import TableKeys
from bankintent.corpus import limits, workbook_size
from bankintent.corpus.headers import find_headerless
from bankintent.corpus.records import Header, HeldTable, Record, infer_schema
from bankintent.errors import DataError

SheetRow = tuple[int, list[Any]]
"""The number of a row in its sheet, and its cells."""


def open_workbook(path: Path, keys: TableKeys, most_rows: int | None = None) -> HeldTable:
    """Read a sheet of a workbook.

    Raises DataError where there is no such sheet, where it is empty, and where the columns of a
    sheet without a header are not named.
    """
    with _open(path) as workbook:
        sheet = _find_sheet(path, workbook.sheet_names, keys.sheet)
        rows = _read_sheet(workbook, sheet)
        others = [name for name in workbook.sheet_names if name != sheet]
        unread = [name for name in others if _read_sheet(workbook, name)]

    if not rows:
        hint = f"Name another sheet (--set sheet=NAME) of {', '.join(others)}" if others else ""
        raise DataError(f'the sheet "{sheet}" of {path} is empty', hint)

    header = _find_header(path, rows, keys)
    limits.require_rows(path, len(rows) - header.rows, most_rows)
    records = []
    for number, (line, cells) in enumerate(rows[header.rows :], 1):
        records.append(Record(number, line, cells))
    return HeldTable(
        path,
        infer_schema(header.names, records),
        header.name_format("Excel"),
        sheet=sheet,
        unread=tuple(unread),
        header=header,
        held=records,
    )


def _find_header(path: Path, rows: list[SheetRow], keys: TableKeys) -> Header:
    def read_rows() -> Iterator[list[Any]]:
        return (cells for _, cells in rows)

    headerless = find_headerless(path, read_rows, keys)
    if headerless is not None:
        return headerless
    _, first = rows[0]
    return Header(tuple(_as_name(cell) for cell in first))


def sheet_names(path: Path) -> list[str]:
    """The sheets of a workbook in order; DataError where it is none."""
    with _open(path) as workbook:
        return list(workbook.sheet_names)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    """A workbook of the library; its errors become a DataError, and so does a far too large one."""
    workbook_size.require_small(path)
    # It is imported where it is needed, because few tables are workbooks.
    import python_calamine as calamine

    try:
        with calamine.CalamineWorkbook.from_path(str(path)) as workbook:
            yield workbook
    except (calamine.CalamineError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not a readable .xlsx workbook ({reason})") from None


def _find_sheet(path: Path, names: list[str], configured: str | None) -> str:
    if configured is None:
        return names[0]
    if configured not in names:
        raise DataError(
            f'{path} has no sheet "{configured}"; it has {", ".join(names)}', "Correct sheet"
        )
    return configured


def _read_sheet(workbook: Any, sheet: str) -> list[SheetRow]:
    """The rows that are not blank."""
    rows = []
    # With the empty rows and columns at the start, so that numbers are those of the sheet.
    values = workbook.get_sheet_by_name(sheet).to_python(skip_empty_area=False)
    for number, row in enumerate(values, 1):
        cells = [_as_value(cell) for cell in row]
        if any(cell is not None for cell in cells):
            rows.append((number, cells))
    return rows


def _as_value(cell: Any) -> Any:
    """A cell as a Python value: None where it is empty, a whole number as an int."""
    if cell == "":
        return None
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    return cell


def _as_name(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()
