"""Memory of a training run whose sentences are in memory, and of one whose sentences are on disk.

python -m benchmarks.streaming
python -m benchmarks.streaming --rows 100000 --rows 1000000

For each number of generated sentences two fresh processes train with LoRA for some steps: they read
the rows, encode them, order them by length and begin. Measured in each: the largest anonymous
memory, which is what the process holds itself (pages of mapped files are the system's to take
away), and the seconds until the first step. Linux only. Writes a table and a JSON file.
"""

import contextlib
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bankintent import cli, console, files
from bankintent.config import TrackingConfig, TrainConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import DataManifest, FileHash, SourceConfig
from bankintent.labels import LabelSchema
from benchmarks import machine, tables
from benchmarks.machine import Job
from benchmarks.steps import before_steps
from benchmarks.tables import Record, Table
from benchmarks.training import MAX_LENGTH, MODEL

INTENTS = 77
WORDS = ("card", "transfer", "balance", "refund", "exchange", "limit", "loan", "fee", "pin", "app")
SENTENCE_WORDS = 12
VALIDATION_ROWS = 512
STEPS = 10
"""Steps of a run that are trained."""

ROWS_AT_ONCE = 50_000
SAMPLE_SECONDS = 0.05


class Enough(Exception):
    """The steps of a measurement are done."""


def main(
    rows: Annotated[
        list[int] | None, typer.Option(help="Training sentences; can be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/streaming.json"
    ),
) -> None:
    """Measure both kinds of runs, print a table and write the figures."""
    runs = []
    for count in rows or [50_000, 100_000, 200_000]:
        with tempfile.TemporaryDirectory() as folder:
            write_data(Path(folder), count)
            for place in ("memory", "disk"):
                console.say(f"{count:,} sentences, {place} ...")
                job = {"data_dir": folder, "on_disk": place == "disk"}
                measured = machine.run_apart("benchmarks.streaming", job)
                runs.append({"rows": count, "place": place, **measured})

    record = {"machine": machine.describe(), "runs": runs}
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def write_data(folder: Path, count: int) -> None:
    """ETL's output of generated sentences, all different."""
    labels = LabelSchema(tuple(f"intent_{number:02d}" for number in range(INTENTS)))
    labels.save(folder / "labels.json")

    hashes = {}
    for split, rows in {"train": count, "val": VALIDATION_ROWS}.items():
        path = folder / f"{split}.parquet"
        with pq.ParquetWriter(path, dataset.SCHEMA) as writer:
            for table in _generate(split, rows, labels):
                writer.write_table(table)
        hashes[path.name] = FileHash(files.sha256(path))

    manifest = DataManifest(
        config=SourceConfig("generated"),
        source={"name": "generated"},
        labels_hash=labels.hash,
        data_hash=hashlib.sha256(f"{count} generated sentences".encode()).hexdigest(),
        files=hashes,
    )
    files.write_text(folder / dataset.MANIFEST, files.json_text(asdict(manifest)))


def _generate(split: str, count: int, labels: LabelSchema) -> Iterator[pa.Table]:
    """Sentences of words by the digits of their number, and the number itself."""
    for start in range(0, count, ROWS_AT_ONCE):
        numbers = range(start, min(start + ROWS_AT_ONCE, count))
        texts = []
        for number in numbers:
            digits = str(number).rjust(SENTENCE_WORDS, "7")
            words = " ".join(WORDS[int(digit)] for digit in digits)
            texts.append(f"{words} {number} {split}")

        ids = [f"{split}-{number}" for number in numbers]
        label_ids = [number % INTENTS for number in numbers]
        names = [labels.names[label_id] for label_id in label_ids]
        yield pa.table([ids, texts, label_ids, names], schema=dataset.SCHEMA)


def train(job: Job) -> Record:
    """Peak of the anonymous memory, and seconds until the first step."""
    from bankintent.bundle.work import WorkFolder
    from bankintent.tracking import Tracker
    from bankintent.training import fit
    from bankintent.training.rows import read_rows

    folder = Path(job["data_dir"])
    data = dataset.load(folder)
    started = time.perf_counter()
    first_step = []

    def stop(number: int, _: Any) -> None:
        if number == 0:
            first_step.append(time.perf_counter() - started)
        if number == STEPS:
            raise Enough

    config = TrainConfig(
        model_name=MODEL,
        regime="lora",
        output_dir=folder / "unused",
        cache_dir=folder / "cache",
        stream_above=0 if job["on_disk"] else 10**9,
        epochs=1,
        max_length=MAX_LENGTH,
    )
    watch = MemoryWatch()
    rows = read_rows(config, data)
    with tempfile.TemporaryDirectory() as work, before_steps(stop):
        tracker = Tracker(TrackingConfig(enabled=False))
        run = fit.TrainingRun(config, data, rows, WorkFolder(Path(work)), tracker)
        with contextlib.suppress(Enough):
            fit.fit_run(run)
    return {"peak_bytes": watch.stop(), "start_seconds": first_step[0]}


class MemoryWatch:
    """Notes the largest anonymous memory of this process, from a thread of its own."""

    def __init__(self) -> None:
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, anonymous_memory())

    def stop(self) -> int:
        """Bytes."""
        self._done.set()
        self._thread.join()
        return max(self._peak, anonymous_memory())


def anonymous_memory() -> int:
    """Bytes that this process holds in memory, without pages of files."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "RssAnon":
            return int(value.split()[0]) * 1024
    raise RuntimeError("this system does not say how much memory is anonymous")


def make_tables(record: Record) -> list[Table]:
    """One row for each number of sentences."""
    by_rows: dict[int, dict[str, Record]] = {}
    for run in record["runs"]:
        by_rows.setdefault(run["rows"], {})[run["place"]] = run

    header = ["sentences", "memory, MiB", "disk, MiB", "memory, s", "disk, s"]
    rows = []
    for count, runs in by_rows.items():
        cells = [f"{count:,}"]
        cells += [f"{runs[place]['peak_bytes'] / 2**20:,.0f}" for place in ("memory", "disk")]
        cells += [f"{runs[place]['start_seconds']:.0f}" for place in ("memory", "disk")]
        rows.append(cells)
    note = f"Peak of the process's own memory in {STEPS} steps of LoRA, and seconds to the first."
    return [Table("Sentences in memory and on disk", header, rows, note)]


if __name__ == "__main__":
    if machine.has_job():
        machine.answer_job(train)
    else:
        cli.run(main)
