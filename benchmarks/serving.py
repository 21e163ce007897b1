"""Requests a second and latency of the API, with each runtime, beside a naive app and other servers with its weights.

python -m benchmarks.serving --model-dir artifacts/models/quickstart
python -m benchmarks.serving --model-dir artifacts/models/quickstart --runtimes auto,onnx,torch --rounds 1
python -m benchmarks.serving --model-dir artifacts/models/teacher --student artifacts/models/student \
  --infinity ~/infinity/bin/python

The servers run as processes on loopback; one is loaded at a time, in turn, by clients that each send the next text when
the last is answered. Each measurement is bounded in requests and in seconds. Neither servers nor the load generator are
pinned to cores; what the load generator uses is measured, and `of bulk` sets the rate beside what the runtime by itself,
without HTTP, reaches on the cores that are left. Measured besides: the time from the start of a process (files in the
page cache) to its readiness and its first answer, and its memory at that point and after all load. `auto` is the
headline. `--student` adds a second bundle, `--infinity` the Python of an environment with infinity-emb
(benchmarks/servers.py says how to make one). Writes tables and a JSON file.
"""

import asyncio
import contextlib
import csv
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from bankintent import cli, console, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.config import RuntimeName
from bankintent.errors import ConfigError, UserError
from bankintent.inference.runtime import cores, find
from benchmarks import machine, servers, tables
from benchmarks.load import measure
from benchmarks.servers import NAIVE, STUDENT, Contender, Server
from benchmarks.tables import Table, share

TEXTS = machine.ROOT / "data" / "bundled" / "sentences.csv"
COMPARED = 100
"""Texts on which the servers of one model must nearly agree: else they do not serve the same model."""
BATCHES = (8, 32)
"""Sentences in a batch where a runtime is measured by itself."""
CLIENTS = (1, 8, 32, 128)


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    runtimes: Annotated[
        str, typer.Option(help=f"Of {', '.join(get_args(RuntimeName))}.")
    ] = "auto,torch",
    student: Annotated[
        Path | None, typer.Option(help="A second bundle, such as a distilled one.")
    ] = None,
    infinity: Annotated[Path | None, typer.Option(help="The Python that has infinity-emb.")] = None,
    clients: Annotated[
        list[int] | None, typer.Option("--clients", help="Repeatable.", show_default="1 8 32 128")
    ] = None,
    requests: Annotated[int, typer.Option(help="Most requests in one measurement.")] = 4000,
    seconds: Annotated[float, typer.Option(help="Most seconds in one measurement.")] = 20,
    rounds: Annotated[
        int, typer.Option(help="Measurements of each kind, servers in turn; the median is shown.")
    ] = 3,
    sentences: Annotated[int, typer.Option(help="Sentences of a bulk measurement.")] = 2000,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/serving.json"
    ),
) -> None:
    """Measure all servers in one run, print tables and write the figures."""
    names = list(dict.fromkeys(runtimes.split(",")))
    if unknown := set(names) - set(get_args(RuntimeName)):
        raise ConfigError(
            f"no runtime is called {', '.join(unknown)}", f"Name {', '.join(get_args(RuntimeName))}"
        )
    contenders = find_contenders(model_dir, names, student, infinity)
    checkpoint, texts = open_checkpoint(model_dir), read_texts()
    console.say("Each runtime by itself ...")
    bulk = [
        one
        for name in names
        for one in measure_bulk(model_dir, name, name, texts[:sentences], rounds)
    ]
    if student is not None:
        bulk += measure_bulk(student, "auto", STUDENT, texts[:sentences], rounds)
    record = {
        "model": {"name": checkpoint.name, "parity": (checkpoint.manifest or {}).get("parity")},
        "machine": machine.describe(),
        "peak": machine.peak(),
        "bulk": bulk,
        "starts": [measure_start(contender, rounds) for contender in contenders],
        **measure_load(contenders, clients or list(CLIENTS), texts, requests, seconds, rounds),
    }
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def find_contenders(
    model_dir: Path, runtimes: list[str], student: Path | None, python: Path | None
) -> list[Contender]:
    """The naive app first, then this API with each runtime, then what else was named."""
    model = open_checkpoint(model_dir).model.resolve()
    found = [
        servers.naive(model),
        *(servers.ours(name, model_dir.resolve(), name) for name in runtimes),
    ]
    if student is not None:
        open_checkpoint(student)
        found.append(servers.ours(STUDENT, student.resolve(), "auto"))
    if python is not None:
        if not python.is_file():
            raise ConfigError(
                f"{python} does not exist",
                "Name the python of an environment that has infinity-emb",
            )
        found.append(servers.infinity(python.absolute(), model))
    return found


def read_texts() -> list[str]:
    """The sentences of the bundled dataset, shuffled the same way each time."""
    with TEXTS.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    random.Random(6).shuffle(texts)
    return texts


def measure_bulk(
    model_dir: Path, runtime: str, name: str, texts: list[str], rounds: int
) -> list[dict[str, Any]]:
    """Sentences a second at each size of batch without HTTP, a thread for each core; the best round.

    Texts are tokenized before the clock starts and sorted by length.
    """
    model = find(model_dir, runtime, cores(), workers=cores())()  # type: ignore[arg-type]
    items = sorted(model.tokenize(texts), key=len)
    facts = {
        "server": name,
        "precision": next(
            kind for kind in ("int8", "bf16", "float32") if kind in model.facts.runtime
        ),
        "flops_per_sentence": machine.flops_per_token(open_checkpoint(model_dir).model)
        * mean_length(items),
        "tokens_per_sentence": mean_length(items),
    }
    found = []
    for size in BATCHES:
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        with ThreadPoolExecutor(model.workers) as pool:
            list(pool.map(model.logits, batches[::20]))
            took = [timed(lambda: list(pool.map(model.logits, batches))) for _ in range(rounds)]  # noqa: B023
        found.append({**facts, "batch": size, "sentences_per_second": len(items) / min(took)})
    return found


def mean_length(items: Any) -> float:
    """Tokens of a sentence, those that frame it included."""
    return statistics.fmean(map(len, items))


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_start(contender: Contender, rounds: int) -> dict[str, Any]:
    """Seconds from the start of the process, alone on the machine, and its memory; the first start only warms the disk."""
    console.say(f"Starting {contender.name} ...")
    starts = []
    for _ in range(rounds + 1):
        with servers.running(contender) as server:
            starts.append((server.ready_seconds, server.answer_seconds, server.memory_mb()))
    names = ("ready_seconds", "answer_seconds", "memory_mb")
    figures = zip(*starts[1:], strict=True)
    return {
        "server": contender.name,
        **dict(zip(names, map(statistics.median, figures), strict=True)),
    }


def measure_load(
    contenders: list[Contender],
    clients: list[int],
    texts: list[str],
    requests: int,
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """All servers at once, one loaded at a time."""
    measured = []
    with contextlib.ExitStack() as stack:
        up = [stack.enter_context(servers.running(contender)) for contender in contenders]
        agreement = {server.name: check(up[0], server, texts[:COMPARED]) for server in up[1:]}
        for number in clients:
            console.say(f"{number} client{'s' * (number > 1)} ...")
            for _ in range(rounds):
                for server in up:
                    work = measure(server.name, server.endpoint, number, texts, requests, seconds)
                    measured.append(asdict(asyncio.run(work)))
        loaded = [
            {"server": s.name, "runtime": s.runtime(), "memory_mb": s.memory_mb()} for s in up
        ]
    return {"servers": loaded, "agreement_with_naive": agreement, "measurements": measured}


def check(reference: Server, server: Server, texts: list[str]) -> float:
    """The share of texts with the same label; UserError where a server of the same weights says something else.

    A student is another model, and infinity-emb rounds activations to 8 bits as it goes: they may, and the table shows it.
    """
    same = servers.agreement(reference, server, texts)
    if same < 0.9 and server.name not in (STUDENT, servers.INFINITY):
        raise UserError(
            f"{reference.name} and {server.name} give different labels ({100 * same:.0f} % the same)",
            "Check that both serve the same weights",
        )
    return same


def make_tables(record: dict[str, Any]) -> list[Table]:
    """What starting takes, what each runtime does by itself, and what clients get."""
    return [start_table(record), bulk_table(record), load_table(record)]


def start_table(record: dict[str, Any]) -> Table:
    """One row for each server: what it is, its start, its memory."""
    loaded = {one["server"]: one for one in record["servers"]}
    rows = []
    for one in record["starts"]:
        after = loaded[one["server"]]
        same = record["agreement_with_naive"].get(one["server"])
        rows.append(
            [
                one["server"],
                after["runtime"],
                f"{one['ready_seconds']:.2f}",
                f"{one['answer_seconds']:.2f}",
                f"{one['memory_mb']:.0f}",
                f"{after['memory_mb']:.0f}",
                "" if same is None else f"{100 * same:.0f} %",
            ]
        )
    header = [
        "server",
        "runtime",
        "ready, s",
        "first answer, s",
        "MB at start",
        "MB after load",
        "labels as naive",
    ]
    return Table(f"Serving {record['model']['name']}: start and memory", header, rows)


def bulk_table(record: dict[str, Any]) -> Table:
    """One row for each runtime and size of batch, beside the floor."""
    rows = []
    for one in record["bulk"]:
        floor = record["peak"][one["precision"]] / one["flops_per_sentence"]
        rate = one["sentences_per_second"]
        figures = [str(one["batch"]), f"{rate:.0f}", f"{floor:.0f}", share(rate, floor)]
        rows.append([one["server"], one["precision"], *figures])
    header = ["runtime", "precision", "batch", "sentences/s", "floor, sentences/s", "of the floor"]
    tokens = record["bulk"][0]["tokens_per_sentence"]
    note = (
        f"{tokens:.1f} tokens a sentence, {record['bulk'][0]['flops_per_sentence'] / 1e6:.0f} MFLOP; "
        "the floor is that over the measured rate of matrix products in the same precision."
    )
    return Table("Serving: each runtime by itself, without HTTP", header, rows, note)


def load_table(record: dict[str, Any]) -> Table:
    """One row for each number of clients and server: its median round, beside the naive app and its own bulk rate."""
    rows = []
    others = [
        name
        for name in (NAIVE, servers.INFINITY)
        if name in {m["server"] for m in record["measurements"]}
    ]
    for clients, server in dict.fromkeys(
        (m["clients"], m["server"]) for m in record["measurements"]
    ):
        one = median(record, clients, server)
        failed = f" ({one['errors']} failed)" if one["errors"] else ""
        figures = [
            f"{one['requests_per_second']:.0f}{failed}",
            f"{one['p50_ms']:.1f}",
            f"{one['p99_ms']:.1f}",
        ]
        reached = bulk_share(record, clients, server)
        against = [f"{ratio(record, clients, server, name):.1f}" for name in others]
        rows.append(
            [str(clients), server, *figures, *against, share(reached, 1) if reached else ""]
        )
    header = [
        "clients",
        "server",
        "requests/s",
        "p50, ms",
        "p99, ms",
        *(f"x {name}" for name in others),
        "of bulk",
    ]
    note = "of bulk: the rate over the best bulk rate of the same runtime on the cores that the load generator leaves."
    return Table("Serving: what clients get", header, rows, note)


def median(record: dict[str, Any], clients: int, server: str) -> dict[str, Any]:
    """The round with the median rate (the lower of two)."""
    rounds = [m for m in record["measurements"] if (m["clients"], m["server"]) == (clients, server)]
    return sorted(rounds, key=lambda m: m["requests_per_second"])[(len(rounds) - 1) // 2]


def ratio(record: dict[str, Any], clients: int, server: str, other: str) -> float:
    """How many times the rate of another server."""
    one, two = (median(record, clients, name) for name in (server, other))
    return one["requests_per_second"] / two["requests_per_second"]


def bulk_share(record: dict[str, Any], clients: int, server: str) -> float | None:
    """The rate over the bulk rate on the cores that the load generator leaves; None where no bulk was measured."""
    rates = [one["sentences_per_second"] for one in record["bulk"] if one["server"] == server]
    if not rates:
        return None
    one, number = median(record, clients, server), record["machine"]["cores"]
    return one["requests_per_second"] / (max(rates) * (number - one["client_cores"]) / number)


if __name__ == "__main__":
    cli.run(main)
