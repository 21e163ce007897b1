"""Where the processor time of one request goes: the model, and everything else.

python -m benchmarks.request --model-dir artifacts/models/quickstart

Processor milliseconds of a request with one text, 32 clients. Three servers are loaded: an empty
ASGI app, this API over a model that answers at once, and this API over the bundle; the system
reports the processor time of each process. The work on the body, tokenizing and the model are timed
by themselves in this process, in batches as under load. The rest of the whole server's time is
shown as such. Writes a table and a JSON file.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.inference import choice
from bankintent.inference.runtime import Runtime
from benchmarks import machine, servers, tables
from benchmarks.load import load
from benchmarks.servers import OWN_READINESS, Contender
from benchmarks.serving import read_texts
from benchmarks.tables import Record, Table, share

UVICORN = (
    sys.executable,
    "-m",
    "uvicorn",
    "--log-level",
    "error",
    "--no-access-log",
    "--port",
    "{port}",
)

BATCH = 8
"""Texts in a batch; about what 32 clients make."""


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    runtime: Annotated[str, typer.Option(help="auto, torch, onnx, ...")] = "auto",
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 32,
    requests: Annotated[int, typer.Option(help="Requests to each server.")] = 4000,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/request.json"
    ),
) -> None:
    """Measure all parts in one run, print a table and write the figures."""
    checkpoint = open_checkpoint(model_dir)
    texts = read_texts()
    model = choice.find(model_dir, runtime, workers=1).load()  # type: ignore[arg-type]
    milliseconds = {"body": body_cost(model, texts), **model_cost(model, texts)}
    facts = {
        "model": checkpoint.name,
        "runtime": model.facts.runtime,
        "machine": machine.describe(),
    }

    for contender in find_contenders(model_dir, runtime):
        console.say(f"Loading the server: {contender.name} ...")
        milliseconds[contender.name] = server_cost(contender, clients, texts, requests)

    record = {**facts, "clients": clients, "milliseconds": milliseconds}
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def find_contenders(model_dir: Path, runtime: str) -> list[Contender]:
    """The empty app, the API without a model, the API."""
    empty = (*UVICORN, "--lifespan", "off", "benchmarks.bare_apps:empty")
    constant = (*UVICORN, "--factory", "benchmarks.bare_apps:constant")

    def label(body: Any) -> str:
        return str(body["label"])

    return [
        Contender("empty", empty, model_dir, "/", label),
        Contender("constant", constant, model_dir, OWN_READINESS, label),
        servers.ours("whole", model_dir.resolve(), runtime),
    ]


def server_cost(contender: Contender, clients: int, texts: list[str], requests: int) -> float:
    """Processor milliseconds of the server for each request."""
    with servers.running(contender) as server:
        warm_up = load(server.endpoint, clients, texts, most=4 * clients, seconds=60)
        asyncio.run(warm_up)

        before = server.cpu_seconds()
        measured = load(server.endpoint, clients, texts, most=requests, seconds=120)
        latencies, _ = asyncio.run(measured)
        return 1000 * (server.cpu_seconds() - before) / len(latencies)


def body_cost(model: Runtime, texts: list[str]) -> float:
    """Milliseconds to check a body, rank the labels and write the answer."""
    from bankintent.serving import wire
    from bankintent.serving.service import answer_batch

    known = answer_batch(model, model.tokenize(texts[:1]))[0]
    bodies = [wire.PredictRequest(text=text).model_dump_json().encode() for text in texts[:500]]

    def work() -> None:
        for body in bodies:
            request = wire.PredictRequest.model_validate_json(body)
            answer = wire.make_prediction(known, model.facts, request.top_k)
            answer.model_dump_json()

    return cpu_milliseconds(work) / len(bodies)


def model_cost(model: Runtime, texts: list[str]) -> dict[str, float]:
    """Milliseconds of a text in tokenizing and in the model, in batches of texts of like length."""
    texts = sorted(texts[:512], key=len)
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    items = [model.tokenize(batch) for batch in batches]

    def tokenize() -> None:
        for batch in batches:
            model.tokenize(batch)

    def compute() -> None:
        for batch in items:
            model.logits(batch)

    model.logits(items[-1])  # warm-up, with the longest texts
    return {
        "tokenize": cpu_milliseconds(tokenize) / len(texts),
        "model": cpu_milliseconds(compute) / len(texts),
    }


def cpu_milliseconds(work: Callable[[], Any], rounds: int = 3) -> float:
    """Processor time of all threads in one call, the best of some."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return 1000 * best


def make_tables(record: Record) -> list[Table]:
    """The parts of a request, and the time of the whole server."""
    milliseconds = record["milliseconds"]
    # The API over a constant does all of this; what is left is its own code.
    own_code = milliseconds["constant"] - milliseconds["empty"] - milliseconds["body"]
    parts = {
        "HTTP parsing, sockets, event loop (an empty app)": milliseconds["empty"],
        "checking the body, ranking, writing the answer": milliseconds["body"],
        "routing, limits, deadline, queue, log, metrics": own_code,
        "tokenizing": milliseconds["tokenize"],
        "the model": milliseconds["model"],
    }
    whole = milliseconds["whole"]
    parts["not in these parts (threads, caches, padding)"] = whole - sum(parts.values())

    rows = [[name, f"{value:.3f}", share(value, whole)] for name, value in parts.items()]
    rows.append(["the whole server", f"{whole:.3f}", "100 %"])
    title = f"One request at {record['clients']} clients: processor time ({record['runtime']})"
    return [Table(title, ["part", "ms", "of the whole"], rows)]


if __name__ == "__main__":
    cli.run(main)
