"""The report of a comparison: Markdown, JSON, one HTML file and PNG plots.

The same figures give the same bytes: no file holds the time at which it was written.
"""

import base64
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Template
from markdown_it import MarkdownIt

from bankintent import console, files
from bankintent.measures import plots
from bankintent.studies.figures import CellFigures, ComparisonFigures
from bankintent.studies.plan import size_name
from bankintent.studies.recommendation import write_recommendation
from bankintent.studies.report_tables import accuracy_table
from bankintent.studies.report_text import Pictures, report_markdown

LAYOUT = files.ResultFolder("comparison report", ("report.*", "*.png"))
"""A folder that holds anything else is not replaced: it may be the user's own."""

PAGE = Path(__file__).with_name("report.html.jinja")
"""The frame of report.html: title and style around the text."""


def write_report(folder: Path, figures: ComparisonFigures) -> None:
    """Write the report folder, in the place of an earlier one."""
    with files.replacing(folder, LAYOUT) as staging:
        overviews = draw_overviews(figures, staging)
        by_intent = draw_intents(figures, staging)
        text = report_markdown(figures, overviews, by_intent)
        files.write_text(staging / "report.md", text)

        json_text = files.json_text(figures.as_json())
        files.write_text(staging / "report.json", json_text)

        page = html_page(text, staging, figures.study)
        files.write_text(staging / "report.html", page)


def print_report(figures: ComparisonFigures, folder: Path) -> None:
    """Print the accuracies, the recommendation, the largest size's verdicts, and the folder."""
    # Without macro-F1, because both would not fit a line of eighty characters.
    header, rows = accuracy_table(figures, macro_f1=False)
    title = f"{figures.study}: {figures.rows:,} {figures.split} rows"
    console.print_table(title, header, rows)

    for text in write_recommendation(figures):
        console.say(text.replace("**", ""))
    for pair in figures.pairs:
        if pair.size == figures.largest_size:
            console.say(f"- {pair.verdict}")
    console.say(
        f"Report: {console.show_path(folder)}"
        " (report.html opens by itself; report.md, report.json, plots)"
    )


def draw_overviews(figures: ComparisonFigures, folder: Path) -> Pictures:
    """Write the plots of all recipes."""
    pictures = {"accuracy.png": "Accuracy against trainable parameters"}
    _draw_accuracy(figures, folder / "accuracy.png")

    # Cells are in order of their size: where the last is of the largest, there is only one.
    if figures.cells[-1].size != figures.largest_size:
        pictures["learning-curves.png"] = "Accuracy against the number of training sentences"
        _draw_learning_curves(figures, folder / "learning-curves.png")
    return pictures


def draw_intents(figures: ComparisonFigures, folder: Path) -> Pictures:
    """Write a plot for each pair of recipes that differs in any intent."""
    pictures = {}
    for comparison in figures.intents:
        a = comparison.a
        b = comparison.b
        if not any(intent.difference for intent in comparison.intents):
            continue

        name = f"intents-{a}-{b}.png"
        pictures[name] = f"Intents in which {a} and {b} differ most"
        plots.intent_differences(comparison.intents, a, b, folder / name)
    return pictures


def _draw_accuracy(figures: ComparisonFigures, path: Path) -> None:
    """The cells of the largest size."""
    points = []
    for cell in figures.cells:
        if cell.size == figures.largest_size:
            points.append(_point(cell, cell.trainable_parameters))

    title = _accuracy_title(figures)
    if figures.largest_size != "all":
        title += f", {size_name(figures.largest_size)}"
    plots.accuracy_by_parameters(points, path, title)


def _draw_learning_curves(figures: ComparisonFigures, path: Path) -> None:
    """All cells, the smallest size first."""
    sizes = list(dict.fromkeys(str(cell.size) for cell in reversed(figures.cells)))
    points = [_point(cell, sizes.index(str(cell.size))) for cell in figures.cells]
    plots.learning_curves(points, sizes, path, _accuracy_title(figures))


def _accuracy_title(figures: ComparisonFigures) -> str:
    return f"{figures.split} accuracy with its 95 % interval over seeds"


def _point(cell: CellFigures, x: float) -> plots.Point:
    return plots.Point(cell.recipe, x, cell.accuracy.mean, cell.accuracy.interval)


def html_page(text: str, folder: Path, title: str) -> str:
    """The Markdown as one page that needs no other file: pictures inside, no scripts."""

    def picture(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        picture_bytes = (folder / token.attrs["src"]).read_bytes()
        data = base64.b64encode(picture_bytes).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(token.content)}">'

    # Tags in the name of a recipe or an intent stay text.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", picture)

    # The template escapes nothing, because the body is HTML already.
    page = Template(PAGE.read_text(encoding="utf-8"), keep_trailing_newline=True)
    return page.render(title=escape(title), body=parser.render(text))
