"""What a large job needs beside the model's work: the inputs of docs/explanation/scale.md.

python -m benchmarks.large_jobs servers 1 16 64 --batch-ms 8.02 31.14 --request-ms 1.45
python -m benchmarks.large_jobs servers 1 --client-ms 0.5 --loads 36 72 114 131 150 169
python -m benchmarks.large_jobs driver 1000000
python -m benchmarks.large_jobs tenants 100 1000

`servers` simulates numbers of servers, whose costs are given, at some loads of each. `driver` does
what one process does alone in a run of `score --engine ray`: it reads the table through and puts
the parts together, whose answers are drawn at random here. `tenants` writes the metrics of so many
models once, and hashes bytes as the load of a bundle does. Prints tables.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice, product
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from prometheus_client import generate_latest

from bankintent import console
from bankintent.config import ScoreConfig
from bankintent.decision.deciding import DECIMALS, Decision, Reason, Verdict
from bankintent.scoring import precheck, shards
from bankintent.scoring.answers import ANSWER
from bankintent.scoring.output import output_schema
from bankintent.scoring.parts import Parts
from bankintent.scoring.score import assemble
from bankintent.serving.batching import Batch
from bankintent.serving.metrics import Metrics
from benchmarks import machine
from benchmarks.capacity import LARGEST_BATCH
from benchmarks.simulation import ReplicaCosts, simulate

LOADS = (50, 100, 125, 150, 160, 170, 180, 190, 200, 210)
"""Requests a second for each server."""

REQUESTS = 100_000
"""Simulated requests of a point, for all servers together, but at least EACH for each."""

EACH = 5_000

INTENTS = 77

HASHED = 1 << 28
"""Bytes."""

Result = TypeVar("Result")


def costs_of(batch_ms: Sequence[float], request_ms: float, client_ms: float = 0.0) -> ReplicaCosts:
    """A server of two cores; `batch_ms` are of one text and of the largest batch, and batches
    between these are taken to lie on a line."""
    sizes = np.arange(1, LARGEST_BATCH + 1)
    line = np.interp(sizes, [1, LARGEST_BATCH], batch_ms)
    return ReplicaCosts(
        batch_seconds=[[float(ms) / 1000] for ms in line],
        request_seconds=request_ms / 1000,
        client_seconds=client_ms / 1000,
    )


def servers(costs: ReplicaCosts, replicas: int, load: float) -> list[str]:
    """The row of the table for one number of servers at one load of each."""
    requests = max(REQUESTS, EACH * replicas)
    waits = simulate(costs, load * replicas, replicas, requests=requests)
    figures = [f"{1000 * waits.percentile(share):.1f}" for share in (0.5, 0.99)]
    together = f"{load * replicas:,.0f}"
    return [str(replicas), f"{load:g}", together, *figures, f"{waits.mean_batch:.2f}"]


def driver(rows: int, folder: Path) -> list[list[str]]:
    """Seconds of each thing that the driver does, and the bytes of a row in each file."""
    source = folder / "in.parquet"
    settings = ScoreConfig(input=source, output=folder / "out.parquet", model_dir=folder)
    write_input(source, rows)
    table = shards.open_input(source, settings)
    column = precheck.find_text_index(table, settings)
    schema = output_schema(table, settings)

    read, summary = timed(lambda: precheck.read_through(table, column, settings))
    parts = Parts.begin(folder / "work", {}, rows, settings.chunk_rows, discard=False)
    for number in range(parts.count):
        parts.write(number, made_answers(parts.size(number), number), 0)
    look, _ = timed(parts.missing)
    join, _ = timed(lambda: assemble(table, summary, parts, schema, settings.output))
    count, _ = timed(parts.truncated)

    stored = sum(path.stat().st_size for path in parts.folder.glob("part-*"))
    return [
        _rate("read the input through", rows, read),
        _rate("put the parts together", rows, join),
        _rate("count the texts that were cut", rows, count),
        _rate("look at the parts of an interrupted run", rows, look),
        _size("input", rows, source.stat().st_size),
        _size("parts", rows, stored),
        _size("output", rows, settings.output.stat().st_size),
    ]


def _rate(name: str, rows: int, seconds: float) -> list[str]:
    return [name, f"{seconds:.2f} s", f"{1e6 * seconds / rows:.2f} s a million rows"]


def _size(name: str, rows: int, size: int) -> list[str]:
    return [name, f"{size / 1e6:.1f} MB", f"{size / rows:.1f} bytes a row"]


def write_input(path: Path, rows: int) -> None:
    """The bundled sentences, each with a number of its own."""
    sentences = pyarrow.csv.read_csv(machine.TEXTS)["text"].to_pylist()
    texts = [f"{text} {number}" for number, text in enumerate(islice(cycle(sentences), rows))]
    pq.write_table(pa.table({"text": texts}), path)


def made_answers(rows: int, seed: int) -> pa.Table:
    """Answers drawn at random, whose digits cannot be packed."""
    rng = np.random.default_rng(seed)
    labels = np.array([f"an_intent_of_the_table_{number:02d}" for number in range(INTENTS)])
    columns = {
        "label": labels[rng.integers(INTENTS, size=rows)],
        "score": np.round(rng.random(rows), DECIMALS),
        "decision": np.full(rows, Verdict.ANSWER.value),
        "reason": np.full(rows, Reason.NONE.value),
        "margin": np.round(rng.random(rows), DECIMALS),
        "second": labels[rng.integers(INTENTS, size=rows)],
    }
    return pa.table(columns, schema=ANSWER)


def tenants(count: int) -> list[str]:
    """Lines and bytes of /metrics, and the seconds that it takes to write them once."""
    metrics = Metrics(several=True)
    labels = [f"an_intent_of_the_table_{number:02d}" for number in range(INTENTS)]
    for number in range(count):
        observe(metrics, f"tenant-{number:04d}", labels)
    seconds, written = timed(lambda: generate_latest(metrics.registry))
    series = sum(not line.startswith(b"#") for line in written.splitlines())
    return [str(count), f"{series:,}", f"{len(written):,}", f"{seconds:.2f} s"]


def observe(metrics: Metrics, name: str, labels: list[str]) -> None:
    """What a model that has given every intent and every reason has in the metrics."""
    metrics.follow(lambda: 0, lambda: 0, lambda: 1, name)
    own = metrics.of(name)
    decisions = []
    for label in range(len(labels)):
        decisions.append(Decision(label, 0.9, 0, 0.5, True, Verdict.ANSWER, Reason.NONE))
    for reason in (Reason.OUT_OF_SCOPE, Reason.BELOW_THRESHOLD, Reason.CLOSE_CALL):
        decisions.append(Decision(0, 0.3, 1, 0.1, False, Verdict.ABSTAIN, reason))
    own.observe_answers(decisions, labels)
    own.observe_batch(Batch([8, 9], 0.01))
    own.count_cached(1)
    metrics.observe_model_request(name, 200, 0.02)


def hash_rate() -> float:
    """Bytes that are hashed in a second."""
    content = bytes(HASHED)
    seconds, _ = timed(lambda: hashlib.sha256(content).digest())
    return HASHED / seconds


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of a call, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def main() -> None:
    """Print the table of one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("servers", "driver", "tenants"))
    parser.add_argument("counts", nargs="+", type=int, help="of servers, rows, or tenants")
    parser.add_argument("--batch-ms", nargs=2, type=float, default=(8.02, 31.14))
    parser.add_argument("--request-ms", type=float, default=1.45, help="of the event loop")
    parser.add_argument("--client-ms", type=float, default=0.0, help="of load from the same cores")
    parser.add_argument("--loads", nargs="+", type=float, default=LOADS, help="of each server")
    given = parser.parse_args()

    console.say(f"Load average of this machine: {os.getloadavg()[0]:.1f}.")
    if given.what == "servers":
        costs = costs_of(given.batch_ms, given.request_ms, given.client_ms)
        header = ["servers", "requests/s each", "together", "p50, ms", "p99, ms", "texts a batch"]
        rows = [servers(costs, *point) for point in product(given.counts, given.loads)]
        console.print_table("Simulated", header, rows)
    elif given.what == "driver":
        for count in given.counts:
            with tempfile.TemporaryDirectory() as folder:
                lines = driver(count, Path(folder))
            console.print_table(f"{count:,} rows", ["what", "", ""], lines)
    else:
        lines = [tenants(count) for count in given.counts]
        console.print_table("/metrics", ["tenants", "series", "bytes", "to write once"], lines)
        console.say(f"{hash_rate() / 1e6:,.0f} MB/s are hashed.")


if __name__ == "__main__":
    main()
