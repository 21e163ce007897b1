"""What head-only training costs beside one pass of the frozen encoder, and how soon a second run starts.

python -m benchmarks.head_only --data-dir data/quickstart

Two fresh processes train the same ten epochs with one cache of features: the first computes the features, the second
reads them. Measured in each: the pass of the encoder over the training and validation sentences, the time from the
end of the imports to the first training step, and the epochs themselves, each with its validation. Writes a table and a
JSON file.
"""

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files, process
from bankintent.config import TrackingConfig, TrainConfig
from bankintent.corpus import dataset
from benchmarks import machine, tables
from benchmarks.steps import before_steps
from benchmarks.tables import Table
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


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the encoder's pass, until the first step, and of the epochs."""
    from bankintent.export import publish  # noqa: F401 (imports are not timed)
    from bankintent.tracking import Tracker
    from bankintent.training import backbones, features, regimes, trainer  # noqa: F401 (the same)
    from bankintent.training.job import Job, fit

    first: list[float] = []
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
        task = Job(
            config, "head-only", data, data.read("train"), data.read("val"), Path(work), tracker
        )
        with before_steps(lambda number, _: first.append(time.perf_counter())):
            fit(task)
    ended = time.perf_counter()
    return {
        "encoder_seconds": sum(passes),
        "start_seconds": first[0] - started,
        "epochs_seconds": ended - first[0],
        "seconds": ended - started,
        "sentences": len(task.train) + len(task.val),
        "peak_memory_bytes": trainer.peak_memory(),
    }


@contextlib.contextmanager
def timed(owner: Any, name: str) -> Iterator[list[float]]:
    """Within the block, the seconds of each call of a module's function are kept."""
    original, took = getattr(owner, name), []

    def call(*args: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*args, **options)
        finally:
            took.append(time.perf_counter() - started)

    setattr(owner, name, call)
    try:
        yield took
    finally:
        setattr(owner, name, original)


def ratio(record: dict[str, Any]) -> float:
    """The encoder's pass and all epochs, over that pass."""
    first = record["runs"]["first"]
    return (first["encoder_seconds"] + first["epochs_seconds"]) / first["encoder_seconds"]


def make_tables(record: dict[str, Any]) -> list[Table]:
    """One row for each run."""
    rows = [
        [
            name,
            f"{one['encoder_seconds']:.2f}",
            f"{one['start_seconds']:.2f}",
            f"{one['epochs_seconds']:.2f}",
            f"{one['seconds']:.2f}",
            f"{one['peak_memory_bytes'] / 2**30:.2f}",
        ]
        for name, one in record["runs"].items()
    ]
    header = ["run", "encoder, s", "to the first step, s", "epochs, s", "all, s", "peak GiB"]
    sentences = record["runs"]["first"]["sentences"]
    note = (
        f"{sentences:,} sentences. One pass of the encoder and {record['epochs']} epochs take {ratio(record):.2f} times "
        "one pass. Imports are not counted."
    )
    return [Table(f"Head-only: {record['epochs']} epochs on cached features", header, rows, note)]


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        process.quiet_libraries()
        print(json.dumps(train(json.loads(sys.argv[1]))))
    else:
        cli.run(main)
