"""The Gradio page: one message, a CSV file, the model card.

Texts and labels go only into components that Gradio shows as text. Its HTML and Markdown components
run scripts and fetch images. The model card alone is shown as HTML, made by a renderer whose output
can do neither. Problems appear in text boxes, since Gradio's own messages render HTML.
"""

import socket
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from bankintent.config import FrontendConfig
from bankintent.corpus.columns import TEXT_COLUMNS
from bankintent.errors import UserError
from bankintent.gradio_app import upload
from bankintent.gradio_app.client import Client, Trouble
from bankintent.serving.page.card import PLOTS, to_html

PREVIEW_ROWS = 20
"""Rows of a scored file that the page shows; all of them are in the download."""

PREVIEW_CHARS = 120
"""Most characters of a message in these rows."""

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
"""Keeps long names of intents within the page, and gives the model card's tables their lines."""

MOST_WAITING = 64
"""Most calls that wait; Gradio's queue has no limit by default."""

MOST_AT_ONCE = 8
"""Most calls of one kind at the same time: Gradio would run one, but here the API does the work."""


def build(client: Client, settings: FrontendConfig, scratch: Path) -> gr.Blocks:
    """The page; the API is not called until someone opens it. Its files go to `scratch`."""
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
    """A text box, examples to click, and the likeliest intents as bars."""

    def predict(text: str) -> tuple[dict[str, float] | None, str]:
        return predict_message(client, text, settings.top_k)

    with gr.Row():
        with gr.Column():
            text = gr.Textbox(
                label="Message",
                placeholder="For example: my card has not arrived yet",
                lines=4,
                elem_id="message",
                autofocus=True,
            )
            button = gr.Button("Find the intent", variant="primary", elem_id="ask")
            # The examples are added last: they need the outputs, which the next column makes.
            shelf = gr.Column()
        with gr.Column():
            intents = gr.Label(label="Intents", num_top_classes=settings.top_k, elem_id="intents")
            status = gr.Textbox(label="Status", interactive=False, elem_id="status")

    outputs = [intents, status]
    # Private: Gradio would otherwise offer each function of the page as an API.
    gr.on([button.click, text.submit], predict, text, outputs, api_visibility="private")
    with shelf:
        gr.Examples(
            [[example] for example in settings.examples],
            inputs=[text],
            outputs=outputs,
            fn=predict,
            run_on_click=True,
            # To fill the cache, Gradio would call the API before the page opens.
            cache_examples=False,
            api_visibility="private",
        )


def predict_message(client: Client, text: str, top_k: int) -> tuple[dict[str, float] | None, str]:
    """The scores of a message by label, and a line of status; None where there is no answer."""
    if not text.strip():
        return None, "Type a message first."

    try:
        prediction = client.predict(text, top_k)
    except Trouble as trouble:
        return None, str(trouble)

    status = f"Answered in {prediction.milliseconds:.0f} ms."
    if prediction.truncated:
        status += " The message is longer than the model reads; its end was not considered."
    return prediction.scores, status


def add_table_tab(client: Client, settings: FrontendConfig, scratch: Path) -> None:
    """A file to upload, and the same file with predictions to download."""

    def score(
        source: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio finds it by this default)
    ) -> tuple[str | None, list[list[str]] | None, str]:
        if source is None:
            return None, None, "Choose a CSV file first."

        try:
            return score_file(client, Path(source), settings.max_rows, scratch, progress)
        except Trouble as trouble:
            return None, None, str(trouble)

    names = ", ".join(TEXT_COLUMNS)
    source = gr.File(
        label=f"CSV with a column named one of: {names}",
        file_types=[".csv", ".tsv"],
        elem_id="upload",
    )
    button = gr.Button("Predict", variant="primary", elem_id="predict")
    status = gr.Textbox(label="Status", interactive=False, elem_id="table-status")
    download = gr.File(label="With predictions", interactive=False, elem_id="download")
    preview = gr.Dataframe(
        headers=["message", *upload.ADDED],
        datatype="str",
        column_widths=["46%", "28%", "10%", "16%"],
        label=f"The first {PREVIEW_ROWS} rows",
        interactive=False,
        wrap=True,
        elem_id="preview",
    )
    button.click(
        score,
        source,
        [download, preview, status],
        api_visibility="private",
        # A few long files must leave the API free for single messages.
        concurrency_limit=2,
    )


def score_file(
    client: Client, source: Path, max_rows: int, scratch: Path, progress: gr.Progress
) -> tuple[str, list[list[str]], str]:
    """The path of the scored file, its first rows for the preview, and a line of status."""
    # A folder for each call: two people may upload files of the same name.
    target = Path(tempfile.mkdtemp(dir=scratch)) / f"{source.stem}-predictions.csv"

    def report(share: float) -> None:
        progress(share, desc="Predicting")

    table = upload.read_upload(source, max_rows)
    rows = upload.score_upload(client, table, target, report)
    width = len(table.header)

    preview = []
    for row in rows[:PREVIEW_ROWS]:
        message = row[table.column][:PREVIEW_CHARS]
        preview.append([message, *row[width:]])

    # The first of the added cells is the intent; a row that was not sent has none.
    num_predicted = sum(1 for row in rows if row[width])
    return str(target), preview, f"{num_predicted:,} of {len(rows):,} rows predicted."


def add_card_tab(client: Client, page: gr.Blocks, scratch: Path) -> None:
    """The model card and its plots, read again whenever the page is opened."""

    def show() -> list[Any]:
        return show_card(client, scratch)

    status = gr.Textbox(label="Status", interactive=False, elem_id="card-status")
    card = gr.HTML(elem_id="card", elem_classes="card")
    images = []
    for name, title in PLOTS.items():
        image = gr.Image(
            label=title,
            format="png",
            # Gradio's buttons without the one that publishes the picture on another site.
            buttons=["download", "fullscreen"],
            interactive=False,
            visible=False,
            elem_id=f"plot-{name}",
        )
        images.append(image)
    page.load(show, None, [card, status, *images], api_visibility="private")


def show_card(client: Client, scratch: Path) -> list[Any]:
    """The values of the card tab: the card as HTML, a line of status, an image for each plot."""
    try:
        card = client.card()
        images = [show_plot(client, name, card["plots"].get(name), scratch) for name in PLOTS]
    except Trouble as trouble:
        return ["", str(trouble), *(gr.Image(visible=False) for _ in PLOTS)]

    status = f"Model {card['name']}, version {card['version']}"
    return [to_html(card["markdown"]), status, *images]


def show_plot(client: Client, name: str, address: str | None, scratch: Path) -> gr.Image:
    """The plot at an address of the API; hidden where the card names none."""
    if address is None:
        return gr.Image(visible=False)

    file = scratch / f"{name}.png"
    file.write_bytes(client.plot(address))
    return gr.Image(str(file), visible=True)


def launch(page: gr.Blocks, settings: FrontendConfig) -> None:
    """Serve the page until the process ends; it loads nothing from other servers.

    Raises UserError where the port is in use.
    """
    # Tested first, since Gradio's own error names neither the port nor the option.
    with socket.socket() as probe:
        if probe.connect_ex((settings.host, settings.port)) == 0:
            raise UserError(f"port {settings.port} is in use", "Name another one with --port")

    page.queue(max_size=MOST_WAITING, default_concurrency_limit=MOST_AT_ONCE)
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        # A shared page would be public, through a tunnel of Gradio's.
        share=False,
        max_file_size=f"{settings.max_file_mb}mb",
        footer_links=[],
        # Unlike other themes, this one fetches no fonts.
        theme=gr.themes.Default(primary_hue="blue"),
        css=CSS,
        ssr_mode=False,
        quiet=True,
    )
