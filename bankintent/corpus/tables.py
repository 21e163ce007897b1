"""The one reader of tables: Parquet, CSV, TSV, JSON lines, JSON and .xlsx.

ETL, `score`, evaluation and the pages read with it. What a file does not say of itself is in
TableKeys.
"""

from pathlib import Path

from bankintent.config import TableKeys
from bankintent.corpus.csv_tables import open_csv
from bankintent.corpus.json_tables import open_json, open_jsonl
from bankintent.corpus.parquet_tables import open_parquet
from bankintent.corpus.records import Table
from bankintent.corpus.workbooks import open_workbook
from bankintent.errors import DataError

TEXT_ENDINGS = (".csv", ".tsv", ".jsonl", ".json")
"""Endings of formats that may also be gzipped, with .gz behind them."""

ENDINGS = (".parquet", ".xlsx", *TEXT_ENDINGS, *(f"{ending}.gz" for ending in TEXT_ENDINGS))
"""Endings of the files that are read as tables."""

HEADED = (".csv", ".tsv", ".xlsx")
"""Endings of the formats that have the names of their columns in a row, or nowhere."""

ENDINGS_IN_WORDS = ".csv, .tsv, .jsonl, .json (also with .gz), .xlsx or .parquet"


def find_ending(path: Path) -> str | None:
    """The one of ENDINGS that a file's name has, in lower case; None where it has none."""
    name = path.name.lower()
    # A name that ends in .csv.gz does not end in .csv, so that at most one fits.
    for known in ENDINGS:
        if name.endswith(known):
            return known
    return None


def require_ending(path: Path) -> str:
    """The ending as `find_ending` gives it; DataError where there is none."""
    found = find_ending(path)
    if found is None:
        raise DataError(f"{path} has an unknown ending", f"Expected {ENDINGS_IN_WORDS}")
    return found


def open_table(path: Path, keys: TableKeys | None = None, most_rows: int | None = None) -> Table:
    """Open a file by its ending; DataError where it does not exist or is no such table.

    A table that is held in memory is refused as soon as it has more than `most_rows` rows.
    """
    kind = require_ending(path).removesuffix(".gz")
    next_step = f"Name one file with the ending {ENDINGS_IN_WORDS}"
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file", next_step)
    if not path.is_file():
        raise DataError(f"{path} does not exist", next_step)

    keys = keys or TableKeys()
    if keys.header == "none" and kind not in HEADED:
        raise DataError(
            f"header: none is for CSV and workbooks, and {path} names its columns itself",
            "Leave header out",
        )

    match kind:
        case ".parquet":
            return open_parquet(path)
        case ".xlsx":
            return open_workbook(path, keys, most_rows)
        case ".jsonl":
            return open_jsonl(path, keys, most_rows)
        case ".json":
            return open_json(path, keys, most_rows)
        case _:
            return open_csv(path, keys)
