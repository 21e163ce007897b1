"""Numbered records of one file: CSV, TSV, JSON lines, JSON or Parquet."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bankintent.corpus import tables
from bankintent.errors import DataError

Record = dict[str, Any]
"""The values of one record by the names of its columns."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

PARQUET_ROWS = 1 << 16
"""Rows of a Parquet file that are turned into Python values at a time."""


class Records(NamedTuple):
    """The records of a file."""

    rows: list[tuple[int, Record]]
    """Each with its number, counted from 1 (its line in a file of JSON lines)."""
    columns: list[str]
    """Names of the columns, in the order in which they are first met."""


def read_records(path: Path) -> Records:
    """Read a file by its ending; DataError where it is no table that can be read."""
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise DataError(f"{path} has an unknown ending", f"Expected one of {', '.join(SUFFIXES)}")
    return _READERS[suffix](path)


def parse_json(path: Path) -> Any:
    """The content of a JSON file; DataError where it is none."""
    try:
        return json.loads(_decode(path))
    except ValueError as error:
        raise DataError(
            f"{path} is not JSON ({error})", "A file of JSON lines must end in .jsonl"
        ) from None


def _read_csv(path: Path) -> Records:
    _refuse_utf16(path)
    # Bytes that are not UTF-8 become lone surrogates, so that cleaning refuses just their rows.
    table = tables.open_csv(path, errors="surrogateescape")

    rows: list[tuple[int, Record]] = []
    for number, record in enumerate(table.records(), 1):
        # Without values, a record with surplus cells is refused as one that has no text.
        values = [] if record.surplus else record.cells
        rows.append((number, dict(zip(table.header, values, strict=False))))

    # A column without a name holds no text and no label: it is a note or an index.
    columns = list(filter(None, table.header))
    return Records(rows, columns)


def _read_jsonl(path: Path) -> Records:
    rows: list[tuple[int, Record]] = []
    columns: dict[str, None] = {}

    # Not splitlines, which also breaks lines at characters that JSON allows inside a string.
    for number, line in enumerate(_decode(path).split("\n"), 1):
        if not line.strip():
            continue

        record = _parse_line(line, f"{path} line {number}")
        rows.append((number, record))
        columns |= dict.fromkeys(record)

    return Records(rows, list(columns))


def _parse_line(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        raise DataError(f"{where} is not JSON", "Correct or remove that line") from None
    if not isinstance(record, dict):
        raise DataError(f"{where} is not a JSON object", 'Expected {"text": ..., "label": ...}')
    return record


def _read_json(path: Path) -> Records:
    content = parse_json(path)
    if not _is_list_of_objects(content):
        raise DataError(
            f"{path} is neither a list of objects nor CLINC150's layout",
            'Expected [{"text": ..., "label": ...}, ...]',
        )

    # A dict keeps the order in which the columns are met, which a set does not.
    columns: dict[str, None] = {}
    for record in content:
        columns |= dict.fromkeys(record)

    rows = list(enumerate(content, 1))
    return Records(rows, list(columns))


def _is_list_of_objects(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(item, dict) for item in value)


def _read_parquet(path: Path) -> Records:
    table = tables.open_parquet(path)
    records: list[Record] = []
    for chunk in table.chunks(PARQUET_ROWS):
        records += chunk.to_pylist()

    rows = list(enumerate(records, 1))
    return Records(rows, table.schema.names)


_READERS: dict[str, Callable[[Path], Records]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _decode(path: Path) -> str:
    """The file's text; bytes that are not UTF-8 become lone surrogates."""
    _refuse_utf16(path)
    return path.read_bytes().decode("utf-8-sig", errors="surrogateescape")


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        mark = file.read(2)
    if mark in UTF16_MARKS:
        raise DataError(f"{path} is UTF-16 text", "Save it as UTF-8")
