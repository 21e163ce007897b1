"""The model card of a checkpoint and the plots of its evaluation, found beside it and made safe to show."""

import json
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml

from bankintent.bundle.layout import CARD

PLOTS = {"confusion": "Confusion matrix", "reliability": "Calibration"}
"""Files `<name>.png` of an evaluation, and what they show."""


def read_card(model: Path) -> str:
    """The card's Markdown without its front matter; one line where the folder holds none."""
    try:
        text = (model / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return f"This model has no card: its folder holds no {CARD}."
    if text.startswith("---\n") and "\n---\n" in text[4:]:
        text = text[4:].partition("\n---\n")[2]
    return text.strip() + "\n"


def find_plots(evaluation: Path, labels_hash: str) -> dict[str, Path]:
    """The plots that `python -m eval` wrote, where they are of a model with these labels."""
    try:
        result = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
        same = result["checkpoint"]["labels_hash"] == labels_hash
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    paths = {name: evaluation / f"{name}.png" for name in PLOTS} if same else {}
    return {name: path for name, path in paths.items() if path.is_file()}


def to_html(markdown: str) -> str:
    """Markdown as HTML that can neither run nor fetch anything: HTML inside is shown as text, images as their name."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule(
        "image", lambda self, tokens, index, options, env: escapeHtml(tokens[index].content)
    )
    return str(parser.render(markdown))
