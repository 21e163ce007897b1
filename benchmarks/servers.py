"""Servers as processes on loopback: this project's with each runtime, the naive app, infinity-emb.

All get the same weights and every core. infinity-emb 0.0.78 needs older libraries, so it has a
virtual environment of its own:

python -m venv infinity
infinity/bin/pip install "infinity-emb[server,torch,optimum]==0.0.78" "optimum<2" \
  "transformers<4.49" "datasets<4" "pyarrow<21"
infinity/bin/pip uninstall -y torchvision   # another build of it than torch's breaks the import
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from bankintent.errors import UserError
from bankintent.process import free_port
from benchmarks.load import Endpoint, own_body
from benchmarks.machine import ROOT

NAIVE = "naive"
INFINITY = "infinity"
STUDENT = "student"

START_SECONDS = 240
"""Longest wait until a server takes requests."""

END_SECONDS = 30
"""Longest wait for a server to end before it is killed."""

OWN_READINESS = "/health/ready"
"""The health page of this project's API."""

ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Contender:
    """A kind of server: its command line, in which `{port}` is replaced, and its HTTP interface."""

    name: str
    command: tuple[str, ...]
    model: Path
    ready: str
    """Path of a page that answers 200 once the server takes requests."""
    label: Callable[[Any], str]
    """The best label in the body of an answer."""
    path: str = "/predict/"
    body: Callable[[str], dict[str, Any]] = own_body


def naive(model: Path) -> Contender:
    """FastAPI around `pipeline()`, on a transformers folder."""
    app = ("-m", "uvicorn", "benchmarks.naive_app:app")
    command = (sys.executable, *app, "--log-level", "error", "--port", "{port}")
    return Contender(NAIVE, command, model, "/openapi.json", lambda body: body[0]["label"])


def ours(name: str, model: Path, runtime: str) -> Contender:
    """This project's API on a bundle."""
    app = ("-m", "backend", "--port", "{port}")
    options = ("--set", f"runtime={runtime}", "--model-dir", str(model))
    command = (sys.executable, *app, *options)
    return Contender(name, command, model, OWN_READINESS, lambda body: body["label"])


def infinity(python: Path, model: Path) -> Contender:
    """infinity-emb's `/classify` with its torch engine in int8, on a transformers folder."""
    app = ("-m", "infinity_emb.cli", "v2", "--host", "127.0.0.1", "--port", "{port}")
    weights = ("--model-id", str(model), "--served-model-name", "model")
    engine = ("--engine", "torch", "--device", "cpu", "--dtype", "int8", "--no-bettertransformer")

    def best_label(body: Any) -> str:
        best = max(body["data"][0], key=lambda answer: answer["score"])
        return str(best["label"])

    return Contender(
        INFINITY,
        (str(python), *app, *weights, *engine),
        model,
        "/health",
        best_label,
        "/classify",
        lambda text: {"input": [text], "model": "model"},
    )


@dataclass(frozen=True)
class Server:
    """A running server that takes requests."""

    name: str
    endpoint: Endpoint
    contender: Contender
    process: psutil.Process
    ready_seconds: float
    """From the start of its process to the first 200 of its health page."""
    answer_seconds: float = 0.0
    """From the start of its process to its first answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.endpoint.port}"

    def memory_mb(self) -> float:
        """Resident memory of the process and its children; what they share counts for each."""
        total = 0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 2**20

    def cpu_seconds(self) -> float:
        """Processor seconds that the process and its children have used."""
        total = 0.0
        for process in self._processes():
            times = process.cpu_times()
            total += times.user + times.system
        return total

    def label(self, text: str) -> str:
        """The label that it gives to a text."""
        url = self.url + self.endpoint.path
        answer = httpx.post(url, json=self.endpoint.body(text), timeout=60)
        if answer.status_code != 200:
            raise UserError(
                f'the server "{self.name}" answered a text with status {answer.status_code}',
                "See its log",
            )
        return self.contender.label(answer.json())

    def runtime(self) -> str:
        """The library and precision that compute."""
        if self.contender.ready == OWN_READINESS:
            info = httpx.get(f"{self.url}/info", timeout=60).json()
            return str(info["runtime"])
        others = {NAIVE: "torch pipeline, float32", INFINITY: "torch, int8"}
        return others.get(self.name, "")

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextlib.contextmanager
def running(contender: Contender) -> Iterator[Server]:
    """Run one server on a free port until the block ends.

    Raises UserError with the end of its log where it does not start.
    """
    port = free_port()
    command = [word.replace("{port}", str(port)) for word in contender.command]
    environment = {**os.environ, **ENVIRONMENT, "MODEL_DIR": str(contender.model)}

    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
        try:
            url = f"http://127.0.0.1:{port}{contender.ready}"
            ready = _wait(process, url, contender, log)
            server = Server(
                contender.name,
                Endpoint(port, contender.path, contender.body),
                contender,
                psutil.Process(process.pid),
                ready_seconds=ready - started,
            )
            server.label("a")
            yield replace(server, answer_seconds=time.perf_counter() - started)
        finally:
            _end(process)


def _wait(process: "subprocess.Popen[bytes]", url: str, contender: Contender, log: Any) -> float:
    """The time (of `perf_counter`) at which the page first answered 200."""
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=30) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return time.perf_counter()
            # Short, because the wait is part of the measured time.
            time.sleep(0.01)

    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    last_line = lines[-1] if lines else "it wrote nothing"
    raise UserError(
        f'the server "{contender.name}" did not start: {last_line}',
        f"Try {' '.join(contender.command)}",
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def agreement(reference: Server, other: Server, texts: list[str]) -> float:
    """Share of the texts to which both give the same label."""
    same = sum(reference.label(text) == other.label(text) for text in texts)
    return same / len(texts)
