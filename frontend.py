"""A Gradio page over the API: one message, a table of messages, the model card.

python -m frontend --model-dir artifacts/models/quickstart
python -m frontend --backend-url http://127.0.0.1:8000
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bankintent import cli, console
from bankintent.config import FrontendConfig
from bankintent.configfile import load


def main(
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

    # Uploads and scored files hold users' texts: they go when the page ends.
    with tempfile.TemporaryDirectory(prefix="bankintent-") as scratch:
        serve_page(settings, Path(scratch))


def serve_page(settings: FrontendConfig, scratch: Path) -> None:
    """Serve the page with the API that the settings name; without one, start an API first."""
    # Gradio reads these when it is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(scratch)

    # Late imports: Gradio takes seconds, and a wrong config answers at once.
    from bankintent.gradio_app import page as gradio_page
    from bankintent.gradio_app.api_process import own_api
    from bankintent.gradio_app.client import Client
    from bankintent.gradio_app.examples import find_examples

    examples = find_examples(settings)
    api: contextlib.AbstractContextManager[str]
    if settings.backend_url:
        api = contextlib.nullcontext(settings.backend_url)
    else:
        api = own_api(settings.serve_config, settings.model_dir)

    with api as url:
        client = Client(url, os.environ.get("BANKINTENT_API_KEY"))
        page = gradio_page.build(client, settings, examples, scratch)
        address = f"http://{settings.host}:{settings.port}"
        console.say(f"The page is at {address} and asks the API at {url}. Ctrl+C ends it.")
        gradio_page.launch(page, settings)


if __name__ == "__main__":
    cli.run(main)
