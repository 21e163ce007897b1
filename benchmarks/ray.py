"""What Ray costs beside the local engine: the same table scored, and the same study made, by both.

python -m benchmarks.ray --model-dir artifacts/models/quickstart

The commands run in turns, each in a process of its own, and Ray's share a cluster of two nodes on
this machine with one CPU each. The local engine has two threads for scoring, and makes one run of a
study at a time. Writes a table and a JSON file.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import IO, Annotated, cast

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bankintent import cli, console, files
from bankintent.errors import UserError
from benchmarks import machine

CHUNK_ROWS = 500


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")] = Path(
        "artifacts/models/quickstart"
    ),
    study: Annotated[
        Path | None, typer.Option(help="A compare.yaml; its output_dir is replaced.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of the table.")] = 20_000,
    rounds: Annotated[int, typer.Option(help="How often each command is measured.")] = 3,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/ray.json"
    ),
) -> None:
    """Measure both engines, print a table and write the figures."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder / "in.parquet", rows)
        nodes = Nodes()
        try:
            for turn in range(rounds):
                for engine in ("local", "ray"):
                    words = score_words(folder, model_dir, engine, turn)
                    seconds.setdefault(f"score, {engine}", []).append(timed(words, nodes.address))
                    if study is not None:
                        words = study_words(folder, study, engine, turn)
                        taken = timed(words, nodes.address)
                        seconds.setdefault(f"compare, {engine}", []).append(taken)
            check_same(folder, rounds)
        finally:
            nodes.stop()

    record = {"machine": machine.describe(), "load": os.getloadavg(), "rows": rows}
    files.write_text(output, files.json_text(record | {"seconds": seconds}))
    table = []
    for name, values in seconds.items():
        table.append([name, f"{median(values):.1f}", ", ".join(f"{value:.1f}" for value in values)])
    console.print_table("Seconds", ["command", "median", "each"], table)


def write_table(path: Path, rows: int) -> None:
    """A table of `rows` sentences of the embedded data, each with a number of its own."""
    with machine.TEXTS.open(encoding="utf-8", newline="") as file:
        sentences = [row["text"] for row in csv.DictReader(file)]
    texts = [f"{text} {n}" for n, text in enumerate(islice(cycle(sentences), rows))]
    pq.write_table(pa.table({"text": texts}), path)


def score_words(folder: Path, model_dir: Path, engine: str, turn: int) -> list[str]:
    """The words of a scoring command."""
    words = ["score", str(folder / "in.parquet"), str(folder / f"{engine}-{turn}.parquet")]
    words += ["--model-dir", str(model_dir), "--engine", engine, "--set"]
    words.append(f"chunk_rows={CHUNK_ROWS}")
    if engine == "local":
        words += ["--set", "threads=2"]
    return words


def study_words(folder: Path, study: Path, engine: str, turn: int) -> list[str]:
    """The words of a comparison in a folder of its own."""
    place = folder / f"study-{engine}-{turn}"
    words = ["compare", "--config", str(study)]
    return [*words, "--set", f"output_dir={place}", "--set", f"engine={engine}"]


def timed(words: list[str], address: str) -> float:
    """Seconds of a command from its start to its end; UserError where it fails."""
    environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(machine.ROOT)}
    started = time.perf_counter()
    command = [sys.executable, "-m", "bankintent", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"{' '.join(words)} failed: {done.stderr.strip().splitlines()[-1]}")
    console.say(f"{seconds:.1f} s: {' '.join(words)}")
    return seconds


def check_same(folder: Path, rounds: int) -> None:
    """UserError where two outputs differ."""
    names = []
    for engine in ("local", "ray"):
        names += [f"{engine}-{turn}.parquet" for turn in range(rounds)]
    hashes = {files.sha256(folder / name) for name in names}
    if len(hashes) > 1:
        raise UserError("the engines gave different outputs")


class Nodes:
    """Ray's two nodes, in a process that ends with this one."""

    def __init__(self) -> None:
        script = machine.ROOT / "tests" / "ray_nodes.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(machine.ROOT)},
        )
        self.address = cast(IO[str], self.process.stdout).readline().strip()

    def stop(self) -> None:
        """End the cluster and wait for it."""
        cast(IO[str], self.process.stdin).close()
        self.process.wait()


if __name__ == "__main__":
    cli.run(main)
