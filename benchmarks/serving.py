"""Requests a second and latency of the API, with each runtime, beside a naive app with the same weights.

python -m benchmarks.serving --model-dir artifacts/models/quickstart
python -m benchmarks.serving --model-dir artifacts/models/quickstart --runtimes auto,onnx,torch --rounds 1

The servers run as processes on loopback; one is loaded at a time, in turn, by clients that each send the next text when
the last is answered. Each measurement is bounded in requests and in seconds. Measured besides: how long a server takes
from its start to its first answer, the memory it then holds, and what each runtime does by itself, without HTTP, in
batches. Writes tables and a JSON file.
"""

import asyncio
import contextlib
import csv
import os
import platform
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import httpx
import psutil
import typer

from bankintent import cli, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.config import RuntimeName
from bankintent.errors import ConfigError, UserError
from bankintent.inference.runtime import cores, find
from benchmarks.load import Measurement, measure

TEXTS = Path(__file__).parents[1] / "data" / "bundled" / "sentences.csv"
NAIVE = "naive"
START_SECONDS = 180
COMPARED = 100
"""Texts on which the servers must nearly agree: else they do not serve the same model."""
BATCHES = (8, 32)
"""Sentences in a batch where a runtime is measured by itself."""


@dataclass(frozen=True)
class Server:
    """A server as it stands before it is loaded."""

    name: str
    port: int
    runtime: str
    start_seconds: float
    """From the start of its process to its first answer."""
    memory_mb: float
    """Resident memory after that answer."""


@dataclass(frozen=True)
class Bulk:
    """What a runtime does without HTTP: the shortest sentences first, tokens made before the clock starts."""

    runtime: str
    batch: int
    sentences_per_second: float


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    runtimes: Annotated[str, typer.Option(help=f"Of {', '.join(get_args(RuntimeName))}.")] = "auto,torch",
    clients: Annotated[
        list[int] | None, typer.Option("--clients", help="Repeatable.", show_default="1 8 32 128")
    ] = None,
    requests: Annotated[int, typer.Option(help="Most requests in one measurement.")] = 4000,
    seconds: Annotated[float, typer.Option(help="Most seconds in one measurement.")] = 20,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind, servers in turn; the median is shown.")] = 3,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path("artifacts/benchmarks/serving.json"),
) -> None:
    """Measure all servers in one run, print tables and write the figures."""
    names = runtimes.split(",")
    if unknown := set(names) - set(get_args(RuntimeName)):
        raise ConfigError(f"no runtime is called {', '.join(unknown)}", f"Name {', '.join(get_args(RuntimeName))}")
    texts, checkpoint = read_texts(), open_checkpoint(model_dir)
    bulk = [figure for name in names for figure in measure_bulk(model_dir, name, texts[:2000], rounds)]
    measured: list[Measurement] = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(name, checkpoint.model.resolve())) for name in [NAIVE, *names]]
        agreement = {server.name: agree(servers[0], server, texts[:COMPARED]) for server in servers[1:]}
        for number in clients or [1, 8, 32, 128]:
            for _ in range(rounds):
                for server in servers:
                    work = measure(server.name, server.port, number, texts, requests, seconds)
                    measured.append(asyncio.run(work))
    figures = {
        "model": {"name": checkpoint.name, "parity": (checkpoint.manifest or {}).get("parity")},
        "machine": machine(),
        "servers": [asdict(server) for server in servers],
        "agreement_with_naive": agreement,
        "bulk": [asdict(one) for one in bulk],
        "measurements": [asdict(one) for one in measured],
    }
    files.write_text(output, files.json_text(figures))
    cli.print_table(f"{checkpoint.name}: servers", *server_table(servers, bulk))
    cli.print_table("requests/s, latency in ms, times the naive app's rate", *load_table(measured))
    cli.say(f"Written to {cli.show_path(output)}.")


def read_texts() -> list[str]:
    """The sentences of the bundled dataset, shuffled the same way each time."""
    with TEXTS.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    random.Random(6).shuffle(texts)
    return texts


def measure_bulk(model_dir: Path, name: str, texts: list[str], rounds: int) -> list[Bulk]:
    """Sentences a second at each size of batch, a thread for each core; the best round."""
    model = find(model_dir, name, cores(), workers=cores())()  # type: ignore[arg-type]
    items = sorted(model.tokenize(texts), key=len)
    found = []
    for size in BATCHES:
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        with ThreadPoolExecutor(model.workers) as pool:
            list(pool.map(model.logits, batches[::20]))
            took = [timed(lambda: list(pool.map(model.logits, batches))) for _ in range(rounds)]  # noqa: B023
        found.append(Bulk(name, size, len(items) / min(took)))
    return found


def timed(work: Any) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextlib.contextmanager
def running(name: str, model: Path) -> Iterator[Server]:
    """Run one server on a free port until the block ends; all get the same weights and a thread for each core."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m"]
    if name == NAIVE:
        command += ["uvicorn", "benchmarks.naive_app:app", "--log-level", "error", "--port", str(port)]
    else:
        command += ["backend", "--port", str(port), "--set", f"runtime={name}", "--model-dir", str(model)]
    env = {**os.environ, "MODEL_DIR": str(model), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        wait(process, port)
        took, memory = time.perf_counter() - started, psutil.Process(process.pid).memory_info().rss / 2**20
        shown = "pipeline" if name == NAIVE else httpx.get(f"http://127.0.0.1:{port}/info").json()["runtime"]
        yield Server(name, port, shown, took, memory)
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
        time.sleep(0.02)
    raise UserError("a server of the benchmark did not start", "Start it by itself to see why")


def agree(naive: Server, ours: Server, texts: list[str]) -> float:
    """Share of the texts to which both give the same label; UserError below 0.9."""
    same = 0
    for text in texts:
        labels = set()
        for server in (naive, ours):
            body = httpx.post(f"http://127.0.0.1:{server.port}/predict/", json={"text": text}, timeout=30).json()
            labels.add((body[0] if isinstance(body, list) else body)["label"])
        same += len(labels) == 1
    if same < 0.9 * len(texts):
        raise UserError(f"{naive.name} and {ours.name} give different labels", "Check that both serve the same weights")
    return same / len(texts)


def server_table(servers: list[Server], bulk: list[Bulk]) -> tuple[list[str], list[list[str]]]:
    """What each server is, what it takes to start it, and what its runtime does by itself."""
    rates = {(one.runtime, one.batch): f"{one.sentences_per_second:.0f}" for one in bulk}
    rows = [
        [
            s.name,
            s.runtime,
            f"{s.start_seconds:.1f}",
            f"{s.memory_mb:.0f}",
            *(rates.get((s.name, b), "") for b in BATCHES),
        ]
        for s in servers
    ]
    return ["server", "runtime", "start s", "MB", *(f"bulk/s, {batch}" for batch in BATCHES)], rows


def load_table(measured: list[Measurement]) -> tuple[list[str], list[list[str]]]:
    """One row for each number of clients and server: its median round, and how many times faster it is."""
    rows = []
    for clients, server in dict.fromkeys((m.clients, m.server) for m in measured):
        ours, naive = (median([m for m in measured if (m.clients, m.server) == (clients, s)]) for s in (server, NAIVE))
        failed = f" ({ours.errors} failed)" if ours.errors else ""
        rate = f"{ours.requests_per_second:.0f}{failed}"
        times = f"{ours.requests_per_second / naive.requests_per_second:.1f}"
        rows.append([str(clients), server, rate, f"{ours.p50_ms:.1f}", f"{ours.p99_ms:.1f}", times])
    return ["clients", "server", "requests/s", "p50", "p99", "times"], rows


def median(rounds: list[Measurement]) -> Measurement:
    """The round with the median rate (the lower of two)."""
    return sorted(rounds, key=lambda m: m.requests_per_second)[(len(rounds) - 1) // 2]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    from importlib.metadata import PackageNotFoundError, version

    libraries = {}
    for name in ("torch", "transformers", "onnxruntime", "openvino", "tokenizers", "fastapi", "uvicorn"):
        with contextlib.suppress(PackageNotFoundError):
            libraries[name] = version(name)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": cores(),
        "machine": platform.machine(),
        "processor": processor(),
        "python": platform.python_version(),
        "libraries": libraries,
    }


def processor() -> str:
    """The name of the CPU, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    cli.run(main)
