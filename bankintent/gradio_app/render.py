"""The parts of the Gradio page that it renders itself, from the templates beside this file.

Jinja escapes every text and every name. Gradio puts the result into the page as HTML, and evaluates
nothing in it.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

import bankintent.serving.page as shared_page
from bankintent.serving.page import wording

HERE = Path(__file__).parent

LIVE = "element.setAttribute('aria-live', 'polite');"
"""Script of a place for rendered parts: screen readers announce what appears there."""


def count_rows(number: int) -> str:
    """A number of rows in words."""
    return f"{number:,} row" if number == 1 else f"{number:,} rows"


# The list of intents is the one of the page at `/`.
_FOLDERS = [HERE, *map(Path, shared_page.__path__)]

_templates = Environment(
    loader=FileSystemLoader(_FOLDERS), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_templates.filters["breakable"] = wording.breakable
_templates.filters["percent"] = wording.percent
_templates.filters["rows"] = count_rows


def render(name: str, **values: Any) -> str:
    """The HTML of a template of this folder."""
    return _templates.get_template(name).render(**values)


def note(text: str) -> str:
    """A line of plain text."""
    return render("note.html", text=text, kind="note")


def problem(text: str) -> str:
    """The reason why there is no answer."""
    return render("note.html", text=text, kind="problem")
