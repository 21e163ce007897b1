"""The button "Why?" below the answer to a message, and what it shows."""

from typing import Any

import gradio as gr

from bankintent.gradio_app.client import Client, Trouble
from bankintent.gradio_app.render import LIVE, problem, render
from bankintent.serving.page.shading import pieces_of
from bankintent.texts import is_blank


def add_why(client: Client, text: gr.Textbox, answer: gr.HTML) -> None:
    """A button that explains the answer to the message in `text`, where the API does that."""

    def explain(message: str) -> str:
        return explain_message(client, message)

    def start_anew() -> tuple[Any, str]:
        # The reasons of an answer go with it.
        return gr.Button(visible=can_explain(client)), ""

    button = gr.Button("Why?", size="sm", elem_id="why", visible=False)
    reasons = gr.HTML(elem_id="reasons", elem_classes="answer", js_on_load=LIVE)
    button.click(explain, text, reasons, api_visibility="private")
    answer.change(start_anew, None, [button, reasons], api_visibility="private")


def can_explain(client: Client) -> bool:
    """Whether the API explains answers."""
    try:
        most = client.info()["limits"].get("max_explained", 0)
    except Trouble:
        # The message of the first answer says what is wrong.
        return False
    return isinstance(most, int | float) and most >= 1


def explain_message(client: Client, text: str) -> str:
    """Why a message gets its answer, or the reason why that is not said, as HTML."""
    if is_blank(text):
        return problem("Type a message first.")

    try:
        explanation = client.explain(text)
    except Trouble as trouble:
        return problem(str(trouble))

    return render(
        "why.html",
        label=explanation.label,
        pieces=pieces_of(text, explanation.weights),
        neighbours=explanation.neighbours,
        no_neighbours=explanation.no_neighbours,
    )
