"""The other columns of a labelled table that is evaluated, aligned with its usable rows."""

from collections.abc import Sequence
from pathlib import Path

from bankintent.config import DataConfig
from bankintent.corpus.dataset import Columns
from bankintent.corpus.records import Table, as_text
from bankintent.corpus.rows import Source
from bankintent.corpus.tables import find_ending, open_table


def read_columns(path: Path, config: DataConfig, source: Source, row_ids: Sequence[str]) -> Columns:
    """The columns besides text and intent; none where the source is more than one table.

    `row_ids` are those that cleaning gave to the rows that are left.
    """
    if not path.is_file() or find_ending(path) is None or len(source.reading) != 1:
        return {}
    reading = source.reading[0]
    # An export of another tool has no columns, whatever its ending.
    if reading.file != path.name or reading.text is None:
        return {}

    table = open_table(path, config)
    indices = _other_columns(table, {reading.text, reading.label})
    cells = _cells_by_id(table, list(indices.values()), set(row_ids))

    columns: Columns = {}
    for place, name in enumerate(indices):
        columns[name] = [cells[row_id][place] for row_id in row_ids]
    return columns


def _other_columns(table: Table, used: set[str | None]) -> dict[str, int]:
    """Name -> index of the columns that have a name and are not used; the first of a name."""
    indices: dict[str, int] = {}
    for index, name in enumerate(table.columns):
        if name and name not in used:
            indices.setdefault(name, index)
    return indices


def _cells_by_id(
    table: Table, indices: list[int], row_ids: set[str]
) -> dict[str, list[str | None]]:
    cells = {}
    for record in table.records():
        row_id = f"{table.path.name}:{record.number}"
        if row_id in row_ids:
            cells[row_id] = [as_text(record.cells[index]) for index in indices]
    return cells
