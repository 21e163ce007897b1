"""The cost of head-only training compared with one pass of the frozen encoder.

python -m benchmarks.head_only --data-dir data/quickstart

Two fresh processes train the same ten epochs with one cache of features: the first computes the
features, the second reads them. Measured in each: the pass of the encoder over the training and
validation sentences, the time from the end of the imports to the first training step, and the
epochs themselves, each with its validation. Writes a table and a JSON file.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files
from bankintent.config import TrackingConfig, TrainConfig
from bankintent.corpus import dataset
from benchmarks import machine, tables
from benchmarks.machine import Job
from benchmarks.steps import before_steps
from benchmarks.tables import Record, Table
from benchmarks.training import MAX_LENGTH, MODEL


def main(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path(
        "data/quickstart"
    ),
    epochs: Annotated[int, typer.Option(help="Epochs of both runs.")] = 10,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/head_only.json"
    ),
) -> None:
    """Measure both runs, print a table and write the figures."""
    dataset.load(data_dir)
    runs = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("first", "second"):
            console.say(f"The {name} run ...")
            job = {"data_dir": str(data_dir.absolute()), "epochs": epochs, "cache": cache}
            runs[name] = machine.run_apart("benchmarks.head_only", job)
    record = {"machine": machine.describe(), "epochs": epochs, "runs": runs}
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def train(job: Job) -> Record:
    """Seconds of the encoder's pass, until the first step, and of the epochs."""
    from bankintent.bundle.work import WorkFolder
    from bankintent.tracking import Tracker
    from bankintent.training import features, fit, hardware
    from bankintent.training.rows import read_rows

    steps: list[float] = []
    started = time.perf_counter()

    data = dataset.load(Path(job["data_dir"]))
    with tempfile.TemporaryDirectory() as work, timed(features, "compute") as passes:
        config = TrainConfig(
            model_name=MODEL,
            regime="head-only",
            output_dir=Path(work) / "unused",
            cache_dir=Path(job["cache"]),
            epochs=job["epochs"],
            max_length=MAX_LENGTH,
        )
        tracker = Tracker(TrackingConfig(enabled=False))
        rows = read_rows(config, data)
        run = fit.TrainingRun(config, data, rows, WorkFolder(Path(work)), tracker)
        with before_steps(lambda number, _: steps.append(time.perf_counter())):
            fit.fit_run(run)
    ended = time.perf_counter()
    first_step = steps[0]
    return {
        "encoder_seconds": sum(passes),
        "start_seconds": first_step - started,
        "epochs_seconds": ended - first_step,
        "seconds": ended - started,
        "sentences": len(rows.train) + len(rows.val),
        "peak_memory_bytes": hardware.peak_memory(),
    }


@contextlib.contextmanager
def timed(owner: Any, name: str) -> Iterator[list[float]]:
    """Within the block, time each call of a module's function; yields the list of seconds."""
    original = getattr(owner, name)
    seconds: list[float] = []

    def call(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*args, **options)
        finally:
            seconds.append(time.perf_counter() - started)

    setattr(owner, name, call)
    try:
        yield seconds
    finally:
        setattr(owner, name, original)


def ratio(record: Record) -> float:
    """The encoder's pass and all epochs, over that pass."""
    first = record["runs"]["first"]
    return (first["encoder_seconds"] + first["epochs_seconds"]) / first["encoder_seconds"]


def make_tables(record: Record) -> list[Table]:
    """One row for each run."""
    header = ["run", "encoder, s", "to the first step, s", "epochs, s", "all, s", "peak GiB"]
    rows = []
    for name, run in record["runs"].items():
        rows.append(
            [
                name,
                f"{run['encoder_seconds']:.2f}",
                f"{run['start_seconds']:.2f}",
                f"{run['epochs_seconds']:.2f}",
                f"{run['seconds']:.2f}",
                f"{run['peak_memory_bytes'] / 2**30:.2f}",
            ]
        )

    epochs = record["epochs"]
    sentences = record["runs"]["first"]["sentences"]
    note = (
        f"{sentences:,} sentences. One pass of the encoder and {epochs} epochs take "
        f"{ratio(record):.2f} times one pass. Imports are not counted."
    )
    return [Table(f"Head-only: {epochs} epochs on cached features", header, rows, note)]


if __name__ == "__main__":
    if machine.has_job():
        machine.answer_job(train)
    else:
        cli.run(main)
