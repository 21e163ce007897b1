"""Answers for the texts of one chunk: tokens, batches of like length, decisions."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bankintent.decision.deciding import DECIMALS, Decisions, decide
from bankintent.inference.batches import batches, compute
from bankintent.inference.runtime import Runtime, Tokens, require_finite
from bankintent.progress import Advance
from bankintent.scoring.precheck import has_text

ANSWER = pa.schema(
    [
        pa.field("label", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("decision", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("margin", pa.float64()),
        pa.field("second", pa.string()),
    ]
)
"""The columns that scoring adds, without the `prefix` of the settings. They are a part of what
makes two runs the same: parts that lack one of them are not continued."""


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


def answer_chunk(
    chunk: Chunk, runtime: Runtime, pool: ThreadPoolExecutor, advance: Advance
) -> pa.Table:
    """The ANSWER columns of a chunk in the order of its rows; null where there is no text.

    Raises ModelError where the model gives a logit that is not finite.
    """
    rows_without_text = len(chunk.has_text) - len(chunk.items)
    advance(rows_without_text)

    outputs = compute(chunk.items, chunk.batches, runtime, pool, advance)
    require_finite(outputs.logits, runtime.facts.name)

    # The n-th row with a text has the n-th answer; a masked index takes null.
    item_of_row = np.cumsum(chunk.has_text) - 1
    decisions = decide(outputs.logits, outputs.features, runtime.policy)
    answers = tabulate(decisions, runtime.facts.labels)
    return answers.take(pa.array(item_of_row, mask=~chunk.has_text))


def tabulate(decided: Decisions, labels: Sequence[str]) -> pa.Table:
    """The ANSWER columns of some answers; `labels` are the names of the label ids, in order."""
    each = [decided.of(row) for row in range(len(decided))]
    columns = {
        "label": [labels[index] for index in decided.labels],
        "score": np.round(decided.scores, DECIMALS),
        "decision": [decision.verdict.value for decision in each],
        "reason": [decision.reason.value for decision in each],
        "margin": np.round(decided.margins, DECIMALS),
        "second": [labels[index] for index in decided.seconds],
    }
    return pa.table(columns, schema=ANSWER)
