"""What computes the answers of a table on the nodes of a cluster: readers, and actors with a model.

A piece of work is one chunk of rows, which is one part of the work folder. A part is written whole
or not at all, and always the same: when Ray begins a chunk again, nothing is lost or doubled.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from bankintent import files
from bankintent.config import ScoreConfig
from bankintent.errors import ModelError
from bankintent.files import JsonObject
from bankintent.inference import choice
from bankintent.inference.runtime import Runtime
from bankintent.scoring import shards
from bankintent.scoring.answers import answer_chunk, tokenize
from bankintent.scoring.parts import Parts
from bankintent.scoring.score import model_identity

TEXTS = pa.schema([pa.field("number", pa.int64()), pa.field("texts", pa.list_(pa.string()))])
"""What a reader gives: one row for each chunk."""

DONE = pa.schema([pa.field("number", pa.int64()), pa.field("rows", pa.int64())])
"""What an actor gives: the chunk whose part it has written, and the rows of that part."""


@dataclass(frozen=True)
class Job:
    """What readers and actors know of a run; all paths are absolute."""

    settings: ScoreConfig
    column: int
    """Index of the column of texts."""
    parts: Parts
    model: JsonObject
    """`model_identity` of the driver's model: every actor must have the same one."""
    threads: int
    folder: Path
    """The working folder of the driver."""


class Reader:
    """Reads the texts of ranges of chunks."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One row of TEXTS for each chunk of the range in the batch, one at a time."""
        job = self.job
        numbers = batch.column("numbers")[0].as_py()
        table = shards.open_input(job.settings.input, job.settings)
        for number, texts in shards.read_texts(table, job.column, job.parts.chunk_rows, numbers):
            whole = pa.ListArray.from_arrays([0, len(texts)], texts)
            yield pa.table([pa.array([number], pa.int64()), whole], schema=TEXTS)


class Scorer:
    """An actor: loads the model once, and writes the part of each chunk that it gets."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._runtime: Runtime | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer the chunk in a batch of one row of TEXTS; one row of DONE.

        Raises ModelError where this node computes the model by another runtime than the driver.
        """
        # Not when the actor is made: there Ray would repeat a user's mistake.
        if self._runtime is None:
            self._runtime = self._load()

        runtime = self._runtime
        settings = self.job.settings
        number = batch.column("number")[0].as_py()
        texts = batch.column("texts")[0].values

        chunk = tokenize(number, texts, runtime, settings.batch_tokens)
        with ThreadPoolExecutor(runtime.workers) as pool:
            answers = answer_chunk(chunk, runtime, pool, lambda rows: None)
        self.job.parts.write(number, answers, chunk.num_truncated())
        return pa.table([[number], [len(texts)]], schema=DONE)

    def _load(self) -> Runtime:
        settings = self.job.settings
        os.chdir(self.job.folder)
        runtime = choice.find(settings.model_dir, settings.runtime, self.job.threads).load()
        found = model_identity(runtime)
        if found != self.job.model:
            raise ModelError(
                f"a node computes the model as {files.json_text(found)}, this machine as"
                f" {files.json_text(self.job.model)}",
                "Install the same packages on every node, and name a runtime that all of them have",
            )
        return runtime
