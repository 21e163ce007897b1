"""The Gradio page: one message, a table of messages, the model card.

Texts and labels go only into components that show text, and into HTML that is rendered from
templates which escape them. Gradio's own HTML and Markdown components would run scripts and fetch
images, and so would its messages. The model card is HTML of a renderer whose output can do neither.
"""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from bankintent import ports
from bankintent.config import FrontendConfig
from bankintent.gradio_app.card_tab import add_card_tab
from bankintent.gradio_app.client import Client
from bankintent.gradio_app.message_tab import add_message_tab
from bankintent.gradio_app.table_tab import add_table_tab
from bankintent.gradio_app.upload_limit import UploadLimit

HERE = Path(__file__).parent

MOST_WAITING = 64
"""Most calls that wait; Gradio's queue has no limit by default."""

MOST_AT_ONCE = 8
"""Most calls of one kind at the same time: Gradio would run one, but here the API does the work."""

NO_PORT = "Cannot find empty port"
"""What Gradio says where it cannot open the port that it was told."""


def build(
    client: Client, settings: FrontendConfig, examples: Sequence[str], scratch: Path
) -> gr.Blocks:
    """The page; the API is not called until someone opens it. Its files go to `scratch`."""
    with gr.Blocks(title="bankintent", analytics_enabled=False) as page:
        gr.Markdown("# What is this message about?", elem_id="title")
        with gr.Tab("One message"):
            add_message_tab(page, client, settings.top_k, examples)
        with gr.Tab("A table"):
            add_table_tab(client, settings, scratch)
        with gr.Tab("The model"):
            add_card_tab(page, client, scratch)
    return page


def launch(page: gr.Blocks, settings: FrontendConfig, scratch: Path) -> None:
    """Serve the page until the process ends; it loads nothing from other servers.

    Raises UserError where the port is in use.
    """
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=MOST_AT_ONCE)
    limit = Middleware(UploadLimit, folder=scratch, max_bytes=settings.max_file_mb << 20)
    try:
        _serve(page, settings, {"middleware": [limit]})
    except OSError as error:
        # Gradio names neither the cause nor the option.
        if NO_PORT not in str(error):
            raise
        in_use = OSError(errno.EADDRINUSE, "in use")
        raise ports.refused(in_use, settings.host, settings.port) from None
    finally:
        # Before its files go: an upload would make the folder again.
        page.close(verbose=False)


def _serve(page: gr.Blocks, settings: FrontendConfig, app_kwargs: dict[str, Any]) -> None:
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        root_path=settings.root_path.rstrip("/") or None,
        # A shared page would be public, through a tunnel of Gradio's.
        share=False,
        max_file_size=f"{settings.max_file_mb}mb",
        footer_links=[],
        theme=make_theme(),
        css_paths=HERE / "page.css",
        head=_script(),
        ssr_mode=False,
        app_kwargs=app_kwargs,
        quiet=True,
    )


def make_theme() -> gr.themes.Base:
    """The look of the page, with buttons that are dark enough for their white text."""
    # Unlike other themes, this one fetches no fonts.
    theme = gr.themes.Default(primary_hue="blue")
    return theme.set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )


def _script() -> str:
    """The page's own script, as an element of its head."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return f"<script>{script}</script>"
