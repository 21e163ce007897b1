"""An API of one's own: started as a child process, waited for, and ended with its parent."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bankintent.errors import UserError
from bankintent.gradio_app.client import Client

START_SECONDS = 180
END_SECONDS = 20


@contextlib.contextmanager
def own_api(config: Path | None, model_dir: Path | None) -> Iterator[str]:
    """Run `python -m backend` on a free loopback port while the block lasts and give its address.

    Its messages go to this process's standard error. UserError where it ends before it is ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "backend", "--port", str(port), "--set", "host=127.0.0.1"]
    command += ["--config", str(config)] if config else []
    command += ["--model-dir", str(model_dir)] if model_dir else []
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        wait_until_ready(process, url := f"http://127.0.0.1:{port}")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Return when the API takes texts; UserError where it has ended or takes too long."""
    client = Client(url, os.environ.get("BANKINTENT_API_KEY"), seconds=5)
    end = time.monotonic() + START_SECONDS
    while not client.is_ready():
        if process.poll() is not None:
            raise UserError("the API of this page did not start", "Its own message stands above")
        if time.monotonic() > end:
            raise UserError(
                f"the API of this page was not ready after {START_SECONDS} s",
                "Start it by itself first",
            )
        time.sleep(0.2)
