"""Where the processor time of one request goes: the model, and what is there besides it.

python -m benchmarks.request --model-dir artifacts/models/quickstart

Processor milliseconds of a request with one text, 32 clients. Three servers are loaded: an empty ASGI app, this API over
a model that answers at once, and this API over the bundle; the system says what processor time each process used. The
work on the body, tokenizing and the model are timed by themselves in this process, in batches as under load. What is
left of the whole server's time after all parts is shown as such. Writes a table and a JSON file.
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
from bankintent.inference.runtime import Runtime, cores, find
from benchmarks import machine, servers, tables
from benchmarks.load import load
from benchmarks.servers import Contender
from benchmarks.serving import read_texts
from benchmarks.tables import Table, share

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
    checkpoint, texts = open_checkpoint(model_dir), read_texts()
    model = find(model_dir, runtime, cores(), workers=1)()  # type: ignore[arg-type]
    parts = {"body": body_cost(model, texts), **model_cost(model, texts)}
    facts = {
        "model": checkpoint.name,
        "runtime": model.facts.runtime,
        "machine": machine.describe(),
    }
    for contender in find_contenders(model_dir, runtime):
        console.say(f"Loading the server: {contender.name} ...")
        parts[contender.name] = server_cost(contender, clients, texts, requests)
    record = {**facts, "clients": clients, "milliseconds": parts}
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def find_contenders(model_dir: Path, runtime: str) -> list[Contender]:
    """The empty app, the API without a model, the API."""
    empty = (*UVICORN, "--lifespan", "off", "benchmarks.bare_apps:empty")
    constant = (*UVICORN, "--factory", "benchmarks.bare_apps:constant")
    return [
        Contender("empty", empty, model_dir, "/", lambda body: body["label"]),
        Contender("constant", constant, model_dir, "/health/ready", lambda body: body["label"]),
        servers.ours("whole", model_dir.resolve(), runtime),
    ]


def server_cost(contender: Contender, clients: int, texts: list[str], requests: int) -> float:
    """Processor milliseconds of the server for each request."""
    with servers.running(contender) as server:
        asyncio.run(load(server.endpoint, clients, texts, 4 * clients, 60))
        before = server.cpu_seconds()
        latencies, _ = asyncio.run(load(server.endpoint, clients, texts, requests, 120))
        return 1000 * (server.cpu_seconds() - before) / len(latencies)


def body_cost(model: Runtime, texts: list[str]) -> float:
    """Milliseconds to check a body, rank the labels and write the answer."""
    from bankintent.serving import wire

    row = model.logits(model.tokenize(texts[:1]))[0]
    bodies = [wire.PredictRequest(text=text).model_dump_json().encode() for text in texts[:500]]

    def work() -> None:
        for body in bodies:
            asked = wire.PredictRequest.model_validate_json(body)
            wire.prediction(row, False, model.facts, asked.top_k).model_dump_json()

    return cpu_milliseconds(work) / len(bodies)


def model_cost(model: Runtime, texts: list[str]) -> dict[str, float]:
    """Milliseconds of a text in tokenizing and in the model, in batches of 8 that lie near each other in length."""
    texts = sorted(texts[:512], key=len)
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    items = [model.tokenize(batch) for batch in batches]
    model.logits(items[-1])
    return {
        "tokenize": cpu_milliseconds(lambda: [model.tokenize(batch) for batch in batches])
        / len(texts),
        "model": cpu_milliseconds(lambda: [model.logits(batch) for batch in items]) / len(texts),
    }


def cpu_milliseconds(work: Callable[[], Any], rounds: int = 3) -> float:
    """Processor time of all threads in one call, the best of some."""
    took = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        took.append(time.process_time() - started)
    return 1000 * min(took)


def make_tables(record: dict[str, Any]) -> list[Table]:
    """The parts of a request, and what the whole server used."""
    found = record["milliseconds"]
    around = found["constant"] - found["empty"] - found["body"]
    rows = {
        "HTTP parsing, sockets, event loop (an empty app)": found["empty"],
        "checking the body, ranking, writing the answer": found["body"],
        "routing, limits, deadline, queue, log, metrics": around,
        "tokenizing": found["tokenize"],
        "the model": found["model"],
    }
    rows["not in these parts (threads, caches, padding)"] = found["whole"] - sum(rows.values())
    whole = found["whole"]
    body = [[name, f"{value:.3f}", share(value, whole)] for name, value in rows.items()]
    title = f"One request at {record['clients']} clients: processor time ({record['runtime']})"
    return [
        Table(
            title,
            ["part", "ms", "of the whole"],
            [*body, ["the whole server", f"{whole:.3f}", "100 %"]],
        )
    ]


if __name__ == "__main__":
    cli.run(main)
