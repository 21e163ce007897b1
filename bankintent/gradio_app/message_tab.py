"""The tab for one message: a text box, the likeliest intents as bars, examples to click."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from bankintent.gradio_app.client import Client, Trouble
from bankintent.gradio_app.render import LIVE, note, problem, render
from bankintent.gradio_app.why import add_why
from bankintent.serving.page.wording import placeholder
from bankintent.texts import is_blank


def add_message_tab(page: gr.Blocks, client: Client, top_k: int, examples: Sequence[str]) -> None:
    """A text box, the likeliest intents as bars, and examples to click."""

    def predict(text: str) -> str:
        return predict_message(client, text, top_k)

    with gr.Row():
        with gr.Column():
            text = gr.Textbox(label="Message", lines=3, elem_id="message", autofocus=True)
            button = gr.Button("Find the intent", variant="primary", elem_id="ask")
        with gr.Column():
            answer = gr.HTML(elem_id="answer", elem_classes="answer", js_on_load=LIVE)
            add_why(client, text, answer)
            policy = gr.HTML(elem_id="policy", elem_classes="answer")

    # Private: Gradio would otherwise offer each function of the page as an API.
    button.click(predict, text, answer, api_visibility="private")
    if examples:
        gr.Examples(
            [[example] for example in examples],
            inputs=[text],
            outputs=[answer],
            fn=predict,
            run_on_click=True,
            # To fill the cache, Gradio would call the API before the page opens.
            cache_examples=False,
            api_visibility="private",
        )

    def show_hint() -> Any:
        return gr.Textbox(placeholder=find_hint(client, examples))

    def show_policy() -> str:
        return describe_policy(client)

    page.load(show_hint, None, text, api_visibility="private")
    page.load(show_policy, None, policy, api_visibility="private")


def predict_message(client: Client, text: str, top_k: int) -> str:
    """The likeliest intents of a message, or the reason why there are none, as HTML."""
    if is_blank(text):
        return problem("Type a message first.")

    try:
        prediction = client.predict(text, top_k)
        decision = prediction.decision
        # Their number is a part of a refusal alone.
        intents = [] if decision.is_answer else client.info().get("labels", [])
    except Trouble as trouble:
        return problem(str(trouble))

    return render(
        "answer.html",
        decision=decision.verdict,
        reason=decision.reason,
        close_to=decision.close_to,
        count=len(intents),
        top_k=prediction.top_k,
        truncated=prediction.truncated,
        milliseconds=prediction.milliseconds,
    )


def describe_policy(client: Client) -> str:
    """A line for a model that refuses nothing, as HTML; nothing for one that has a policy."""
    try:
        info = client.info()
    except Trouble:
        # The message of the first answer says what is wrong.
        return ""
    return "" if info.get("policy") else note("This model has no policy: it answers everything.")


def find_hint(client: Client, examples: Sequence[str]) -> str:
    """The placeholder of the message box: an example, or names of the model's intents."""
    if examples:
        return f"For example: {examples[0]}"

    try:
        return placeholder(client.info().get("labels", []))
    except Trouble:
        # The message of the first answer says what is wrong.
        return placeholder(())
