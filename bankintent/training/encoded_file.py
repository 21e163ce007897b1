"""Encoded training rows that stay on disk, for more sentences than should be in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent.corpus.dataset import SplitData
from bankintent.corpus.mapped import ROWS_AT_ONCE, map_tables
from bankintent.texts import fold

LABELS = "labels"
"""The column of label ids, named as the Trainer's collator has it."""


class EncodedFile:
    """The token ids of sentences: rows as the Trainer's collator takes them, read when needed."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._columns = {name: table[name] for name in table.column_names}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {name: column[place].as_py() for name, column in self._columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._table.to_batches(max_chunksize=ROWS_AT_ONCE):
            yield from batch.to_pylist()


def encode_to_file(rows: SplitData, tokenizer: Tokenizer, folder: Path) -> EncodedFile:
    """The token ids of the folded texts, without padding, as `encoding.encode` gives them.

    They lie in a file of `folder` that is gone when the process ends.
    """
    first = _encode_block(rows, tokenizer, 0, 1)
    starts = range(0, len(rows), ROWS_AT_ONCE)
    blocks = (_encode_block(rows, tokenizer, start, ROWS_AT_ONCE) for start in starts)
    return EncodedFile(map_tables(blocks, first.schema, folder))


def _encode_block(rows: SplitData, tokenizer: Tokenizer, start: int, count: int) -> pa.Table:
    """The encoded rows from `start` on, `count` of them or as many as there are."""
    texts = rows.texts[start : start + count]
    encoded = tokenizer(list(map(fold, texts)), truncation=True)

    columns = {}
    for key in tokenizer.model_input_names:
        if key in encoded:
            columns[key] = pa.array(encoded[key], type=pa.list_(pa.int32()))
    columns[LABELS] = pa.array(rows.labels[start : start + count], type=pa.int64())
    return pa.table(columns)
