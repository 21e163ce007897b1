"""A label and a score for every row of a table, however long it is, in bounded memory.

The input is read three times, which takes seconds where the model takes hours: once to find out what is wrong with it
before anything is computed, once for its texts, once to put its columns beside the answers. So a part on disk holds
answers only, and nothing is held in memory but the rows in hand.
"""

import contextlib
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bankintent import console, files
from bankintent.config import ScoreConfig
from bankintent.errors import DataError, ModelError, OutputError
from bankintent.inference import runtime as runtimes
from bankintent.inference.runtime import Logits, Runtime, Tokens
from bankintent.measures.metrics import softmax
from bankintent.scoring import tables
from bankintent.scoring.parts import Parts
from bankintent.scoring.precheck import (
    Survey,
    changed,
    find_text,
    has_text,
    look_through,
    require_unchanged,
    texts_of,
)
from bankintent.scoring.tables import Table

ADDED = (pa.field("label", pa.string()), pa.field("score", pa.float64()))
"""The columns that scoring adds, before `prefix`."""

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Chunk:
    """Some rows on their way to the model: which of them have a text, and the tokens of those."""

    number: int
    has_text: NDArray[np.bool_]
    items: list[Tokens]
    batches: list[list[int]]


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    output: Path
    rows: int
    without_text: int
    truncated: int
    scored: int
    """Rows scored by this process; an earlier one may have scored others."""
    seconds: float
    """Time that took, loading the model not counted."""


def score(
    settings: ScoreConfig, overwrite: bool = False, load: Callable[[], Runtime] | None = None
) -> Summary:
    """Write `settings.output`: the rows and columns of `settings.input` in order, with label and score added.

    Parts are kept in `<output>.work/`; the same call after a kill goes on with them. They belong to one input (by
    sha256), model and runtime: with another, OutputError is raised, unless `overwrite`, which begins anew and replaces
    an output that exists. `load` gives the runtime where it is not to be found in `settings.model_dir`.
    """
    table = tables.open_table(settings.input)
    column = find_text(table, settings)
    schema = added_schema(table, settings)
    require_free(settings, overwrite)
    load = load or find_model(settings)
    survey = look_through(table, column, settings)
    with files.exclusive(settings.output) as work:
        runtime = load()
        identity = run_identity(survey, runtime, table.schema.names[column], settings)
        with _keeping(work, settings.output):
            parts = Parts.begin(work, identity, survey.rows, settings.chunk_rows, discard=overwrite)
            scored, seconds = score_missing(table, column, parts, runtime, settings)
            assemble(table, survey, parts, schema, settings.output)
            truncated = parts.truncated()
        shutil.rmtree(work, ignore_errors=True)
    return Summary(settings.output, survey.rows, survey.without_text, truncated, scored, seconds)


def find_model(settings: ScoreConfig) -> Callable[[], Runtime]:
    """Find and verify the model, to be loaded for throughput: a batch for each thread rather than the threads for one."""
    threads = settings.threads or runtimes.cores()
    return runtimes.find(settings.model_dir, settings.runtime, threads, workers=threads)


def added_schema(table: Table, settings: ScoreConfig) -> pa.Schema:
    """The schema of the output. DataError where the input has a column of an added name, or CSV cannot hold one."""
    schema = table.schema
    for field in ADDED:
        if settings.prefix + field.name in table.schema.names:
            names = " and ".join(f"predicted_{field.name}" for field in ADDED)
            raise DataError(
                f'{table.path.name} has a column "{settings.prefix + field.name}" already',
                f"Write the answers under other names: --set prefix=predicted_ makes them {names}",
            )
        schema = schema.append(field.with_name(settings.prefix + field.name))
    tables.require_writable(schema, settings.output)
    return schema


def require_free(settings: ScoreConfig, overwrite: bool) -> None:
    """Raise OutputError where the output cannot be put, before hours are spent on it."""
    output = settings.output
    tables.ending(output)
    parent = next(parent for parent in output.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        fault = "is not writable" if parent.is_dir() else "is not a folder"
        raise OutputError(
            f"{output} cannot be written: {console.show_path(parent)} {fault}", "Name another OUT"
        )
    if output.is_dir():
        raise OutputError(f"{output} is a folder", "Name a file")
    if output.exists() and output.samefile(settings.input):
        raise OutputError(f"{output} is the input", "Name another OUT")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists", "Name another OUT, or replace it with --overwrite")


def run_identity(
    survey: Survey, runtime: Runtime, text_column: str, settings: ScoreConfig
) -> dict[str, Any]:
    """What two runs must have in common to share parts: threads and the size of batches change no answer."""
    facts = runtime.facts
    return {
        "input": {"size": survey.size, "sha256": survey.sha256, "rows": survey.rows},
        "model": {"version": facts.version, "labels_hash": facts.labels_hash},
        "runtime": re.sub(r", \d+ threads?$", "", facts.runtime),
        "settings": {"text_column": text_column, "chunk_rows": settings.chunk_rows},
        "columns": [field.name for field in ADDED],
    }


def score_missing(
    table: Table, column: int, parts: Parts, runtime: Runtime, settings: ScoreConfig
) -> tuple[int, float]:
    """Score the chunks that have no part yet; gives their rows and the seconds that it took."""
    missing = set(parts.missing())
    rows = sum(map(parts.size, missing))
    if rows < parts.rows:
        console.say(f"Going on: {parts.rows - rows:,} of {parts.rows:,} rows are scored already.")
    chunks = enumerate(table.chunks(settings.chunk_rows, column))
    wanted = ((number, texts_of(chunk)) for number, chunk in chunks if number in missing)
    started = time.perf_counter()
    shown = console.progress("scoring", parts.rows, done=parts.rows - rows)
    with _threads(runtime.workers) as pool, shown as advance:
        for chunk in ahead(
            partial(prepare, runtime, settings.batch_tokens), wanted if missing else ()
        ):
            found = answer(chunk, runtime, pool, advance)
            parts.write(chunk.number, found, sum(item.truncated for item in chunk.items))
    return rows, time.perf_counter() - started


def prepare(runtime: Runtime, tokens: int, numbered: tuple[int, pa.Array]) -> Chunk:
    """Tokenize the texts of a chunk and put them into batches."""
    number, texts = numbered
    usable = has_text(texts)
    items = runtime.tokenize(texts.filter(pa.array(usable)).to_pylist()) if usable.any() else []
    return Chunk(number, usable, items, list(batches([len(item) for item in items], tokens)))


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices in batches of like length, shortest first, each of at most `tokens` when padded, or of one item."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def answer(
    chunk: Chunk, runtime: Runtime, pool: ThreadPoolExecutor, advance: console.Advance
) -> pa.Table:
    """The added columns of a chunk in the order of its rows; null where there is no text."""

    def compute(batch: list[int]) -> Logits:
        return runtime.logits([chunk.items[index] for index in batch])

    logits = np.empty((len(chunk.items), len(runtime.facts.labels)), dtype=np.float32)
    advance(len(chunk.has_text) - len(chunk.items))
    for batch, found in zip(chunk.batches, pool.map(compute, chunk.batches), strict=True):
        logits[batch] = found
        advance(len(batch))
    if not np.isfinite(logits).all():
        raise ModelError(f"{runtime.facts.name} gave a score that is not finite", "Train it again")
    places = pa.array(np.cumsum(chunk.has_text) - 1, mask=~chunk.has_text)
    return columns(logits, runtime.facts.labels).take(places)


def columns(logits: Logits, labels: Sequence[str]) -> pa.Table:
    """(rows, labels) logits to the columns of ADDED: the likeliest label, and its softmax probability to 6 decimals."""
    probabilities = softmax(logits)
    best = [labels[index] for index in probabilities.argmax(axis=1)]
    scores = np.round(probabilities.max(axis=1), 6)
    return pa.Table.from_arrays(
        [pa.array(best, pa.string()), pa.array(scores)], schema=pa.schema(ADDED)
    )


def assemble(table: Table, survey: Survey, parts: Parts, schema: pa.Schema, output: Path) -> None:
    """Put the columns of the input and of the parts side by side, in the work folder, and rename that to the output."""
    whole = parts.folder / "whole"
    with (
        files.staged(whole) as staging,
        tables.writing(staging, tables.ending(output), schema, table) as write,
        console.progress("writing", parts.rows) as advance,
    ):
        answers = (parts.read(number) for number in range(parts.count))
        for chunk, found in itertools.zip_longest(table.chunks(parts.chunk_rows), answers):
            if chunk is None or found is None or chunk.num_rows != found.num_rows:
                raise changed(table.path)
            write(pa.Table.from_arrays([*chunk.columns, *found.columns], schema=schema))
            advance(chunk.num_rows)
        require_unchanged(table.path, survey)
    whole.replace(output)


def show(summary: Summary) -> None:
    """Print what was done, and what could not be."""
    rate = f", {summary.scored / summary.seconds:,.0f} rows/s" if summary.scored else ""
    console.say(f"{summary.rows:,} rows{rate}.")
    if summary.without_text:
        rows = "1 row has" if summary.without_text == 1 else f"{summary.without_text:,} rows have"
        console.say(f"{rows} no text, and so neither label nor score.")
    if summary.truncated:
        console.say(
            f"{summary.truncated:,} texts were longer than the model reads; their ends were cut off."
        )
    console.say(f"Written to {console.show_path(summary.output)}.")


def ahead(function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """The function's result for each item; a thread works on the next one while the last is used."""
    with _threads(1) as pool:
        waiting = None
        for item in items:
            following = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Some threads. When the block is left early, by Ctrl-C for one, what they have not begun is dropped."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _keeping(work: Path, output: Path) -> Iterator[None]:
    """A disk that is full becomes one line that says what is kept (a reading error is a DataError already)."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written ({os.strerror(error.errno) if error.errno else error})",
            f"Mend that and run the same command again: what is scored is kept in {console.show_path(work)}",
        ) from None
