"""Answers for the texts of one chunk: tokens, batches of like length, labels and scores."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bankintent.inference.runtime import Logits, Runtime, Tokens, require_finite
from bankintent.measures.metrics import softmax
from bankintent.progress import Advance
from bankintent.scoring.precheck import has_text

ANSWER = pa.schema([pa.field("label", pa.string()), pa.field("score", pa.float64())])
"""The columns that scoring adds, without the `prefix` of the settings."""

SCORE_DECIMALS = 6
"""Decimals of a score; the next ones are rounding errors of float32."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of the table on their way to the model."""

    number: int
    has_text: NDArray[np.bool_]
    """(rows,): which rows have a text."""
    items: list[Tokens]
    """Tokens of each row that has one, in the order of the rows."""
    batches: list[list[int]]
    """Indices of items that are computed together."""

    def num_truncated(self) -> int:
        """Texts that were cut to the model's length."""
        return sum(item.truncated for item in self.items)


def tokenize(number: int, texts: pa.Array, runtime: Runtime, batch_tokens: int) -> Chunk:
    """Tokenize the texts of a chunk and divide them into batches."""
    usable = has_text(texts)
    items: list[Tokens] = []
    if usable.any():
        usable_texts = texts.filter(pa.array(usable)).to_pylist()
        items = runtime.tokenize(usable_texts)

    # A text of which the model reads nothing is a blank to it, and gets no answer either.
    usable[usable] = [len(item) > 0 for item in items]
    items = [item for item in items if len(item) > 0]

    lengths = [len(item) for item in items]
    return Chunk(number, usable, items, list(batches(lengths, batch_tokens)))


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of items in batches of like length, shortest first.

    A batch holds at most `max_tokens` when it is padded to its longest item, or a single item.
    """
    shortest_first = sorted(range(len(lengths)), key=lengths.__getitem__)
    batch: list[int] = []
    for index in shortest_first:
        padded_tokens = lengths[index] * (len(batch) + 1)
        if batch and padded_tokens > max_tokens:
            yield batch
            batch = []
        batch.append(index)

    if batch:
        yield batch


def answer_chunk(
    chunk: Chunk, runtime: Runtime, pool: ThreadPoolExecutor, advance: Advance
) -> pa.Table:
    """The ANSWER columns of a chunk in the order of its rows; null where there is no text.

    Raises ModelError where the model gives a logit that is not finite.
    """
    rows_without_text = len(chunk.has_text) - len(chunk.items)
    advance(rows_without_text)

    logits = require_finite(_compute(chunk, runtime, pool, advance), runtime.facts.name)

    # The n-th row with a text has the n-th answer; a masked index takes null.
    item_of_row = np.cumsum(chunk.has_text) - 1
    answers = label_and_score(logits, runtime.facts.labels)
    return answers.take(pa.array(item_of_row, mask=~chunk.has_text))


def _compute(chunk: Chunk, runtime: Runtime, pool: ThreadPoolExecutor, advance: Advance) -> Logits:
    """(items, labels) logits; as many batches at once as the pool has threads."""

    def compute(batch: list[int]) -> Logits:
        return runtime.logits([chunk.items[index] for index in batch])

    num_labels = len(runtime.facts.labels)
    logits = np.empty((len(chunk.items), num_labels), dtype=np.float32)
    computed = pool.map(compute, chunk.batches)
    for batch, batch_logits in zip(chunk.batches, computed, strict=True):
        logits[batch] = batch_logits
        advance(len(batch))
    return logits


def label_and_score(logits: Logits, labels: Sequence[str]) -> pa.Table:
    """The likeliest label of each row of (rows, labels) logits, and its softmax probability."""
    probabilities = softmax(logits)
    best = [labels[index] for index in probabilities.argmax(axis=1)]
    scores = np.round(probabilities.max(axis=1), SCORE_DECIMALS)
    return pa.Table.from_arrays([pa.array(best, pa.string()), pa.array(scores)], schema=ANSWER)
