"""An answer for every row of a table of any length, in bounded memory.

The input is read three times, which takes seconds where the model takes hours: to find its faults
before anything is computed, for its texts, and to put its columns next to the answers. So a part on
disk holds answers only, and memory holds the rows that are being worked on.
"""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from bankintent import console, durable, files, progress
from bankintent.config import ScoreConfig
from bankintent.corpus import tables
from bankintent.corpus.csv_tables import name_delimiter
from bankintent.corpus.records import Table
from bankintent.errors import OutputError
from bankintent.inference import choice
from bankintent.inference.batches import threads
from bankintent.inference.runtime import Runtime
from bankintent.scoring import precheck, shards
from bankintent.scoring.answers import ANSWER, Chunk, answer_chunk, tokenize
from bankintent.scoring.output import output_schema, require_free, writing
from bankintent.scoring.parts import Parts, record_written
from bankintent.scoring.precheck import InputSummary

In = TypeVar("In")
Out = TypeVar("Out")


Compute = Callable[[Table, int, Parts, Runtime, ScoreConfig], tuple[int, float]]
"""Writes the parts that are missing, as `score_missing` does."""


@dataclass(frozen=True)
class ScoreSummary:
    """The counts of a finished run."""

    output: Path
    rows: int
    without_text: int
    truncated: int
    scored: int
    """Rows scored by this process; an earlier one may have scored others."""
    seconds: float
    """Time spent on them, without loading the model."""


def score(
    settings: ScoreConfig,
    overwrite: bool = False,
    load: Callable[[], Runtime] | None = None,
    compute: Compute | None = None,
) -> ScoreSummary:
    """Write `settings.output`: the rows and columns of `settings.input`, with the answers.

    Parts are kept in `<output>.work/`; the same call after a kill continues with them. They belong
    to one input (by sha256), model and runtime: with another, OutputError is raised, unless
    `overwrite`, which begins anew and replaces an existing output. `load` gives the runtime; it
    defaults to the one that `settings` name. `compute` defaults to this process.
    """
    compute = compute or score_missing
    table = shards.open_input(settings.input, settings)
    column = precheck.find_text_index(table, settings)
    schema = output_schema(table, settings)
    files.settle(settings.output)
    require_free(settings, overwrite)
    console.say(describe_input(table, column))

    # The model is looked for before the first long reading, but loaded after it.
    if load is None:
        load = choice.find(settings.model_dir, settings.runtime, settings.threads).load
    source = precheck.read_through(table, column, settings)

    with files.exclusive(settings.output) as work:
        # Again: another process may have written it since.
        require_free(settings, overwrite)
        runtime = load()
        identity = run_identity(source, runtime, table, column, settings)

        with _disk_errors(work, settings.output):
            parts = Parts.begin(work, identity, source.rows, settings.chunk_rows, overwrite)
            scored, seconds = compute(table, column, parts, runtime, settings)
            assemble(table, source, parts, schema, settings.output)
            truncated = parts.truncated()

        # The output is in its place: parts that cannot be removed are no reason to fail.
        files.discard(work)

    return ScoreSummary(
        settings.output, source.rows, source.without_text, truncated, scored, seconds
    )


def describe_input(table: Table, column: int) -> str:
    """What is read, and how: what a table does not say of itself has been found or configured."""
    facts = [table.format]
    if table.sheet is not None:
        facts.append(f'sheet "{table.sheet}"')
    if table.delimiter is not None:
        facts.append(f"delimiter {name_delimiter(table.delimiter)}")
    if table.encoding is not None:
        facts.append(table.encoding)

    listed = ", ".join(facts)
    return f'Reading the texts in "{table.columns[column]}" of {table.path.name} ({listed}).'


def run_identity(
    source: InputSummary, runtime: Runtime, table: Table, column: int, settings: ScoreConfig
) -> files.JsonObject:
    """The facts that two runs must have in common to share parts.

    Threads and the size of batches are not among them: they change no answer.
    """
    return {
        "input": {"size": source.size, "sha256": source.sha256, "rows": source.rows},
        **model_identity(runtime),
        "settings": {"text_column": table.columns[column], "chunk_rows": settings.chunk_rows},
        "reading": {
            "delimiter": table.delimiter,
            "encoding": table.encoding,
            "sheet": table.sheet,
        },
        "columns": ANSWER.names,
    }


def model_identity(runtime: Runtime) -> files.JsonObject:
    """The facts about a loaded model that answers depend on."""
    facts = runtime.facts
    # Its name ends with the threads, for example "onnxruntime 1.20.0, int8, 2 threads".
    runtime_name = re.sub(r", \d+ threads?$", "", facts.runtime)

    return {
        "model": {"version": facts.version, "labels_hash": facts.labels_hash},
        "runtime": runtime_name,
        "policy": None if runtime.policy is None else runtime.policy.version,
    }


def score_missing(
    table: Table, column: int, parts: Parts, runtime: Runtime, settings: ScoreConfig
) -> tuple[int, float]:
    """Score the chunks that have no part yet; returns their rows and the seconds that it took."""
    missing, rows_before = begin_missing(parts)

    def prepare(numbered_texts: tuple[int, pa.Array]) -> Chunk:
        number, texts = numbered_texts
        return tokenize(number, texts, runtime, settings.batch_tokens)

    # A generator: memory holds a few chunks of texts, however long the table is.
    numbered_texts = _read_texts(table, column, parts.chunk_rows, set(missing))
    started = time.perf_counter()
    with (
        threads(runtime.workers) as pool,
        progress.row_progress("scoring", parts.rows, done=rows_before) as advance,
    ):
        for chunk in ahead(prepare, numbered_texts):
            answers = answer_chunk(chunk, runtime, pool, advance)
            parts.write(chunk.number, answers, chunk.num_truncated())

    return parts.rows - rows_before, time.perf_counter() - started


def begin_missing(parts: Parts) -> tuple[list[int], int]:
    """The numbers of the chunks to score, and the rows of the others, which are announced."""
    missing = parts.missing()
    rows_before = parts.rows - sum(parts.size(number) for number in missing)
    if rows_before:
        console.say(f"Continuing: {rows_before:,} of {parts.rows:,} rows are scored already.")
    return missing, rows_before


def _read_texts(
    table: Table, column: int, chunk_rows: int, numbers: set[int]
) -> Iterator[tuple[int, pa.Array]]:
    """Number and texts of these chunks of the table, in order."""
    # Without it, a run that was killed while it wrote would read the whole table for nothing.
    if not numbers:
        return

    for number, chunk in enumerate(table.chunks(chunk_rows, column)):
        if number in numbers:
            yield number, precheck.texts_of(chunk)


def assemble(
    table: Table, source: InputSummary, parts: Parts, schema: pa.Schema, output: Path
) -> None:
    """Write the columns of the input and of the parts side by side, whole or not at all."""
    # In the work folder, which is on the same disk: the output appears by one rename.
    whole = parts.folder / "whole"
    chunks = table.chunks(parts.chunk_rows)
    answers = (parts.read(number) for number in range(parts.count))

    with (
        files.staged(whole) as staging,
        writing(staging, tables.require_ending(output), schema, table) as write,
        progress.row_progress("writing", parts.rows) as advance,
    ):
        # An input that has grown or shrunk since has more or fewer chunks than there are parts.
        for chunk, added in itertools.zip_longest(chunks, answers):
            if chunk is None or added is None or chunk.num_rows != added.num_rows:
                raise precheck.changed(table.path)
            write(pa.Table.from_arrays([*chunk.columns, *added.columns], schema=schema))
            advance(chunk.num_rows)

        # Last, so that it covers this reading too: an edit may leave the number of rows as it was.
        precheck.require_unchanged(table.path, source)
    record_written(parts.folder, whole)
    final = files.place(output)
    whole.replace(final)
    durable.sync_folder(final.parent)


def show(summary: ScoreSummary) -> None:
    """Print the counts of a run, its rate, and the rows that got no full answer."""
    rate = ""
    # None of them where an earlier process scored all rows and was killed while it wrote.
    if summary.scored:
        rate = f", {summary.scored / summary.seconds:,.0f} rows/s"
    console.say(f"{summary.rows:,} rows{rate}.")

    if summary.without_text == 1:
        console.say("1 row has no text, and so no answer.")
    elif summary.without_text:
        count = f"{summary.without_text:,}"
        console.say(f"{count} rows have no text, and so no answer.")

    if summary.truncated == 1:
        console.say("1 text was longer than the model reads; its end was cut off.")
    elif summary.truncated:
        count = f"{summary.truncated:,}"
        console.say(f"{count} texts were longer than the model reads; their ends were cut off.")
    console.say(f"Written to {console.show_path(summary.output)}.")


def ahead(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """The function's result for each item, in order.

    A thread computes the next result while the caller uses the last; never more than one, because
    each holds a chunk of tokens.
    """
    with threads(1) as pool:
        previous = None
        for item in items:
            current = pool.submit(function, item)
            if previous is not None:
                yield previous.result()
            previous = current

        if previous is not None:
            yield previous.result()


@contextlib.contextmanager
def _disk_errors(work: Path, output: Path) -> Iterator[None]:
    """Turn an error of the disk into an OutputError that names the folder of the parts."""
    try:
        yield
    except OSError as error:
        # It is of writing: the readers of tables turn theirs into DataError.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(
            f"{output} cannot be written ({reason})",
            "Correct that and run the same command again: what is scored is kept in "
            f"{console.show_path(work)}",
        ) from None
