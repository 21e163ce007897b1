"""The answers out of fold in a bundle that cross-validation has judged; no sentence is in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bankintent.bundle.layout import Checkpoint, verify
from bankintent.errors import ModelError
from bankintent.labels import LabelSchema

FILE = "out_of_fold.parquet"

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("repeat", pa.int64(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        # In id order of the labels.
        pa.field("logits", pa.list_(pa.float32()), nullable=False),
    ]
)


@dataclass(frozen=True)
class OutOfFold:
    """The answers of models that had not seen the sentences, repeats one after the other."""

    ids: list[str]
    """Of the sentences, once for each repeat."""
    logits: NDArray[np.float32]
    """(sentences x repeats, labels)"""


def write(
    folder: Path,
    labels: LabelSchema,
    ids: list[str],
    true: NDArray[np.integer[Any]],
    logits: NDArray[np.float32],
) -> None:
    """Write the answers into a bundle; `logits` are (repeats, sentences, labels)."""
    assert logits.shape == (len(logits), len(ids), len(labels))

    records = []
    for repeat, answers in enumerate(logits):
        for row_id, label, scores in zip(ids, true.tolist(), answers.tolist(), strict=True):
            record = {"id": row_id, "repeat": repeat, "label": label, "logits": scores}
            records.append(record)

    table = pa.Table.from_pylist(records, schema=SCHEMA)
    pq.write_table(table, folder / FILE, compression="zstd")


def read(checkpoint: Checkpoint) -> OutOfFold:
    """The answers in a bundle, verified; ModelError where it has none or they were changed."""
    path = checkpoint.root / FILE
    if checkpoint.manifest is None or not path.is_file():
        raise ModelError(
            f"{checkpoint.root} was not judged by cross-validation (no {FILE})",
            "Evaluate it on a table of labelled sentences with --data",
        )

    verify(checkpoint.root, checkpoint.manifest, FILE)
    table = pq.read_table(path, schema=SCHEMA)
    logits = np.asarray(table["logits"].to_pylist(), dtype=np.float32)
    return OutOfFold(table["id"].to_pylist(), logits)
