"""Reads an uploaded table, and writes the same rows with predictions."""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bankintent.config import LabelledTableKeys
from bankintent.corpus import limits, tables
from bankintent.corpus.columns import LABEL_COLUMNS, find_column, find_table_text
from bankintent.corpus.encoding import EncodingFault
from bankintent.corpus.records import Table, as_text
from bankintent.errors import DataError
from bankintent.gradio_app.client import (
    ApiDecision,
    Client,
    Trouble,
    read_decision,
    require_intent,
)
from bankintent.scoring import output
from bankintent.texts import is_blank

ADDED = pa.schema(
    [
        pa.field("predicted_intent", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("decision", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("margin", pa.float64()),
        pa.field("second", pa.string()),
        pa.field("note", pa.string()),
    ]
)
"""The columns that scoring adds.

As in the API, the intent of a row is the best one, also where the model abstains.
"""

DECIMALS = 4
"""Decimals of a score and of a margin."""

MOST_UNPACKED = 1 << 28
"""Most bytes of a table in memory: other people use the page at the same time."""

AS_FOUND = LabelledTableKeys()
"""Nothing is chosen: what can be found in a table is."""

BATCH_ROWS = 32
"""Most rows of one request: few, so that progress is seen and other users need not wait long."""

READ_ROWS = 1000
"""Rows that are read at a time, so that the reading ends soon after the most that are allowed."""

Progress = Callable[[float], None]
"""Called with the share of the rows that are scored."""


class UnknownEncoding(Trouble):
    """A file whose encoding a person has to choose."""

    def __init__(self, message: str, looks_like: str) -> None:
        super().__init__(message)
        self.looks_like = looks_like
        """The encoding that it seems to be in, by Python's name."""


@dataclass(frozen=True, slots=True)
class UploadedTable:
    """An uploaded table in memory, and which of its columns count."""

    source: Table
    rows: pa.Table
    texts: list[str]
    """The sentence of each row; empty where it has none."""
    labels: list[str] | None
    """The intent that each row has already, empty where it has none; None without such a column."""


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What scoring says about a row."""

    intent: str | None
    """The best one; None for a row that cannot be sent."""
    score: float | None
    note: str
    decision: ApiDecision | None = None
    """None for a row that cannot be sent."""
    second: str | None = None
    """The second-best intent, where there is one."""
    margin: float | None = None
    """Score of the best minus that of the second."""

    @property
    def is_refused(self) -> bool:
        """Whether the model saw the row and abstains."""
        return self.decision is not None and not self.decision.is_answer

    @property
    def answer(self) -> str | None:
        """The intent where it is the answer."""
        return None if self.is_refused else self.intent


@dataclass(frozen=True, slots=True)
class Limits:
    """The API's limits of one request."""

    max_texts: int
    max_chars: float


def read_upload(path: Path, max_rows: int, keys: LabelledTableKeys = AS_FOUND) -> UploadedTable:
    """Read a table of any kind that ETL and `score` read.

    `keys` name the column of sentences, otherwise it is found by its name, and the column of
    intents, otherwise there is none. Raises Trouble where the file is not well formed, has no such
    columns, or has no rows or too many.
    """
    try:
        source = open_upload(path, max_rows, keys)
        hint = "Choose the column of messages"
        text_column = find_table_text(source, keys.text_column, hint)
        label_column = find_label(source.columns, keys, path.name)
        rows = read_all_rows(source, max_rows)
        texts = read_cells(source, text_column)
        labels = None if label_column is None else read_cells(source, label_column)
    except DataError as error:
        raise explain_trouble(error, path) from None

    if labels is not None:
        labels = [label.strip() for label in labels]
    return UploadedTable(source, rows, texts, labels)


def open_upload(path: Path, max_rows: int, keys: LabelledTableKeys) -> Table:
    """An uploaded table; Trouble where it is gone, DataError where it cannot be read."""
    if not path.is_file():
        raise Trouble(f"{path.name} is not kept any more. Upload it again.")
    if path.suffix.lower() == ".gz":
        limits.require_unpacked(path, limits.SPARE_BYTES)
    return tables.open_table(path, keys, max_rows)


def explain_trouble(error: DataError, path: Path) -> Trouble:
    """The error as the page shows it: with the file's name, without the folder of uploads."""
    found = f"{error.found.replace(str(path), path.name)}."

    if isinstance(error, EncodingFault) and error.looks_like is not None:
        encoding = codecs.lookup(error.looks_like).name
        return UnknownEncoding(f"{found} Choose its encoding.", encoding)

    message = str(error).replace(str(path), path.name)
    # The next step of the reader may be one on a command line.
    return Trouble(found if "--set" in message else message)


def find_label(columns: Sequence[str], keys: LabelledTableKeys, name: str) -> str | None:
    """The column of intents that was chosen, if any."""
    if keys.label_column is None:
        return None
    return find_column(columns, "label_column", keys.label_column, LABEL_COLUMNS, name)


def read_all_rows(source: Table, max_rows: int) -> pa.Table:
    """All rows of a table; DataError where there are none, or more than `max_rows`."""
    chunks: list[pa.Table] = []
    count = 0
    size = 0

    for chunk in source.chunks(READ_ROWS):
        chunks.append(chunk)
        count += chunk.num_rows
        size += chunk.nbytes
        if size > MOST_UNPACKED:
            raise limits.larger(source.path, MOST_UNPACKED)
        if count > max_rows:
            raise DataError(
                f"{source.path} holds more than {max_rows:,} rows", "Split it, or use `score`"
            )

    if count == 0:
        raise DataError(f"{source.path} holds no rows below its header")
    return pa.concat_tables(chunks)


def read_cells(source: Table, column: str) -> list[str]:
    """The values of a column as text; empty where there is none."""
    index = source.columns.index(column)
    # Records, because they have the names of classes in place of their ids.
    return [to_text(record.cells[index]) for record in source.records()]


def to_text(value: Any) -> str:
    """A value as a cell of text; empty where there is none."""
    # A column of whole numbers in which some are missing is one of floats.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return as_text(value) or ""


def score_upload(client: Client, table: UploadedTable, progress: Progress) -> list[RowAnswer]:
    """The answer to each row; a row that cannot be sent (empty, too long) gets a note instead."""
    limits = _limits(client)
    batch_rows = min(BATCH_ROWS, limits.max_texts)
    answers: list[RowAnswer] = []

    for start in range(0, len(table.texts), batch_rows):
        texts = table.texts[start : start + batch_rows]
        answers += answer_texts(client, texts, limits.max_chars)
        progress(len(answers) / len(table.texts))

    return answers


def _limits(client: Client) -> Limits:
    limits = client.info()["limits"]
    return Limits(int(limits["max_texts"]), limits["max_chars"])


def answer_texts(client: Client, texts: list[str], max_chars: float) -> list[RowAnswer]:
    """One answer for each text."""
    refusals = []
    usable = []
    for text in texts:
        refusal = _refusal(text, max_chars)
        refusals.append(refusal)
        if not refusal:
            usable.append(text)

    # The API refuses a request without texts.
    predictions = iter(client.predict_many(usable) if usable else [])

    answers = []
    for refusal in refusals:
        if refusal:
            answers.append(RowAnswer(None, None, refusal))
            continue

        prediction = next(predictions)
        answers.append(read_answer(prediction))
    return answers


def read_answer(prediction: dict[str, Any]) -> RowAnswer:
    """The API's answer to a row; Trouble where it is of another shape."""
    require_intent(prediction)
    score = prediction["score"]
    note = "cut to the model's length" if prediction.get("truncated") else ""

    second = None
    margin = None
    others = prediction.get("top_k")
    if isinstance(others, list) and len(others) > 1:
        require_intent(others[1])
        second = others[1]["label"]
        margin = score - others[1]["score"]
    decision = read_decision(prediction)
    return RowAnswer(prediction["label"], score, note, decision, second, margin)


def _refusal(text: str, max_chars: float) -> str:
    """Why a text cannot be sent; empty where it can."""
    if is_blank(text):
        return "empty"
    if len(text) > max_chars:
        return f"over {max_chars:.0f} characters"
    return ""


def write_scored(table: UploadedTable, answers: list[RowAnswer], folder: Path) -> Path:
    """Write the rows with the ADDED columns into a folder; the path of the file.

    The kind is that of the upload; a workbook and JSON become a CSV, and a table that does not fit
    into text becomes a Parquet file.
    """
    scored = add_answers(table.rows, answers)
    kind = _output_kind(table.source, scored.schema)
    target = folder / f"{_stem_of(table.source.path)}-predictions{kind}"

    with output.writing(target, kind, scored.schema, table.source) as write:
        write(scored)

    if _is_for_a_spreadsheet(table.source, kind):
        # Without the mark Excel would read it in the code page of its machine.
        target.write_bytes(codecs.BOM_UTF8 + target.read_bytes())
    return target


def add_answers(rows: pa.Table, answers: list[RowAnswer]) -> pa.Table:
    """The rows with the ADDED columns, under names that the table does not have yet."""
    added = pa.Table.from_pylist(list(map(_cells, answers)), schema=ADDED)
    for field in ADDED:
        named = field.with_name(_free_name(field.name, rows.schema.names))
        rows = rows.append_column(named, added.column(field.name))
    return rows


def _cells(answer: RowAnswer) -> dict[str, Any]:
    """The ADDED cells of a row."""
    decision = answer.decision
    return {
        "predicted_intent": answer.intent,
        "score": _rounded(answer.score),
        "decision": None if decision is None else decision.verdict.value,
        "reason": None if decision is None else decision.reason,
        "margin": _rounded(answer.margin),
        "second": answer.second,
        "note": answer.note,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)


def _free_name(name: str, columns: Sequence[str]) -> str:
    """The name, with a number where the table was scored before."""
    free = name
    number = 2
    while free in columns:
        free = f"{name}_{number}"
        number += 1
    return free


def _output_kind(source: Table, schema: pa.Schema) -> str:
    """The ending of the scored file: the same kind where it is written, otherwise CSV."""
    kind = tables.require_ending(source.path).removesuffix(".gz")
    if kind not in output.ENDINGS:
        kind = ".csv"

    try:
        output.require_writable(schema, Path(f"scored{kind}"))
    except DataError:
        return ".parquet"
    return kind


def _stem_of(path: Path) -> str:
    return path.name.removesuffix(tables.require_ending(path))


def _is_for_a_spreadsheet(source: Table, kind: str) -> bool:
    """Whether a CSV is of a workbook, or of text in an encoding other than plain UTF-8."""
    if kind not in (".csv", ".tsv"):
        return False
    if source.sheet is not None:
        return True

    with source.path.open("rb") as file:
        has_mark = file.read(3) == codecs.BOM_UTF8
    return has_mark or source.encoding not in (None, "utf-8", "utf-8-sig")
