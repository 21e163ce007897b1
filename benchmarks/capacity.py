"""Latency against load: one server as measured, and any number of servers as simulated.

python -m benchmarks.capacity --model-dir artifacts/models/quickstart

First the costs are measured: the seconds of batches of 1 to 8 texts while all workers compute, of
the event loop for a request, and of the load generator. Then the server meets requests that arrive
at random, at some shares of the rate that it can sustain, and the simulation
(benchmarks/simulation.py) meets the same rates with those costs. Last, the simulation says how many
requests a second 1, 2, ... servers of this machine's kind sustain with a p99 below a limit. Writes
tables and a JSON file; the machine should be idle otherwise.
"""

import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli, console, files, process
from bankintent.inference import choice
from bankintent.inference.runtime import Runtime, Tokens
from benchmarks import machine, servers, tables
from benchmarks.open_load import OpenMeasurement, measure_open
from benchmarks.servers import Server
from benchmarks.serving import read_texts
from benchmarks.simulation import ReplicaCosts, Waits, simulate
from benchmarks.tables import Record, Table

LARGEST_BATCH = 8
"""`batching.max_texts` of the server, by default."""

PASSES = 200
"""Batches of each size that every worker computes."""

SHARES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9)
"""Of the rate that the simulation sustains on one server."""

SHOWN_REPLICAS = (1, 2, 4, 8, 16)

P99_LIMIT = 0.1
"""Seconds: a rate is sustained while 99 of 100 answers come within them."""

COST_RATE = 40.0
"""Requests a second at which the processor time of one request is measured."""

SEARCH_STEPS = 9

SEARCH_REQUESTS = 5000
"""Simulated requests for each server in a step of the search."""


@dataclass(frozen=True)
class CpuCosts:
    """Processor seconds of one request."""

    server: float
    """Of the whole server, the model too."""
    client: float
    """Of the load generator."""


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 20,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/capacity.json"
    ),
) -> None:
    """Measure, simulate, print tables and write the figures."""
    texts = read_texts()
    console.say("Batches by themselves ...")
    batch_seconds = measure_batches(model_dir, texts)

    with servers.running(servers.ours("auto", model_dir.resolve(), "auto")) as server:
        runtime = server.runtime()
        console.say("The cost of a request ...")
        asyncio.run(measure_open(server.endpoint, COST_RATE, texts, 2))
        cpu = measure_costs(server, texts, seconds)
        costs = find_costs(batch_seconds, cpu)
        sustained = find_rate(costs)

        points = []
        for share in SHARES:
            rate = share * sustained
            console.say(f"{rate:.0f} requests/s ...")
            measured = asyncio.run(measure_open(server.endpoint, rate, texts, seconds))
            points.append(compare(measured, costs))

    record = {
        "machine": machine.describe(),
        "model": model_dir.name,
        "runtime": runtime,
        "costs": asdict(costs),
        "points": points,
        "replicas": plan(replace(costs, client_seconds=0.0)),
        "p99_limit_seconds": P99_LIMIT,
    }
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def measure_batches(model_dir: Path, texts: list[str]) -> list[list[float]]:
    """Seconds of batches of 1 to LARGEST_BATCH texts while every worker computes such ones.

    So they hold what workers cost each other: memory, caches, the interpreter's lock.
    """
    model = choice.find(model_dir, "auto").load()
    items = model.tokenize(texts)
    times = []
    with ThreadPoolExecutor(model.workers) as pool:
        for size in range(1, LARGEST_BATCH + 1):
            _time_batches(model, items, size, PASSES // 10)  # warm-up
            runs = [
                pool.submit(_time_batches, model, items, size, PASSES) for _ in range(model.workers)
            ]
            times.append([seconds for run in runs for seconds in run.result()])
    return times


def _time_batches(model: Runtime, items: list[Tokens], size: int, passes: int) -> list[float]:
    seconds = []
    for number in range(passes):
        start = number * size % (len(items) - size)
        batch = items[start : start + size]
        started = time.perf_counter()
        model.outputs(batch)
        seconds.append(time.perf_counter() - started)
    return seconds


def measure_costs(server: Server, texts: list[str], seconds: float) -> CpuCosts:
    """Processor seconds of a request at a rate at which almost none waits for another."""
    before = server.cpu_seconds()
    measured = asyncio.run(measure_open(server.endpoint, COST_RATE, texts, seconds))
    used = server.cpu_seconds() - before

    requests = len(measured.latencies) + measured.errors
    return CpuCosts(used / requests, measured.client_cpu_seconds / requests)


def find_costs(batch_seconds: list[list[float]], cpu: CpuCosts) -> ReplicaCosts:
    """The costs of this server; what its processor does beside the model is the event loop's."""
    cores = process.cores()
    return ReplicaCosts(
        batch_seconds=batch_seconds,
        request_seconds=max(0.0, cpu.server - statistics.fmean(batch_seconds[0])),
        cores=cores,
        workers=cores,
        client_seconds=cpu.client,
    )


def find_rate(costs: ReplicaCosts, replicas: int = 1) -> float:
    """The highest rate, in requests a second, whose simulated p99 is within P99_LIMIT."""
    # No machine answers more than its cores have seconds for.
    work = costs.request_seconds + statistics.fmean(costs.batch_seconds[-1]) / len(
        costs.batch_seconds
    )
    low = 0.0
    high = replicas * costs.cores / work
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        waits = simulate(costs, middle, replicas, requests=SEARCH_REQUESTS * replicas)
        if waits.percentile(0.99) <= P99_LIMIT:
            low = middle
        else:
            high = middle
    return low


def compare(measured: OpenMeasurement, costs: ReplicaCosts) -> Record:
    """Latencies as measured and as simulated at one rate, in seconds."""
    waits = simulate(costs, measured.rate)
    observed = Waits(measured.latencies, 0.0)
    return {
        "rate": measured.rate,
        "errors": measured.errors,
        "measured": {"p50": observed.percentile(0.5), "p99": observed.percentile(0.99)},
        "simulated": {"p50": waits.percentile(0.5), "p99": waits.percentile(0.99)},
        "mean_batch": waits.mean_batch,
    }


def plan(costs: ReplicaCosts) -> list[Record]:
    """What some numbers of servers sustain, the load coming from elsewhere."""
    records = []
    for replicas in SHOWN_REPLICAS:
        records.append({"replicas": replicas, "rate": find_rate(costs, replicas)})
    return records


def make_tables(record: Record) -> list[Table]:
    """The server as measured and simulated, and servers as simulated."""
    return [_comparison_table(record), _replica_table(record)]


def _comparison_table(record: Record) -> Table:
    header = ["requests/s", "p50, ms", "simulated", "p99, ms", "simulated", "failed"]
    rows = []
    for point in record["points"]:
        cells = [f"{point['rate']:.0f}"]
        for figure in ("p50", "p99"):
            for kind in ("measured", "simulated"):
                cells.append(f"{1000 * point[kind][figure]:.1f}")
        rows.append([*cells, str(point["errors"])])

    costs = record["costs"]
    batches = [statistics.fmean(times) for times in costs["batch_seconds"]]
    note = (
        f"{record['runtime']}. A batch of one text takes {1000 * batches[0]:.2f} ms, of"
        f" {len(batches)} texts {1000 * batches[-1]:.2f} ms; a request takes"
        f" {1000 * costs['request_seconds']:.2f} ms of the event loop, and"
        f" {1000 * costs['client_seconds']:.2f} ms of the load generator."
    )
    return Table("One server under requests that arrive at random", header, rows, note)


def _replica_table(record: Record) -> Table:
    header = ["servers", "requests/s", "a server"]
    rows = []
    for entry in record["replicas"]:
        rate = entry["rate"]
        each = rate / entry["replicas"]
        rows.append([str(entry["replicas"]), f"{rate:.0f}", f"{each:.0f}"])
    limit = f"{1000 * record['p99_limit_seconds']:.0f} ms"
    note = f"Simulated, the load coming from elsewhere; p99 within {limit}."
    return Table("Servers and what they sustain", header, rows, note)


if __name__ == "__main__":
    cli.run(main)
