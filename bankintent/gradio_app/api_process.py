"""An API that the Gradio page starts as a child process, waits for, and ends."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bankintent.api_key import read_key
from bankintent.errors import UserError
from bankintent.gradio_app.client import Client
from bankintent.process import bound_command, free_port

START_SECONDS = 180
"""Longest wait until the API is ready; loading a large model takes a minute or two."""

END_SECONDS = 20
"""Longest wait for the API to end before it is killed."""


@contextlib.contextmanager
def own_api(config: Path | None, model_dir: Path | None) -> Iterator[str]:
    """Run the command `serve` on a free loopback port during the block, and yield its address.

    Its messages go to this process's standard error. Raises UserError where it does not become
    ready.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # The end of its standard input tells the child that this process is gone.
    api = subprocess.Popen(_api_command(port, config, model_dir), stdin=subprocess.PIPE)

    try:
        wait_until_ready(api, url)
        yield url
    finally:
        _end(api)


def wait_until_ready(api: "subprocess.Popen[bytes]", url: str) -> None:
    """Return when the API takes texts. Raises UserError where it has ended or takes too long."""
    client = Client(url, read_key(), seconds=5)
    deadline = time.monotonic() + START_SECONDS

    while not client.is_ready():
        if api.poll() is not None:
            raise UserError("the API of this page did not start", "Its own message is above")

        if time.monotonic() > deadline:
            raise UserError(
                f"the API of this page was not ready after {START_SECONDS} s",
                "Start it by itself first",
            )

        time.sleep(0.2)


def _api_command(port: int, config: Path | None, model_dir: Path | None) -> list[str]:
    # Only the page calls this API, so it listens on loopback even if the config names another host.
    options = ["--port", str(port), "--set", "host=127.0.0.1"]
    if config:
        options += ["--config", str(config)]
    if model_dir:
        options += ["--model-dir", str(model_dir)]
    return bound_command("bankintent", ["serve", *options])


def _end(api: "subprocess.Popen[bytes]") -> None:
    api.terminate()
    try:
        api.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        api.kill()
        api.wait()
