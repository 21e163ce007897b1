"""The tab of the model: its card, and the plots of its evaluation."""

from pathlib import Path
from typing import Any

import gradio as gr

from bankintent import files
from bankintent.gradio_app.client import Client, Trouble
from bankintent.gradio_app.render import LIVE, note, problem
from bankintent.serving.page.card import PLOTS, to_html


def add_card_tab(page: gr.Blocks, client: Client, scratch: Path) -> None:
    """The model card and its plots, read again whenever the page is opened."""

    def show() -> list[Any]:
        return show_card(client, scratch)

    status = gr.HTML(elem_id="card-status", elem_classes="answer", js_on_load=LIVE)
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
    page.load(show, None, [status, card, *images], api_visibility="private")


def show_card(client: Client, scratch: Path) -> list[Any]:
    """The values of the card tab: a line of status, the card as HTML, an image for each plot."""
    try:
        card = client.card()
        images = [show_plot(client, name, card["plots"].get(name), scratch) for name in PLOTS]
    except Trouble as trouble:
        return [problem(str(trouble)), "", *(gr.Image(visible=False) for _ in PLOTS)]

    status = f"Model {card['name']}, version {card['version']}"
    return [note(status), to_html(card["markdown"]), *images]


def show_plot(client: Client, name: str, address: str | None, scratch: Path) -> gr.Image:
    """The plot at an address of the API; hidden where the card names none."""
    if address is None:
        return gr.Image(visible=False)

    file = scratch / f"{name}.png"
    picture = client.plot(address)
    # Two people may open the page at the same time.
    with files.staged(file) as staging:
        staging.write_bytes(picture)
    return gr.Image(str(file), visible=True)
