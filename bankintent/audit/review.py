"""The review table: rows that a person decides on, written for spreadsheets and read back."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bankintent import files, typed_json
from bankintent.corpus.tables import open_table
from bankintent.distribution import command
from bankintent.errors import DataError
from bankintent.files import JsonObject
from bankintent.texts import shorten

REVIEW = "review.csv"
"""The table that people fill in."""

ROWS = "rows.json"
"""The same rows for programs; decisions are in the table alone."""

COLUMNS = (
    "id",
    "text",
    "given",
    "suggested",
    "confidence",
    "neighbours",
    "kind",
    "decision",
    "note",
)

KEEP = "keep"
TAKE = "suggested"
DROP = "drop"
SKIP = "skip"
WORDS = (KEEP, TAKE, DROP, SKIP)
"""Decisions that are no names of intents: keep the label, take the suggested one, remove the row,
look at it later."""

INTENT = "intent:"
"""Before the name of an intent that is one of WORDS."""

LONGEST_SHOWN = 80
"""Characters of a decision that a message repeats."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that spreadsheets run as a formula."""

GUARD = "'"
"""Makes a spreadsheet read a cell as text."""


@dataclass(frozen=True)
class Neighbour:
    """A sentence near a row."""

    text: str
    label: str
    cosine: float


@dataclass(frozen=True)
class ReviewRow:
    """A row whose label may be wrong."""

    id: str
    split: str
    text: str
    given: str
    suggested: str
    confidence: float
    """The probability of the suggested intent, out of fold."""
    given_confidence: float
    """That of the given one."""
    kind: str
    """label_error, near_duplicate, or both with a plus between them."""
    neighbours: list[Neighbour] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """The share of the neighbours that have the suggested intent."""
        if not self.neighbours:
            return 0.0
        agreeing = [near for near in self.neighbours if near.label == self.suggested]
        return len(agreeing) / len(self.neighbours)


@dataclass(frozen=True)
class Decision:
    """What was decided of a row."""

    decision: str = ""
    """Empty, one of WORDS, or the name of an intent."""
    note: str = ""


@dataclass(frozen=True)
class _RowsFile:
    rows: list[ReviewRow]


def write_rows(folder: Path, rows: list[ReviewRow]) -> None:
    """Write the rows for programs."""
    content: JsonObject = {"rows": [asdict(row) for row in rows]}
    files.write_text(folder / ROWS, files.json_text(content))


def read_rows(folder: Path) -> list[ReviewRow]:
    """The rows of an audit; DataError where the folder is none."""
    path = folder / ROWS
    try:
        return typed_json.parse(_RowsFile, path.read_text(encoding="utf-8")).rows
    except OSError:
        raise DataError(
            f"{folder} holds no audit (no {ROWS})",
            f"Make one: {command('audit')} --config configs/audit.yaml",
        ) from None
    except ValueError:
        raise DataError(f"{path} is not what an audit writes", "Run the audit again") from None


def write_review(folder: Path, rows: list[ReviewRow], decisions: dict[str, Decision]) -> None:
    """Write the table with what was decided so far, by row id; a reader sees the old or the new."""
    with files.staged(folder / REVIEW) as staging:
        _write_table(staging, rows, decisions)


def _write_table(path: Path, rows: list[ReviewRow], decisions: dict[str, Decision]) -> None:
    # The byte order mark makes Excel read UTF-8.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            decided = decisions.get(row.id, Decision())
            writer.writerow(map(guarded, _cells(row, decided)))


def _cells(row: ReviewRow, decided: Decision) -> list[str]:
    return [
        row.id,
        row.text,
        row.given,
        row.suggested,
        f"{row.confidence:.3f}",
        "\n".join([f"{near.label}: {near.text} ({near.cosine:.2f})" for near in row.neighbours]),
        row.kind,
        decided.decision,
        decided.note,
    ]


def guarded(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula."""
    return GUARD + cell if cell.startswith(FORMULA) else cell


def unguarded(cell: str) -> str:
    """What was written before `guarded`."""
    is_guarded = cell.startswith(GUARD) and cell[1:].startswith(FORMULA)
    return cell[1:] if is_guarded else cell


def read_review(folder: Path, rows: list[ReviewRow], names: Iterable[str]) -> dict[str, Decision]:
    """What the table says of each row, by id; rows without a decision or a note are left out.

    A spreadsheet may have written it: with other delimiters, another encoding, in another order, or
    with rows left out. Raises DataError for a decision that is none, and for a row that is not of
    this audit.
    """
    if not rows:
        # A table without rows is none to the reader of tables.
        return {}

    table = open_table(folder / REVIEW)
    columns = {name: place for place, name in enumerate(table.columns)}
    missing = [name for name in ("id", "decision") if name not in columns]
    if missing:
        raise DataError(
            f'{folder / REVIEW} has no column "{missing[0]}"',
            "Undo the change to its first row, or run the audit again",
        )

    known = {row.id for row in rows}
    intents = set(names)
    seen: set[str] = set()
    decisions: dict[str, Decision] = {}
    for record in table.records():
        cells = ["" if cell is None else str(cell).strip() for cell in record.cells]
        # Spreadsheets keep rows that were emptied.
        if not any(cells):
            continue
        row_id = unguarded(cells[columns["id"]])
        note = cells[columns["note"]] if "note" in columns else ""
        decided = Decision(unguarded(cells[columns["decision"]]), unguarded(note))
        if row_id not in known:
            raise DataError(
                f'{folder / REVIEW} has a row "{row_id}" that is not of this audit',
                "Remove that row, or run the audit again",
            )

        if row_id in seen:
            raise DataError(
                f'{folder / REVIEW} has the row "{row_id}" twice', "Remove one of the two"
            )
        seen.add(row_id)

        decided = Decision(settle(decided.decision, intents, row_id), decided.note)
        if decided != Decision():
            decisions[row_id] = decided
    return decisions


def settle(decision: str, intents: set[str], row_id: str) -> str:
    """A decision as it is written; DataError where it is none."""
    word = decision.lower()
    if not decision or word in WORDS:
        return word
    for name in (decision, decision.removeprefix(INTENT)):
        if name in intents:
            return as_decision(name)
    shown = shorten(decision, LONGEST_SHOWN)
    raise DataError(
        f'the decision "{shown}" on the row {row_id} is neither one of {", ".join(WORDS)}'
        " nor an intent of the data",
        f"Correct it in {REVIEW}",
    )


def chosen_intent(decision: str, row: ReviewRow) -> str | None:
    """The intent that a decision gives a row; None where it gives none."""
    if decision == TAKE:
        return row.suggested
    if not decision or decision in WORDS:
        return None
    return decision.removeprefix(INTENT)


def as_decision(name: str) -> str:
    """The name of an intent as a decision, which must not read like something else."""
    is_ambiguous = name.lower() in WORDS or name.startswith(INTENT)
    return INTENT + name if is_ambiguous else name
