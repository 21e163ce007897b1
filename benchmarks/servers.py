"""Servers as processes on loopback: this project's with each runtime, the naive app, and infinity-emb from its own place.

All are given the same weights and every core. infinity-emb 0.0.78 needs older libraries, so a virtual environment apart:

python -m venv infinity
infinity/bin/pip install "infinity-emb[server,torch,optimum]==0.0.78" "optimum<2" "transformers<4.49" "datasets<4" "pyarrow<21"
infinity/bin/pip uninstall -y torchvision     # where there is one: another build than torch's breaks the import
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bankintent.errors import UserError
from benchmarks.load import Endpoint, own_body
from benchmarks.machine import ROOT

NAIVE, INFINITY, STUDENT = "naive", "infinity", "student"
START_SECONDS = 240
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Contender:
    """How a server is started and spoken to; `{port}` in the command is the port to listen on."""

    name: str
    command: tuple[str, ...]
    model: Path
    ready: str
    """Answers 200 once the server takes requests."""
    label: Callable[[Any], str]
    """The best label in the body of an answer."""
    path: str = "/predict/"
    body: Callable[[str], dict[str, Any]] = own_body


def naive(model: Path) -> Contender:
    """FastAPI around `pipeline()`, on a transformers folder."""
    command = (
        sys.executable,
        "-m",
        "uvicorn",
        "benchmarks.naive_app:app",
        "--log-level",
        "error",
        "--port",
        "{port}",
    )
    return Contender(NAIVE, command, model, "/openapi.json", lambda body: body[0]["label"])


def ours(name: str, model: Path, runtime: str) -> Contender:
    """This project's API on a bundle."""
    command = (sys.executable, "-m", "backend", "--port", "{port}", "--set", f"runtime={runtime}")
    return Contender(
        name,
        (*command, "--model-dir", str(model)),
        model,
        "/health/ready",
        lambda body: body["label"],
    )


def infinity(python: Path, model: Path) -> Contender:
    """infinity-emb's `/classify` with its torch engine in int8, on a transformers folder."""
    command = (
        str(python),
        "-m",
        "infinity_emb.cli",
        "v2",
        "--model-id",
        str(model),
        "--served-model-name",
        "model",
    )
    options = ("--engine", "torch", "--device", "cpu", "--dtype", "int8", "--no-bettertransformer")
    return Contender(
        INFINITY,
        (*command, *options, "--host", "127.0.0.1", "--port", "{port}"),
        model,
        "/health",
        lambda body: max(body["data"][0], key=lambda one: one["score"])["label"],
        "/classify",
        lambda text: {"input": [text], "model": "model"},
    )


@dataclass(frozen=True)
class Server:
    """A server that takes requests."""

    name: str
    endpoint: Endpoint
    contender: Contender
    process: psutil.Process
    ready_seconds: float
    """From the start of its process to the first 200 of its health page."""
    answer_seconds: float
    """From the start of its process to its first answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.endpoint.port}"

    def memory_mb(self) -> float:
        """Resident now, of the process and its children; what is shared with other processes counts in full."""
        found = 0
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += process.memory_info().rss
        return found / 2**20

    def cpu_seconds(self) -> float:
        """Processor seconds that the process and its children have used."""
        times = [p.cpu_times() for p in (self.process, *self.process.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    def label(self, text: str) -> str:
        """The label that it gives to a text."""
        answer = httpx.post(
            self.url + self.endpoint.path, json=self.endpoint.body(text), timeout=60
        )
        if answer.status_code != 200:
            raise UserError(
                f'the server "{self.name}" answered a text with status {answer.status_code}',
                "See its log",
            )
        return self.contender.label(answer.json())

    def runtime(self) -> str:
        """What computes."""
        if self.contender.ready != "/health/ready":
            return {NAIVE: "torch pipeline, float32", INFINITY: "torch, int8"}.get(self.name, "")
        return httpx.get(f"{self.url}/info", timeout=60).json()["runtime"]


@contextlib.contextmanager
def running(contender: Contender, **variables: str) -> Iterator[Server]:
    """Run one server on a free port until the block ends; UserError with the end of its log where it does not start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [word.replace("{port}", str(port)) for word in contender.command]
    env = {**os.environ, **ENVIRONMENT, "MODEL_DIR": str(contender.model), **variables}
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=ROOT)
        try:
            endpoint = Endpoint(port, contender.path, contender.body)
            ready = (
                _wait(process, f"http://127.0.0.1:{port}{contender.ready}", contender, log)
                - started
            )
            handle = psutil.Process(process.pid)
            server = Server(contender.name, endpoint, contender, handle, ready, 0.0)
            server.label("a")
            yield Server(
                contender.name, endpoint, contender, handle, ready, time.perf_counter() - started
            )
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str, contender: Contender, log: Any) -> float:
    """The time at which the page first answered 200."""
    end = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=30) as client:
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return time.perf_counter()
            time.sleep(0.01)
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or ["it wrote nothing"]
    raise UserError(
        f'the server "{contender.name}" did not start: {lines[-1]}',
        f"Try {' '.join(contender.command)}",
    )


def agreement(reference: Server, other: Server, texts: list[str]) -> float:
    """Share of the texts to which both give the same label."""
    return sum(reference.label(text) == other.label(text) for text in texts) / len(texts)
