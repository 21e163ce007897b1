"""Servers as processes on loopback: started on a free port, waited for, and ended."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bankintent import process

ROOT = Path(__file__).parent.parent
START_SECONDS = 180
STOP_SECONDS = 40


@dataclass
class Server:
    """A server process on loopback."""

    url: str
    process: "subprocess.Popen[bytes]"
    log_file: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)

    def metric(self, name: str) -> float:
        """The sum of a metric's series."""
        lines = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.get("/metrics").text, re.MULTILINE)
        return sum(map(float, lines))

    def answers(self, path: str, status: int = 200) -> bool:
        return answers(self.url + path, status)

    def until(self, condition: Callable[["Server"], bool], seconds: float = START_SECONDS) -> None:
        """Wait for something that the server will do; fail with its log where it does not."""
        end = time.monotonic() + seconds
        while not condition(self):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)


def answers(url: str, status: int = 200) -> bool:
    """Whether a request of this address gets this status."""
    try:
        return httpx.get(url, timeout=60).status_code == status
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def running(
    command: list[str],
    folder: Path,
    *,
    ready: str,
    port: int | None = None,
    env: dict[str, str] | None = None,
    end: signal.Signals = signal.SIGTERM,
    whole_group: bool = False,
) -> Iterator[Server]:
    """Run a server in `folder` until the block ends; `{port}` in a word of its command is its port.

    The block begins once the path `ready` of the server answers 200. At its end the process gets
    the signal `end`; with `whole_group` what it started gets it too, as with a shell's command.
    """
    port = port or process.free_port()
    log_file = folder / "server.log"
    words = [word.replace("{port}", str(port)) for word in command]
    with log_file.open("wb") as log:
        child = subprocess.Popen(
            words,
            cwd=folder,
            env=env or environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    server = Server(f"http://127.0.0.1:{port}", child, log_file)
    try:
        server.until(lambda server: server.answers(ready))
        yield server
    finally:
        if whole_group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, end)
        else:
            child.send_signal(end)
        child.wait(STOP_SECONDS)


@contextlib.contextmanager
def serving(
    folder: Path,
    *app: str,
    ready: bool = True,
    config: dict[str, Any] | None = None,
    **variables: str,
) -> Iterator[Server]:
    """Run uvicorn on `backend:app`, or on what `app` names, until the block ends.

    The block begins when the model is loaded or, without `ready`, as soon as the process answers.
    At its end the process is killed: how it ends by itself is what some tests look at.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "serve.yaml"
    settings.write_text(json.dumps({"threads": 1, **(config or {})}))
    command = [sys.executable, "-m", "uvicorn", *(app or ("backend:app",)), "--port", "{port}"]
    # A client's pool must not meet a connection that is just closing.
    command += ["--timeout-keep-alive", "60"]
    health = "/health/ready" if ready else "/health/live"
    env = environment(SERVE_CONFIG=str(settings), **variables)
    with running(command, folder, ready=health, env=env, end=signal.SIGKILL) as server:
        yield server


def environment(**variables: str) -> dict[str, str]:
    """The environment of a server: one thread, this source tree, nothing of the caller's settings."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MODEL_DIR", "SERVE_CONFIG")
    }
    return {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
