"""The model card of a checkpoint and the plots of its evaluation, safe to show in a page."""

from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml

from bankintent.bundle import inside
from bankintent.bundle.layout import CARD, METRICS
from bankintent.errors import ModelError
from bankintent.serving.page.wording import breakable

PLOTS = {
    "confusion": "Confusion matrix: the intents with most errors",
    "reliability": "Calibration",
    "risk-coverage": "Wrong answers, the surest rows first",
    "confusion-all": "Confusion matrix of all intents",
}
"""Files `<name>.png` of an evaluation, and their titles."""

FENCE = "---\n"
"""The line before and after a card's front matter."""


def read_card(model: Path) -> str:
    """The card's Markdown without its front matter; one line where the folder holds none.

    It is a regular file in the folder, or the file of a snapshot in the Hub's cache.
    """
    try:
        place = inside.hub_file(model, CARD, inside.LARGEST_CARD) or model / CARD
        text = inside.read_text(place.parent, place.name, inside.LARGEST_CARD)
    except (ModelError, OSError, UnicodeDecodeError):
        return f"This model has no card: its folder holds no {CARD}."

    if text.startswith(FENCE):
        _, fence, body = text.removeprefix(FENCE).partition(f"\n{FENCE}")
        if fence:
            text = body
    return text.strip() + "\n"


def find_plots(evaluation: Path, labels_hash: str) -> dict[str, Path]:
    """The plots that `python -m eval` wrote, if they are of a model with these labels."""
    try:
        result = inside.read_object(evaluation, METRICS)
        evaluated_hash = result["checkpoint"]["labels_hash"]
    except (ModelError, OSError, KeyError, TypeError):
        # No evaluation, or a folder of another kind: the card is shown without plots.
        return {}
    if evaluated_hash != labels_hash:
        return {}

    paths = {}
    for name in PLOTS:
        file = f"{name}.png"
        if inside.is_file(evaluation, file, inside.LARGEST_PLOT):
            paths[name] = evaluation / file
    return paths


def to_html(markdown: str) -> str:
    """Markdown as HTML that can neither run nor fetch anything.

    HTML inside it is shown as text, and an image as its name.
    """
    # The parser itself leaves links to javascript: and data: as text.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", _image_as_name)
    parser.add_render_rule("text", _breakable_text)
    parser.add_render_rule("code_inline", _breakable_code)
    html = str(parser.render(markdown))

    # A block of code scrolls where it is wider than the page, also by the keys of a keyboard.
    return html.replace("<pre>", '<pre tabindex="0">')


def _image_as_name(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return escapeHtml(tokens[index].content)


def _breakable_text(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return str(breakable(tokens[index].content))


def _breakable_code(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return f"<code>{breakable(tokens[index].content)}</code>"
