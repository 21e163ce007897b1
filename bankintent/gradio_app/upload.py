"""A CSV of sentences in, the same rows with predictions out."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bankintent.gradio_app.client import Client, Trouble

TEXT_COLUMNS = ("text", "sentence", "utterance", "query", "message")
ADDED = ("predicted_intent", "score", "note")
CHUNK = 32
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Table:
    """An uploaded CSV: its header, its rows, and the column that holds the sentences."""

    header: list[str]
    rows: list[list[str]]
    column: int
    delimiter: str


def read(path: Path, max_rows: int) -> Table:
    """Read a CSV, TSV or semicolon file in UTF-8; Trouble says what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Trouble("The file is not UTF-8 text. Save it as CSV in UTF-8.") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [
            row
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            if any(row)
        ]
    except csv.Error as error:
        raise Trouble(f"The file is not well-formed CSV ({error}).") from None
    if len(rows) < 2:
        raise Trouble("The file holds no rows below its header.")
    if len(rows) - 1 > max_rows:
        raise Trouble(
            f"The file holds {len(rows) - 1:,} rows; at most {max_rows:,} are allowed. Split it."
        )
    column = find_column(rows[0])
    width = max(len(row) for row in rows)
    header, *body = [row + [""] * (width - len(row)) for row in rows]
    return Table(header, body, column, delimiter)


def find_column(header: list[str]) -> int:
    """The column of the sentences: by name, or the only one there is."""
    names = [name.strip().lower() for name in header]
    for name in TEXT_COLUMNS:
        if name in names:
            return names.index(name)
    if len(header) == 1:
        return 0
    raise Trouble(
        f"No column is named {', '.join(TEXT_COLUMNS[:-1])} or {TEXT_COLUMNS[-1]}. Rename the right one."
    )


def score(client: Client, table: Table, target: Path, progress: Progress) -> list[list[str]]:
    """Write the table with its predictions to `target` and give the rows that were written.

    A row that cannot be sent (empty, too long) gets a note in place of a prediction.
    """
    limits = client.info()["limits"]
    chunk = min(CHUNK, int(limits["max_texts"]))
    written: list[list[str]] = []
    for start in range(0, len(table.rows), chunk):
        rows = table.rows[start : start + chunk]
        texts = [row[table.column] for row in rows]
        written += [
            row + added
            for row, added in zip(rows, predict(client, texts, limits["max_chars"]), strict=True)
        ]
        progress(len(written) / len(table.rows))
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
        writer.writerow([*table.header, *ADDED])
        writer.writerows(written)
    return written


def predict(client: Client, texts: list[str], max_chars: float) -> Iterator[list[str]]:
    """The added cells of each text."""
    notes = [
        "empty"
        if not t.strip()
        else f"over {max_chars:.0f} characters"
        if len(t) > max_chars
        else ""
        for t in texts
    ]
    usable = [text for text, note in zip(texts, notes, strict=True) if not note]
    answers = iter(client.predict_many(usable) if usable else [])
    for note in notes:
        if note:
            yield ["", "", note]
        else:
            answer = next(answers)
            yield [
                answer["label"],
                f"{answer['score']:.4f}",
                "cut to the model's length" if answer["truncated"] else "",
            ]
