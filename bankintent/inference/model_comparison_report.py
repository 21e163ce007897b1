"""The report of a comparison of two models: its folder, and what is printed."""

import csv
from pathlib import Path

import numpy as np

from bankintent import console, files
from bankintent.inference.evaluation_report import (
    describe_rows,
)
from bankintent.inference.labelled import EvaluationData, show_refusals
from bankintent.inference.model_comparison import (
    Answers,
    Difference,
    IntentChange,
    ModelComparison,
    ModelFigures,
)
from bankintent.measures.shares import in_points
from bankintent.texts import list_some

REPORT = files.ResultFolder("comparison of models", ("metrics.json", "report.md", "changed.csv"))
"""The files of a report: a folder that holds any other is not replaced."""

SIGNIFICANT = 0.05
"""McNemar's p below which a difference is shown."""

SHOWN_INTENTS = 5
"""Intents that are printed on either side; the report has all that changed."""

LOST = "lost"
"""A alone is right."""

WON = "won"
"""B alone is right."""

STILL_WRONG = "both wrong"

CHANGES = (LOST, WON, STILL_WRONG)
"""Kinds of a changed answer, in the order of changed.csv."""

METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
"""Metric -> its name in the table."""


def write(
    folder: Path, result: ModelComparison, data: EvaluationData, a: Answers, b: Answers
) -> None:
    """Write the report folder; an earlier report there is replaced."""
    with files.replacing(folder, REPORT) as staging:
        _write_changed(staging / "changed.csv", data, a, b)
        files.write_text(staging / "metrics.json", files.json_text(result.to_json()))
        files.write_text(staging / "report.md", _comparison_text(result, data))


def _write_changed(path: Path, data: EvaluationData, a: Answers, b: Answers) -> None:
    """The rows that the models answer differently: lost, won, both wrong; the surest of B first."""
    true = np.asarray(data.rows.labels)
    names = data.labels.names
    rows = []
    for row in np.flatnonzero(a.predicted != b.predicted).tolist():
        change = STILL_WRONG
        if a.predicted[row] == true[row]:
            change = LOST
        elif b.predicted[row] == true[row]:
            change = WON
        rows.append((CHANGES.index(change), -float(b.scores[row]), row))

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["change", "text", "label", "a", "a_score", "b", "b_score", "id"])
        for kind, _, row in sorted(rows):
            writer.writerow(
                [
                    CHANGES[kind],
                    data.rows.texts[row],
                    names[true[row]],
                    names[a.predicted[row]],
                    f"{a.scores[row]:.6f}",
                    names[b.predicted[row]],
                    f"{b.scores[row]:.6f}",
                    data.rows.ids[row],
                ]
            )


def show(result: ModelComparison, data: EvaluationData, folder: Path) -> None:
    """Print the figures, the verdict, the intents won and lost and the path of the report."""
    show_refusals(data.source)
    for letter, figures in (("A", result.a), ("B", result.b)):
        console.say(f"{letter}: {_describe_model(figures)}")

    header, body = _overview(result)
    console.print_table(describe_rows(data), header, body)
    for text in [exact_verdict(result.difference), *_comparison_notes(result)]:
        console.say(text)

    lost, won = _split_changes(result.intents)
    for title, changes in (("Intents that B loses", lost), ("Intents that B wins", won)):
        if changes:
            header, body = _changes_table(changes[:SHOWN_INTENTS])
            console.print_table(title, header, body)

    console.say(f"Report: {console.show_path(folder)} (report.md, changed.csv, metrics.json)")


def _describe_model(figures: ModelFigures) -> str:
    return f"{console.show_path(Path(figures.path))} ({figures.model.format})"


def _overview(result: ModelComparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of both models."""
    header = ["", "A", "95 % interval", "B", "95 % interval", "B - A"]
    rows = []
    for key, name in METRICS.items():
        a = result.a.metrics[key]
        b = result.b.metrics[key]
        cells = [f"{name}, %"]
        for value, figures in ((a, result.a), (b, result.b)):
            cells += [f"{100 * value:.2f}", _show_interval(figures.intervals.get(key))]
        cells.append(in_points(b - a))
        rows.append(cells)
    return header, rows


def _show_interval(interval: list[float] | None) -> str:
    """Nothing for macro-F1 where every answer is right."""
    if interval is None:
        return ""
    low, high = interval
    return f"{100 * low:.2f} to {100 * high:.2f}"


def exact_verdict(difference: Difference) -> str:
    """The difference in words, as far as the exact test supports them."""
    low = in_points(difference.interval[0])
    high = in_points(difference.interval[1])
    p = "p < 0.001" if difference.p < 0.001 else f"p = {difference.p:.3f}"
    basis = (
        f"95 % interval of the difference {low} to {high};"
        f" {difference.only_a} rows right in A alone, {difference.only_b} in B alone,"
        f" McNemar {p}"
    )

    distance = in_points(abs(difference.difference))
    if difference.difference == 0:
        return f"No difference is shown: A and B are level ({basis})."
    direction = "above" if difference.difference > 0 else "below"
    if difference.p >= SIGNIFICANT:
        return f"No difference is shown: B is {distance} points {direction} A ({basis})."
    better = "better" if difference.difference > 0 else "worse"
    return f"B is {better} than A by {distance} points of accuracy ({basis})."


def _comparison_notes(result: ModelComparison) -> list[str]:
    """What to know about the comparison, a sentence each."""
    rows = result.difference.rows
    notes = [f"{result.changed:,} of {rows:,} answers differ; changed.csv lists them."]

    absent = result.absent_intents
    if absent:
        notes.append(f"Intents without rows: {list_some(absent)}.")

    for letter, figures in (("A", result.a), ("B", result.b)):
        if figures.trained_on is None:
            notes.append(
                f"The training data of {letter} is not at hand: which rows it was trained on"
                " cannot be told."
            )
        elif figures.trained_on:
            notes.append(
                f"{figures.trained_on:,} of {rows:,} rows also stand in the training data of"
                f" {letter}, which favours it."
            )

    if result.unseen is not None:
        verdict = exact_verdict(result.unseen)
        notes.append(f"On the {result.unseen.rows:,} rows that neither was trained on: {verdict}")
    return notes


def _split_changes(
    intents: list[IntentChange],
) -> tuple[list[IntentChange], list[IntentChange]]:
    """(the intents that B loses, those that it wins), the largest change first."""
    lost = [change for change in intents if change.b_right < change.a_right]
    won = [change for change in intents if change.b_right > change.a_right]
    won.reverse()
    return lost, won


def _changes_table(changes: list[IntentChange]) -> tuple[list[str], list[list[str]]]:
    header = ["intent", "rows", "A right", "B right", "B - A"]
    rows = []
    for change in changes:
        difference = change.b_right - change.a_right
        cells = [change.intent, str(change.rows), str(change.a_right), str(change.b_right)]
        cells.append(str(difference))
        rows.append(cells)
    return header, rows


def _comparison_text(result: ModelComparison, data: EvaluationData) -> str:
    """The text of report.md."""
    header, body = _overview(result)
    lines = [
        f"# {result.a.model.name} and {result.b.model.name} on {describe_rows(data)}",
        "",
        f"- A: {_describe_model(result.a)}",
        f"- B: {_describe_model(result.b)}",
        f"- data: {result.data.name}",
        "",
        exact_verdict(result.difference),
        "",
        *console.markdown_table(header, body),
        "",
        f"Intervals from {result.bootstrap.resamples:,} bootstrap resamples of the rows.",
        "",
    ]
    for note in _comparison_notes(result):
        lines += [note, ""]
    refusals = data.source.describe_refusals()
    if refusals is not None:
        lines += [f"{refusals}.", ""]

    lost, won = _split_changes(result.intents)
    for title, changes in (("Intents that B loses", lost), ("Intents that B wins", won)):
        lines += [f"## {title} ({len(changes)})", ""]
        if changes:
            header, body = _changes_table(changes)
            lines += [*console.markdown_table(header, body), ""]
    return "\n".join(lines)
