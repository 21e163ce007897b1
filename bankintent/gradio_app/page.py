"""The Gradio page: one sentence, a CSV, the model card. Texts and labels only go where Gradio shows them as text.

Of Gradio's components HTML and Markdown run or fetch what they are given; here only the model card goes into one, made
by a renderer that lets nothing through. Problems are shown in text boxes, since Gradio's own messages render HTML.
"""

import socket
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from bankintent.config import FrontendConfig
from bankintent.errors import UserError
from bankintent.gradio_app import upload as tables
from bankintent.gradio_app.client import Client, Trouble
from bankintent.serving.page.card import PLOTS, to_html

SHOWN_ROWS = 20
SHOWN_CHARS = 120
CSS = """
.gradio-container { max-width: 68rem !important; width: 100%; margin: 0 auto !important; }
#intents h2 { font-size: 1.3rem; overflow-wrap: anywhere; }
#intents dt { min-width: 0; overflow-wrap: anywhere; } #intents dd { flex-shrink: 0; }
.card table { border-collapse: collapse; } .card thead:not(:has(th:not(:empty))) { display: none; }
.card td, .card th {
  padding: 0.25rem 1rem 0.25rem 0 !important;
  border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important;
}
.card pre { overflow-x: auto; padding: 0.75rem; background: var(--background-fill-secondary); }
"""


def build(client: Client, settings: FrontendConfig, scratch: Path) -> gr.Blocks:
    """The page; nothing is asked of the API until someone opens it. Files that it makes go to `scratch`."""
    with gr.Blocks(title="bankintent", analytics_enabled=False) as page:
        gr.Markdown("# What is this message about?")
        with gr.Tab("One message"):
            add_message_tab(client, settings)
        with gr.Tab("A CSV file"):
            add_table_tab(client, settings, scratch)
        with gr.Tab("The model"):
            add_card_tab(client, page, scratch)
    return page


def add_message_tab(client: Client, settings: FrontendConfig) -> None:
    """A text box, examples, and the top intents as bars."""

    def ask(text: str) -> tuple[dict[str, float] | None, str]:
        if not text.strip():
            return None, "Type a message first."
        try:
            answer = client.predict(text, settings.top_k)
        except Trouble as trouble:
            return None, str(trouble)
        cut = (
            " The message is longer than the model reads; its end was not considered."
            if answer.truncated
            else ""
        )
        return answer.scores, f"Answered in {answer.milliseconds:.0f} ms.{cut}"

    with gr.Row():
        with gr.Column():
            hint = "For example: my card has not arrived yet"
            text = gr.Textbox(
                label="Message", placeholder=hint, lines=4, elem_id="message", autofocus=True
            )
            button = gr.Button("Find the intent", variant="primary", elem_id="ask")
            shelf = gr.Column()
        with gr.Column():
            intents = gr.Label(label="Intents", num_top_classes=settings.top_k, elem_id="intents")
            status = gr.Textbox(label="Status", interactive=False, elem_id="status")
    gr.on([button.click, text.submit], ask, text, [intents, status], api_visibility="private")
    with shelf:
        gr.Examples(
            [[example] for example in settings.examples],
            inputs=[text],
            outputs=[intents, status],
            fn=ask,
            run_on_click=True,
            cache_examples=False,
            api_visibility="private",
        )


def add_table_tab(client: Client, settings: FrontendConfig, scratch: Path) -> None:
    """A file to upload, the same file with predictions to download."""

    def score(upload: str | None, progress: gr.Progress = gr.Progress()) -> tuple[Any, Any, str]:  # noqa: B008 (Gradio's way)
        if upload is None:
            return None, None, "Choose a CSV file first."
        source = Path(upload)
        target = Path(tempfile.mkdtemp(dir=scratch)) / f"{source.stem}-predictions.csv"
        try:
            table = tables.read(source, settings.max_rows)
            rows = tables.score(
                client, table, target, lambda share: progress(share, desc="Predicting")
            )
        except Trouble as trouble:
            return None, None, str(trouble)
        preview = [[row[table.column][:SHOWN_CHARS], *row[-3:]] for row in rows[:SHOWN_ROWS]]
        done = sum(1 for row in rows if row[-3])
        return str(target), preview, f"{done:,} of {len(rows):,} rows predicted."

    names = ", ".join(tables.TEXT_COLUMNS)
    upload = gr.File(
        label=f"CSV with a column named one of: {names}",
        file_types=[".csv", ".tsv"],
        elem_id="upload",
    )
    button = gr.Button("Predict", variant="primary", elem_id="predict")
    status = gr.Textbox(label="Status", interactive=False, elem_id="table-status")
    download = gr.File(label="With predictions", interactive=False, elem_id="download")
    preview = gr.Dataframe(
        headers=["message", *tables.ADDED],
        datatype="str",
        column_widths=["46%", "28%", "10%", "16%"],
        label=f"The first {SHOWN_ROWS} rows",
        interactive=False,
        wrap=True,
        elem_id="preview",
    )
    button.click(
        score, upload, [download, preview, status], api_visibility="private", concurrency_limit=2
    )


def add_card_tab(client: Client, page: gr.Blocks, scratch: Path) -> None:
    """The model card and its plots, read whenever the page is opened."""

    def show() -> list[Any]:
        try:
            facts = client.card()
            pictures = [fetch(name, facts["plots"].get(name)) for name in PLOTS]
        except Trouble as trouble:
            return ["", str(trouble), *(gr.Image(visible=False) for _ in PLOTS)]
        return [
            to_html(facts["markdown"]),
            f"Model {facts['name']}, version {facts['version']}",
            *pictures,
        ]

    def fetch(name: str, address: str | None) -> gr.Image:
        if address is None:
            return gr.Image(visible=False)
        file = scratch / f"{name}.png"
        file.write_bytes(client.plot(address))
        return gr.Image(str(file), visible=True)

    status = gr.Textbox(label="Status", interactive=False, elem_id="card-status")
    card = gr.HTML(elem_id="card", elem_classes="card")
    images = [
        gr.Image(
            label=title,
            format="png",
            buttons=[
                "download",
                "fullscreen",
            ],  # without a button that shares with a site elsewhere
            interactive=False,
            visible=False,
            elem_id=f"plot-{name}",
        )
        for name, title in PLOTS.items()
    ]
    page.load(show, None, [card, status, *images], api_visibility="private")


def launch(page: gr.Blocks, settings: FrontendConfig) -> None:
    """Serve the page until the process is told to end: on loopback, bounded, with nothing fetched from outside."""
    with socket.socket() as probe:
        if probe.connect_ex((settings.host, settings.port)) == 0:
            raise UserError(f"port {settings.port} is in use", "Name another one with --port")
    page.queue(max_size=64, default_concurrency_limit=8)
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        share=False,
        max_file_size=f"{settings.max_file_mb}mb",
        footer_links=[],
        theme=gr.themes.Default(primary_hue="blue"),
        css=CSS,
        ssr_mode=False,
        quiet=True,
    )
