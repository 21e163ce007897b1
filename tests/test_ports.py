"""A port that a server cannot have: one line before a model is loaded, and nothing is opened."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import Run

from bankintent import __main__ as verbs
from bankintent import ports
from bankintent.commands import page as page_command
from bankintent.config import FrontendConfig
from bankintent.errors import UserError
from bankintent.gradio_app import page

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("verb", ["serve", "page"])
def test_a_port_in_use_is_one_line_before_the_model_is_loaded(
    verb: str, taken: int, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The handlers would stay for the tests that follow.
    monkeypatch.setattr(page_command, "end_on_signals", lambda: None)
    # What loads a model would say that there is none.
    model = ("--model-dir", tmp_path / "none")
    command = {"serve": verbs.serve, "page": verbs.page}[verb]
    result = run(command, *model, "--port", taken)
    assert result.one_line_error() == (
        f"error: port {taken} is in use. Name another one with --port."
    )


def test_a_host_that_this_machine_is_not_is_named() -> None:
    with pytest.raises(UserError, match=r"^port 0 of 192\.0\.2\.1 cannot be used \(.*--set host="):
        ports.bind("192.0.2.1", 0)
    with pytest.raises(UserError, match=r"^port 0 of no-host\.invalid cannot be used"):
        ports.bind("no-host.invalid", 0)


def test_a_port_that_is_held_is_in_use_for_others_only_from_listening_on(taken: int) -> None:
    [held] = ports.bind(HOST, 0)
    port = held.getsockname()[1]
    with held, pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))
    ports.require_free(HOST, port)


class Blocks:
    """A page of Gradio that finds its port taken."""

    def queue(self, **_: object) -> None:
        """Nothing waits."""

    def launch(self, **options: object) -> None:
        raise OSError(f"Cannot find empty port in range: {options['server_port']}")

    def close(self, **_: object) -> None:
        """Nothing is open."""


def test_gradio_that_finds_its_port_taken_is_one_line_too(tmp_path: Path) -> None:
    settings = FrontendConfig(host=HOST, port=7999)
    with pytest.raises(UserError, match=r"^port 7999 is in use"):
        page.launch(cast(Any, Blocks()), settings, tmp_path)
