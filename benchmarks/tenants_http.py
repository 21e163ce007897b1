"""Requests a second of a server with many adapters on one base, beside that of one model.

python -m benchmarks.tenants_http --model-dir artifacts/models/quickstart

The tenants are copies of one bundle whose adapter and head differ by noise. Some clients ask in
turn, each request for the next tenant, as soon as their last request was answered. Servers run one
after the other, and share the cores with the clients. Writes a table and a JSON file.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files
from benchmarks import machine, servers, tables
from benchmarks.load import load, measure
from benchmarks.servers import Contender
from benchmarks.serving import read_texts
from benchmarks.tables import Record, Table
from benchmarks.tenants import EXPORTED, write_tenants

CLIENTS = (8, 32)

MOST = 1 << 20
"""More requests than are sent in the seconds of a measurement."""

LOADING_SECONDS = 600
"""Longest time in which all tenants are loaded."""


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A LoRA bundle.")],
    tenants: Annotated[int, typer.Option(help="Adapters on the base.")] = 64,
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 8.0,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/tenants_http.json"
    ),
) -> None:
    """Measure the servers one after the other, print a table and write the figures."""
    from bankintent.export import shared_base

    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.say(f"{tenants} tenants are written ...")
        write_tenants(model_dir, folder / "tenants", tenants)
        shared_base.export(model_dir, folder / EXPORTED)
        for contender in _contenders(folder):
            console.say(f"{contender.name} ...")
            runs += _measure(contender, tenants, seconds)

    record = {
        "machine": machine.describe(),
        "model": model_dir.name,
        "tenants": tenants,
        "runs": runs,
    }
    files.write_text(output, files.json_text(record))
    tables.show([make_table(record)])
    console.say(f"Written to {console.show_path(output)}.")


def _contenders(folder: Path) -> list[Contender]:
    """One tenant by itself in three runtimes, and all of them on a base of each kind."""
    roots = sorted((folder / "tenants").iterdir())
    found = []
    for runtime in ("torch", "onnx", "auto"):
        found.append(servers.ours(f"one model, {runtime}", roots[0], runtime))
    found.append(_shared("all on a base in torch", roots, roots[0]))
    found.append(_shared("all on an exported base", roots, folder / EXPORTED))
    return found


def _shared(name: str, roots: list[Path], base: Path) -> Contender:
    """A server of all tenants on one base; its requests are for one tenant after the other."""
    alone = servers.ours(name, roots[0], "auto")
    # Without --model-dir and its value.
    command = (*alone.command[:-2], "--set", f"models_dir={roots[0].parent}", "--set")
    return replace(
        alone, command=(*command, f"base={base}"), body=_in_turn([root.name for root in roots])
    )


def _in_turn(names: list[str]) -> Callable[[str], dict[str, Any]]:
    following = itertools.cycle(names)
    return lambda text: {"text": text, "model": next(following)}


def _measure(contender: Contender, tenants: int, seconds: float) -> list[Record]:
    texts = read_texts()
    runs = []
    with servers.running(contender) as server:
        # A tenant is loaded when it is first asked.
        asyncio.run(load(server.endpoint, 1, texts, tenants, LOADING_SECONDS))
        for clients in CLIENTS:
            work = measure(contender.name, server.endpoint, clients, texts, MOST, seconds)
            figures = asdict(asyncio.run(work))
            runs.append({**figures, "memory_mb": server.memory_mb()})
    return runs


def make_table(record: Record) -> Table:
    """One row for each server and number of clients."""
    header = ["server", "clients", "requests/s", "p50, ms", "p99, ms", "failed", "memory, MB"]
    rows = []
    for run in record["runs"]:
        rows.append(
            [
                run["server"],
                str(run["clients"]),
                f"{run['requests_per_second']:,.0f}",
                f"{run['p50_ms']:.0f}",
                f"{run['p99_ms']:.0f}",
                str(run["errors"]),
                f"{run['memory_mb']:,.0f}",
            ]
        )
    note = "Each request is one sentence, for the next tenant."
    return Table(f"{record['tenants']} tenants of {record['model']}", header, rows, note)


if __name__ == "__main__":
    cli.run(main)
