"""Training on two processes beside one: sentences a second, at the same effective batch.

python -m benchmarks.processes --data-dir data/quickstart

Each setting is a run of its own, one after the other, in rounds: one process with one thread, one
with two, and two with one thread each, which torchrun starts. All train the embedded encoder on the
same batches of 64 sentences in float32; starting, loading and publishing are not counted. The CPU
seconds of all processes stand beside the rate: they say what the second process costs, also on a
machine that others use. Writes a table and a JSON file.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bankintent import cli, console, files, process
from bankintent.config import Regime
from bankintent.corpus import dataset
from bankintent.errors import UserError
from benchmarks import machine, tables, training
from benchmarks.machine import ROOT, Job
from benchmarks.tables import Record, Table

SETTINGS = {
    "1 process, 1 thread": (1, 1),
    "1 process, 2 threads": (1, 2),
    "2 processes, 1 thread each": (2, 1),
}
"""Title -> processes, threads of each."""

ALONE = "1 process, 1 thread"
"""The setting that the others are compared with."""

REGIMES: tuple[Regime, ...] = ("full-ft", "lora")


def main(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path(
        "data/quickstart"
    ),
    sentences: Annotated[
        int, typer.Option(help="Training sentences; a step takes 64 of them.")
    ] = 1536,
    rounds: Annotated[int, typer.Option(help="Runs of each setting; the median is shown.")] = 3,
    regimes: Annotated[
        list[str] | None, typer.Option("--regime", help="Repeatable.", show_default="all")
    ] = None,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/processes.json"
    ),
) -> None:
    """Measure training on two processes and print the ratios."""
    dataset.load(data_dir)

    results: dict[str, dict[str, list[Record]]] = {}
    names = regimes or list(REGIMES)
    for regime in names:
        results[regime] = {title: [] for title in SETTINGS}
    for number in range(rounds):
        for regime in names:
            for title, setting in SETTINGS.items():
                console.say(f"Round {number + 1} of {rounds}: {regime}, {title} ...")
                job = {
                    "data_dir": str(data_dir.absolute()),
                    "sentences": sentences,
                    "regime": regime,
                }
                results[regime][title].append(_launch(job, *setting))

    record = {"machine": machine.describe(), "sentences": sentences, "results": results}
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def _launch(job: Job, processes: int, threads: int) -> Record:
    """Train on so many processes; returns what the main one has measured."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        words = ["-m", "benchmarks.processes", json.dumps(job | {"answer": str(answer)})]
        done = subprocess.run(
            [sys.executable, *start, *words],
            cwd=ROOT,
            env=process.environment() | {"OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.is_file():
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise UserError(f"a run on {processes} processes failed: {lines[-1]}")
        return dict(json.loads(answer.read_text(encoding="utf-8")))


def contend(job: Job) -> None:
    """Train in this process and those beside it; the main one writes its figures."""
    import torch

    from bankintent.training import hardware, processes

    with processes.joined(training.BATCH):
        setting = training.prepare(job["regime"], Path(job["data_dir"]), job["sentences"], 1)
        config = setting.config.model_copy(update={"precision": "fp32"})
        setting = replace(setting, config=config)
        processes.wait_for_all()
        started = time.perf_counter()
        cpu_started = time.process_time()
        with tempfile.TemporaryDirectory() as work:
            # The checkpoint is one, in the folder of the main process.
            shared = processes.from_main(lambda: work)
            training.fit_ours(setting, Path(shared))
            processes.wait_for_all()
            seconds = time.perf_counter() - started
        cpu = np.array([time.process_time() - cpu_started], dtype=np.float32)
        processes.added(cpu)

        record = {
            "seconds": seconds,
            "cpu_seconds": float(cpu[0]),
            "sentences_per_second": job["sentences"] / seconds,
            "threads": torch.get_num_threads(),
            "peak_memory_bytes": hardware.peak_memory(),
        }
        processes.from_main(lambda: files.write_text(Path(job["answer"]), json.dumps(record)))


def make_tables(record: Record) -> list[Table]:
    """A row for each regime and setting: the median of its rounds."""
    header = ["regime", "setting", "sentences/s", f"x {ALONE}", "CPU s", "peak GiB a process"]
    rows = []
    for regime, settings in record["results"].items():
        alone = _rate(settings[ALONE])
        for title, runs in settings.items():
            cpu = statistics.median(run["cpu_seconds"] for run in runs)
            memory = max(run["peak_memory_bytes"] for run in runs)
            rows.append(
                [
                    regime,
                    title,
                    f"{_rate(runs):.1f}",
                    f"{_rate(runs) / alone:.2f}",
                    f"{cpu:.1f}",
                    f"{memory / 2**30:.2f}",
                ]
            )
    steps = record["sentences"] // training.BATCH
    return [Table(f"Training on several processes: {steps} steps of 64 sentences", header, rows)]


def _rate(runs: list[Record]) -> float:
    return statistics.median(run["sentences_per_second"] for run in runs)


if __name__ == "__main__":
    if machine.has_job():
        process.quiet_libraries()
        contend(json.loads(sys.argv[1]))
    else:
        cli.run(main)
