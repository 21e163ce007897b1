"""A Gradio page over the API: one message, a table of messages, the model card.

python -m frontend --model-dir artifacts/models/quickstart
python -m frontend --backend-url http://127.0.0.1:8000
"""

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli, console, distribution, ports
from bankintent.api_key import read_key
from bankintent.config import FrontendConfig
from bankintent.configfile import load


def page(
    config: Annotated[
        Path | None,
        cli.config_option(help="The page's settings; defaults without it."),
    ] = None,
    backend_url: Annotated[
        str | None,
        typer.Option("--backend-url", help="A running API; without it the page starts one itself."),
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option(
            "--model-dir",
            help="Model of the API that the page starts.",
            show_default="MODEL_DIR",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", help="Port to listen on.", show_default="7860"),
    ] = None,
    overrides: cli.Overrides = None,
) -> None:
    """Open a page on loopback that talks to the API over HTTP, until Ctrl+C."""
    settings = load(
        FrontendConfig,
        config,
        overrides or (),
        backend_url=backend_url,
        model_dir=model_dir,
        port=port,
    )

    end_on_signals()
    serve_page(settings)


def end_on_signals() -> None:
    """End this process in order on SIGTERM and SIGHUP: by default they would leave files behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup SIGHUP is ignored already, and stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _exit_on_signal)


def _exit_on_signal(number: int, frame: object) -> None:
    # A second one would cut the clearing up short.
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    # The exit code that a shell reports for a process that a signal ended.
    sys.exit(128 + number)


def serve_page(settings: FrontendConfig) -> None:
    """Serve the page with the API that the settings name; without one, start an API first."""
    # It is imported when the API is there.
    distribution.require("gradio", what="the page")
    # Before the API, whose model may take long to load.
    ports.require_free(settings.host, settings.port)
    # Late imports: Gradio takes seconds, and a wrong config answers at once.
    from bankintent.gradio_app.api_process import own_api
    from bankintent.gradio_app.examples import find_examples
    from bankintent.gradio_app.uploads import own_folder, remove_leftovers

    # Also where the API does not start.
    remove_leftovers()
    examples = find_examples(settings)
    api: contextlib.AbstractContextManager[str]
    if settings.backend_url:
        api = contextlib.nullcontext(settings.backend_url)
    else:
        api = own_api(settings.serve_config, settings.model_dir)

    # Uploads and scored files hold users' texts: they go as soon as the page ends.
    with api as url, own_folder() as scratch:
        open_page(settings, url, examples, scratch)


def open_page(settings: FrontendConfig, url: str, examples: list[str], scratch: Path) -> None:
    """Serve the page over a running API, with its files in `scratch`, until it is ended."""
    # Gradio reads these when it is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(scratch)
    # What an upload leaves while it arrives goes with the rest.
    tempfile.tempdir = str(scratch)

    from bankintent.gradio_app import page as gradio_page
    from bankintent.gradio_app.client import Client

    client = Client(url, read_key())
    page = gradio_page.build(client, settings, examples, scratch)
    address = f"http://{settings.host}:{settings.port}"
    console.say(f"The page is at {address} and asks the API at {url}. Ctrl+C ends it.")
    gradio_page.launch(page, settings, scratch)
