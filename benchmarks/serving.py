"""Requests a second and latency of the API beside a naive app with the same weights, at 1, 8, 32 and 128 clients.

python -m benchmarks.serving --model-dir artifacts/models/quickstart

Both servers run as processes on loopback; one is loaded at a time, in turn, by clients that each send the next text
when the last is answered. Each measurement is bounded in requests and in seconds. Writes a table and a JSON file.
"""

import asyncio
import contextlib
import csv
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from bankintent import cli, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.errors import UserError
from bankintent.inference import runtime

TEXTS = Path(__file__).parents[1] / "data" / "bundled" / "sentences.csv"
SERVERS = {"naive": "benchmarks.naive_app:app", "ours": "backend:app"}
START_SECONDS = 180


@dataclass(frozen=True)
class Measurement:
    """What some number of clients got from one server."""

    server: str
    clients: int
    requests: int
    errors: int
    seconds: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    clients: Annotated[
        list[int] | None, typer.Option("--clients", help="Repeatable.", show_default="1 8 32 128")
    ] = None,
    requests: Annotated[int, typer.Option(help="Most requests in one measurement.")] = 2000,
    seconds: Annotated[float, typer.Option(help="Most seconds in one measurement.")] = 20,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind, servers in turn; the median is shown.")] = 3,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path("artifacts/benchmarks/serving.json"),
) -> None:
    """Measure both servers in one run, print a table and write the figures."""
    texts = read_texts()
    model = open_checkpoint(model_dir).model.resolve()
    measured: list[Measurement] = []
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(running(app, model)) for name, app in SERVERS.items()}
        require_same_answers(ports, texts[:20])
        for number in clients or [1, 8, 32, 128]:
            for _ in range(rounds):
                for name, port in ports.items():
                    measured.append(asyncio.run(measure(name, port, number, texts, requests, seconds)))
    files.write_text(output, files.json_text({"machine": machine(), "measurements": [asdict(m) for m in measured]}))
    header, rows = table(measured)
    cli.print_table(f"{model_dir.name}: requests/s, latency in ms", header, rows)
    cli.say(f"Written to {cli.show_path(output)}.")


def read_texts() -> list[str]:
    """The sentences of the bundled dataset, shuffled the same way each time."""
    import random

    with TEXTS.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    random.Random(6).shuffle(texts)
    return texts


@contextlib.contextmanager
def running(app: str, model: Path) -> Iterator[int]:
    """Run one server on a free port until the block ends; both get the model's plain folder and the same threads."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "error"]
    env = {**os.environ, "MODEL_DIR": str(model), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        wait(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Return when the server answers a prediction."""
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if httpx.post(f"http://127.0.0.1:{port}/predict/", json={"text": "a"}, timeout=30).status_code == 200:
                return
        time.sleep(0.2)
    raise UserError("a server of the benchmark did not start", "Start it by itself to see why")


def require_same_answers(ports: dict[str, int], texts: list[str]) -> None:
    """UserError where the two servers do not agree: then they do not serve the same model."""
    for text in texts:
        labels = set()
        for port in ports.values():
            body = httpx.post(f"http://127.0.0.1:{port}/predict/", json={"text": text}, timeout=30).json()
            labels.add((body[0] if isinstance(body, list) else body)["label"])
        if len(labels) > 1:
            raise UserError("the two servers give different labels", "Check that both serve the same weights")


async def measure(name: str, port: int, clients: int, texts: list[str], most: int, seconds: float) -> Measurement:
    """Load one server with some clients, after a short warm-up that is not counted."""
    await load(port, clients, texts, 4 * clients, seconds)
    started = time.perf_counter()
    latencies, errors = await load(port, clients, texts, most, seconds)
    took = time.perf_counter() - started
    cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [latencies[0]] * 99
    rate = len(latencies) / took
    return Measurement(name, clients, len(latencies), errors, took, rate, 1000 * cuts[49], 1000 * cuts[98])


async def load(port: int, clients: int, texts: list[str], most: int, seconds: float) -> tuple[list[float], int]:
    """Latencies in seconds of the requests that were answered, and the number that failed."""
    latencies: list[float] = []
    errors = 0
    queue = iter(range(most))
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in queue:
            started = time.perf_counter()
            if started > end:
                break
            if await ask(reader, writer, texts[number % len(texts)]) == 200:
                latencies.append(time.perf_counter() - started)
            else:
                errors += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(clients)))
    if not latencies:
        raise UserError(f"all {errors} requests failed", "Start the server by itself to see why")
    return latencies, errors


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> int:
    """One request on a kept connection, written by hand: a client library would use as much CPU as the servers."""
    body = json.dumps({"text": text}).encode()
    head = (
        f"POST /predict/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])


def table(measured: list[Measurement]) -> tuple[list[str], list[list[str]]]:
    """One row for each number of clients: the median round of each server, and how many times faster ours is."""
    header = ["clients", *(f"{name} {what}" for name in SERVERS for what in ("req/s", "p50", "p99")), "times"]
    rows = []
    for clients in dict.fromkeys(m.clients for m in measured):
        naive, ours = (median([m for m in measured if (m.server, m.clients) == (name, clients)]) for name in SERVERS)
        times = ours.requests_per_second / naive.requests_per_second
        rows.append([str(clients), *cells(naive), *cells(ours), f"{times:.1f}"])
    return header, rows


def cells(measurement: Measurement) -> list[str]:
    """Rate and latencies; failed requests are named where there are any."""
    failed = f" ({measurement.errors} failed)" if measurement.errors else ""
    rate = f"{measurement.requests_per_second:.0f}{failed}"
    return [rate, f"{measurement.p50_ms:.0f}", f"{measurement.p99_ms:.0f}"]


def median(rounds: list[Measurement]) -> Measurement:
    """The round with the median rate (the lower of two)."""
    return sorted(rounds, key=lambda m: m.requests_per_second)[(len(rounds) - 1) // 2]


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("torch", "transformers", "fastapi", "uvicorn")}
    return {
        "cores": runtime.cores(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **libraries,
    }


if __name__ == "__main__":
    cli.run(main)
