"""Reads an uploaded CSV, and writes the same rows with predictions."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bankintent.corpus import tables
from bankintent.corpus.columns import TEXT_COLUMNS, find_column
from bankintent.errors import DataError
from bankintent.gradio_app.client import Client, Trouble

ADDED = ("predicted_intent", "score", "note")
"""The columns that scoring adds."""

BATCH_ROWS = 32
"""Most rows of one request: few, so that progress is seen and other users need not wait long."""

Progress = Callable[[float], None]
"""Called with the share of the rows that are scored."""


@dataclass(frozen=True, slots=True)
class UploadedTable:
    """An uploaded CSV: its header, its rows, and the index of the column of sentences."""

    header: list[str]
    rows: list[list[str]]
    column: int
    delimiter: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The API's limits of one request."""

    max_texts: int
    max_chars: float


def read_upload(path: Path, max_rows: int) -> UploadedTable:
    """Read a CSV, TSV or semicolon file in UTF-8.

    Raises Trouble where it is not well formed, has no column of sentences, or has no rows or too
    many.
    """
    try:
        source = tables.open_csv(path)
        column = find_sentences(source.header, path.name)
        rows = list(source.rows())
    except DataError as error:
        # The message names the file as the person chose it, without the folder of uploads.
        raise Trouble(str(error).replace(str(path), path.name)) from None

    if not rows:
        raise Trouble("The file holds no rows below its header.")
    if len(rows) > max_rows:
        raise Trouble(
            f"The file holds {len(rows):,} rows; at most {max_rows:,} are allowed. Split it."
        )

    return UploadedTable(list(source.header), rows, column, source.delimiter)


def find_sentences(header: Sequence[str], name: str) -> int:
    """Index of the column of sentences of the file `name`: the only one, or found by its name."""
    if len(header) == 1:
        return 0

    column = find_column(
        header, "text_column", None, TEXT_COLUMNS, name, hint="Rename its column of sentences"
    )
    return header.index(column)


def score_upload(
    client: Client, table: UploadedTable, target: Path, progress: Progress
) -> list[list[str]]:
    """Write the table with its predictions to `target`, and return the rows as written.

    A row that cannot be sent (empty, too long) gets a note in place of a prediction.
    """
    limits = _limits(client)
    batch_rows = min(BATCH_ROWS, limits.max_texts)
    scored: list[list[str]] = []

    for start in range(0, len(table.rows), batch_rows):
        rows = table.rows[start : start + batch_rows]
        texts = [row[table.column] for row in rows]
        for row, cells in zip(rows, predict_cells(client, texts, limits.max_chars), strict=True):
            scored.append(row + cells)

        progress(len(scored) / len(table.rows))

    # An empty newline: otherwise line breaks within cells would change on some systems.
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
        writer.writerow([*table.header, *ADDED])
        writer.writerows(scored)
    return scored


def _limits(client: Client) -> Limits:
    limits = client.info()["limits"]
    return Limits(int(limits["max_texts"]), limits["max_chars"])


def predict_cells(client: Client, texts: list[str], max_chars: float) -> list[list[str]]:
    """The cells of the ADDED columns for each text."""
    refusals = [_refusal(text, max_chars) for text in texts]
    usable = [text for text, refusal in zip(texts, refusals, strict=True) if not refusal]

    # The API refuses a request without texts.
    predictions = iter(client.predict_many(usable) if usable else [])

    cells = []
    for refusal in refusals:
        if refusal:
            cells.append(["", "", refusal])
            continue

        prediction = next(predictions)
        note = "cut to the model's length" if prediction["truncated"] else ""
        cells.append([prediction["label"], f"{prediction['score']:.4f}", note])
    return cells


def _refusal(text: str, max_chars: float) -> str:
    """Why a text cannot be sent; empty where it can."""
    if not text.strip():
        return "empty"
    if len(text) > max_chars:
        return f"over {max_chars:.0f} characters"
    return ""
