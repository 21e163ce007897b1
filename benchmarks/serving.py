"""Requests a second and latency of the API, compared with a naive app and other servers.

python -m benchmarks.serving --model-dir artifacts/models/quickstart
python -m benchmarks.serving --model-dir artifacts/models/quickstart \
  --runtimes auto,onnx,torch --rounds 1
python -m benchmarks.serving --model-dir artifacts/models/teacher \
  --student artifacts/models/student --infinity ~/infinity/bin/python

All servers have the same weights. They run as processes on loopback; one is loaded at a time, in
turn, by clients that each send the next text when the last is answered. Each measurement is bounded
in requests and in seconds. Neither servers nor the load generator are pinned to cores; the load
generator's use of them is measured, and `of bulk` compares the rate with that of the runtime by
itself, without HTTP, on the cores that are left. Also measured: the time from the start of a
process (files in the page cache) to its readiness and its first answer, and its memory at that
point and after all load. `auto` is the headline. `--student` adds a second bundle, `--infinity` the
Python of an environment with infinity-emb (see benchmarks/servers.py). Writes tables and a JSON
file.
"""

import asyncio
import contextlib
import csv
import random
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer

from bankintent import cli, console, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.config import RuntimeName
from bankintent.errors import ConfigError, UserError
from bankintent.inference import choice
from bankintent.inference.runtime import Runtime, Tokens
from benchmarks import machine, servers, tables
from benchmarks.load import measure
from benchmarks.machine import TEXTS, timed
from benchmarks.servers import INFINITY, NAIVE, STUDENT, Contender, Server
from benchmarks.tables import Record, Table, share

AGREEMENT_TEXTS = 100
"""Texts on which the servers of one model are compared."""

AGREEMENT = 0.9
"""Least share of equal labels: below it, two servers do not serve the same model."""

BATCHES = (8, 32)
"""Sentences in a batch where a runtime is measured by itself."""

CLIENTS = (1, 8, 32, 128)

SHUFFLE_SEED = 6


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    runtimes: Annotated[
        str,
        typer.Option(help=f"Of {', '.join(get_args(RuntimeName))}."),
    ] = "auto,torch",
    student: Annotated[
        Path | None,
        typer.Option(help="A second bundle, such as a distilled one."),
    ] = None,
    infinity: Annotated[
        Path | None,
        typer.Option(help="The Python that has infinity-emb."),
    ] = None,
    clients: Annotated[
        list[int] | None,
        typer.Option("--clients", help="Repeatable.", show_default="1 8 32 128"),
    ] = None,
    requests: Annotated[int, typer.Option(help="Most requests in one measurement.")] = 4000,
    seconds: Annotated[float, typer.Option(help="Most seconds in one measurement.")] = 20,
    rounds: Annotated[
        int,
        typer.Option(help="Measurements of each kind, servers in turn; the median is shown."),
    ] = 3,
    sentences: Annotated[int, typer.Option(help="Sentences of a bulk measurement.")] = 2000,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/serving.json"
    ),
) -> None:
    """Measure all servers in one run, print tables and write the figures."""
    names = parse_runtimes(runtimes)
    contenders = find_contenders(model_dir, names, student, infinity)
    checkpoint = open_checkpoint(model_dir)
    parity = None
    if checkpoint.manifest and checkpoint.manifest.parity:
        parity = asdict(checkpoint.manifest.parity)
    texts = read_texts()

    console.say("Each runtime by itself ...")
    bulk = measure_runtimes(model_dir, names, student, texts[:sentences], rounds)
    record = {
        "model": {"name": checkpoint.name, "parity": parity},
        "machine": machine.describe(),
        "peak": machine.peak(),
        "bulk": bulk,
        "starts": [measure_start(contender, rounds) for contender in contenders],
        **measure_load(contenders, clients or list(CLIENTS), texts, requests, seconds, rounds),
    }
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def parse_runtimes(runtimes: str) -> list[str]:
    """The names of a comma-separated list, each once. Raises ConfigError for an unknown one."""
    names = list(dict.fromkeys(runtimes.split(",")))
    unknown = set(names) - set(get_args(RuntimeName))
    if unknown:
        raise ConfigError(
            f"no runtime is called {', '.join(unknown)}", f"Name {', '.join(get_args(RuntimeName))}"
        )
    return names


def find_contenders(
    model_dir: Path, runtimes: list[str], student: Path | None, python: Path | None
) -> list[Contender]:
    """The naive app first, then this API with each runtime, then the student and infinity-emb."""
    model = open_checkpoint(model_dir).model.resolve()
    contenders = [servers.naive(model)]
    for name in runtimes:
        contenders.append(servers.ours(name, model_dir.resolve(), name))

    if student is not None:
        open_checkpoint(student)
        contenders.append(servers.ours(STUDENT, student.resolve(), "auto"))
    if python is not None:
        if not python.is_file():
            raise ConfigError(
                f"{python} does not exist",
                "Name the python of an environment that has infinity-emb",
            )
        contenders.append(servers.infinity(python.absolute(), model))
    return contenders


def read_texts() -> list[str]:
    """The sentences of the bundled dataset, shuffled the same way each time."""
    with TEXTS.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    random.Random(SHUFFLE_SEED).shuffle(texts)
    return texts


def measure_runtimes(
    model_dir: Path, names: list[str], student: Path | None, texts: list[str], rounds: int
) -> list[Record]:
    """The bulk rates of the bundle with each runtime, and of the student."""
    records = []
    for name in names:
        records += measure_bulk(model_dir, name, name, texts, rounds)
    if student is not None:
        records += measure_bulk(student, "auto", STUDENT, texts, rounds)
    return records


def measure_bulk(
    model_dir: Path, runtime: str, name: str, texts: list[str], rounds: int
) -> list[Record]:
    """Sentences a second for each of BATCHES without HTTP, a thread for each core; the best round.

    Texts are tokenized before the clock starts and sorted by length.
    """
    model = choice.find(model_dir, runtime).load()  # type: ignore[arg-type]
    items = sorted(model.tokenize(texts), key=len)
    mean_tokens = statistics.fmean(map(len, items))
    flops_per_token = machine.flops_per_token(open_checkpoint(model_dir).model)
    facts = {
        "server": name,
        "precision": machine.precision_of(model.facts.runtime),
        "flops_per_sentence": flops_per_token * mean_tokens,
        "tokens_per_sentence": mean_tokens,
    }

    records = []
    for size in BATCHES:
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        with ThreadPoolExecutor(model.workers) as pool:
            _compute(model, batches[::20], pool)  # warm-up, with batches of all lengths
            work = partial(_compute, model, batches, pool)
            best = min(timed(work) for _ in range(rounds))
        records.append({**facts, "batch": size, "sentences_per_second": len(items) / best})
    return records


def _compute(model: Runtime, batches: list[list[Tokens]], pool: ThreadPoolExecutor) -> None:
    list(pool.map(model.logits, batches))


def measure_start(contender: Contender, rounds: int) -> Record:
    """Seconds from the start of the process, alone on the machine, and its memory; medians."""
    console.say(f"Starting {contender.name} ...")
    starts = []
    for _ in range(rounds + 1):
        with servers.running(contender) as server:
            starts.append((server.ready_seconds, server.answer_seconds, server.memory_mb()))

    # The first start only brings the files into the page cache.
    ready, answer, memory = zip(*starts[1:], strict=True)
    return {
        "server": contender.name,
        "ready_seconds": statistics.median(ready),
        "answer_seconds": statistics.median(answer),
        "memory_mb": statistics.median(memory),
    }


def measure_load(
    contenders: list[Contender],
    clients: list[int],
    texts: list[str],
    requests: int,
    seconds: float,
    rounds: int,
) -> Record:
    """Run all servers at once and load one at a time."""
    measurements = []
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(servers.running(contender)) for contender in contenders]
        reference = running[0]
        agreement = {}
        for server in running[1:]:
            agreement[server.name] = check(reference, server, texts[:AGREEMENT_TEXTS])

        for count in clients:
            console.say(f"{count} client{'' if count == 1 else 's'} ...")
            # In turn, so that a slow minute of the machine meets all of them.
            for server in running * rounds:
                work = measure(server.name, server.endpoint, count, texts, requests, seconds)
                measurements.append(asdict(asyncio.run(work)))
        loaded = [_describe(server) for server in running]
    return {"servers": loaded, "agreement_with_naive": agreement, "measurements": measurements}


def _describe(server: Server) -> Record:
    return {"server": server.name, "runtime": server.runtime(), "memory_mb": server.memory_mb()}


def check(reference: Server, server: Server, texts: list[str]) -> float:
    """The share of texts with the same label. Raises UserError where it is too small.

    It may be small for a student, which is another model, and for infinity-emb, which rounds
    activations to 8 bits as it goes; the table shows it.
    """
    same = servers.agreement(reference, server, texts)
    if same < AGREEMENT and server.name not in (STUDENT, INFINITY):
        names = f"{reference.name} and {server.name}"
        raise UserError(
            f"{names} give different labels ({100 * same:.0f} % the same)",
            "Check that both serve the same weights",
        )
    return same


def make_tables(record: Record) -> list[Table]:
    """The start of each server, the rate of each runtime by itself, the answers to clients."""
    return [start_table(record), bulk_table(record), load_table(record)]


def start_table(record: Record) -> Table:
    """One row for each server: its runtime, its start, its memory."""
    after_load = {server["server"]: server for server in record["servers"]}
    header = [
        "server",
        "runtime",
        "ready, s",
        "first answer, s",
        "MB at start",
        "MB after load",
        "labels as naive",
    ]
    rows = []
    for start in record["starts"]:
        name = start["server"]
        same = record["agreement_with_naive"].get(name)
        rows.append(
            [
                name,
                after_load[name]["runtime"],
                f"{start['ready_seconds']:.2f}",
                f"{start['answer_seconds']:.2f}",
                f"{start['memory_mb']:.0f}",
                f"{after_load[name]['memory_mb']:.0f}",
                "" if same is None else f"{100 * same:.0f} %",
            ]
        )
    return Table(f"Serving {record['model']['name']}: start and memory", header, rows)


def bulk_table(record: Record) -> Table:
    """One row for each runtime and size of batch, compared with the floor."""
    header = ["runtime", "precision", "batch", "sentences/s", "floor, sentences/s", "of the floor"]
    rows = []
    for bulk in record["bulk"]:
        floor = record["peak"][bulk["precision"]] / bulk["flops_per_sentence"]
        rate = bulk["sentences_per_second"]
        figures = [str(bulk["batch"]), f"{rate:.0f}", f"{floor:.0f}", share(rate, floor)]
        rows.append([bulk["server"], bulk["precision"], *figures])

    first = record["bulk"][0]
    tokens = f"{first['tokens_per_sentence']:.1f} tokens a sentence"
    operations = f"{first['flops_per_sentence'] / 1e6:.0f} MFLOP"
    note = (
        f"{tokens}, {operations}; "
        "the floor is that over the measured rate of matrix products in the same precision."
    )
    return Table("Serving: each runtime by itself, without HTTP", header, rows, note)


def load_table(record: Record) -> Table:
    """One row for each number of clients and server: its median round, compared with others."""
    measurements = record["measurements"]
    names = {measurement["server"] for measurement in measurements}
    references = [name for name in (NAIVE, INFINITY) if name in names]
    ratios = [f"x {name}" for name in references]
    header = ["clients", "server", "requests/s", "p50, ms", "p99, ms", *ratios, "of bulk"]

    rows = []
    pairs = [(measurement["clients"], measurement["server"]) for measurement in measurements]
    for clients, server in dict.fromkeys(pairs):
        row = [str(clients), server, *_figures(median(record, clients, server))]
        for reference in references:
            row.append(f"{ratio(record, clients, server, reference):.1f}")
        of_bulk = bulk_share(record, clients, server)
        row.append(share(of_bulk, 1) if of_bulk else "")
        rows.append(row)

    note = (
        "of bulk: the rate over the best bulk rate of the same runtime on the cores that the load "
        "generator leaves."
    )
    return Table("Serving: what clients get", header, rows, note)


def _figures(measurement: Record) -> list[str]:
    rate = f"{measurement['requests_per_second']:.0f}"
    if measurement["errors"]:
        rate += f" ({measurement['errors']} failed)"
    return [rate, f"{measurement['p50_ms']:.1f}", f"{measurement['p99_ms']:.1f}"]


def median(record: Record, clients: int, server: str) -> Record:
    """The round with the median rate (the lower of two)."""
    rounds = []
    for measurement in record["measurements"]:
        if measurement["clients"] == clients and measurement["server"] == server:
            rounds.append(measurement)
    rounds.sort(key=lambda measurement: measurement["requests_per_second"])
    return rounds[(len(rounds) - 1) // 2]


def ratio(record: Record, clients: int, server: str, reference: str) -> float:
    """The rate of a server over that of another."""
    rate = median(record, clients, server)["requests_per_second"]
    return rate / median(record, clients, reference)["requests_per_second"]


def bulk_share(record: Record, clients: int, server: str) -> float | None:
    """The rate over the bulk rate on the cores that the load generator leaves.

    None where no bulk rate was measured.
    """
    bulk_rates = []
    for bulk in record["bulk"]:
        if bulk["server"] == server:
            bulk_rates.append(bulk["sentences_per_second"])
    if not bulk_rates:
        return None

    measurement = median(record, clients, server)
    cores = record["machine"]["cores"]
    cores_left = cores - measurement["client_cores"]
    return measurement["requests_per_second"] / (max(bulk_rates) * cores_left / cores)


if __name__ == "__main__":
    cli.run(main)
