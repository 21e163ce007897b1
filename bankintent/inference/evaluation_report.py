"""The report of an evaluation: its folder, and what is printed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bankintent import console, files
from bankintent.decision.deciding import DECIMALS
from bankintent.inference.cleaned import describe_cleaned
from bankintent.inference.cross_record import next_steps, whose_figures
from bankintent.inference.evaluation import Evaluation
from bankintent.inference.evaluation_tables import (
    COVERAGE_NOTE,
    FLOOR_NOTE,
    WRONG_NOTE,
    HeaderAndRows,
    intents_table,
    overview,
    pairs_table,
    slice_note,
    slice_table,
    wrong_table,
)
from bankintent.inference.labelled import EvaluationData, show_refusals
from bankintent.inference.outside import describe_scope_on_rows
from bankintent.inference.policy_on_rows import NO_POLICY, describe_policy
from bankintent.inference.predicted import Predicted
from bankintent.inference.trivial_notes import compare_with_trivial
from bankintent.labels import LabelSchema
from bankintent.measures import metrics, plots, trust_plots
from bankintent.measures.confusion_plots import WHOLE, WORST, draw_confusion
from bankintent.texts import list_some

CURVE = "learning-curve.png"
"""Accuracy against sentences, where cross-validation has measured it."""

RISK_COVERAGE = "risk-coverage.png"
"""Wrong answers against the share of rows that is answered."""

REPORT = files.ResultFolder(
    "evaluation report",
    (
        "metrics.json",
        "report.md",
        WORST,
        WHOLE,
        "reliability.png",
        RISK_COVERAGE,
        CURVE,
        "predictions.parquet",
    ),
)
"""The files of a report: a folder that holds any other is not replaced."""

SHOWN_PAIRS = 5
"""Confused pairs that are printed; the report has more."""

SHOWN_SLICES = 10
"""Slices of a column that are printed; the report has all."""


def write(
    folder: Path,
    result: Evaluation,
    predicted: Predicted,
    data: EvaluationData,
    with_texts: bool = False,
) -> None:
    """Write the report folder; an earlier report there is replaced.

    predictions.parquet has the sentences only `with_texts`: they may be words of customers.
    """
    labels = data.labels
    true = np.asarray(data.rows.labels)
    counts = metrics.confusion(true, predicted.decisions.labels, len(labels))
    title = f"{result.checkpoint.name} on {describe_rows(data)}"

    with files.replacing(folder, REPORT) as staging:
        matrices = draw_confusion(counts, labels.names, staging, title)
        plots.reliability_diagram(
            result.reliability, result.metrics["ece"], staging / "reliability.png"
        )

        curve = trust_plots.SelectiveCurve(result.checkpoint.name, result.selective.curve)
        trust_plots.draw_risk_coverage([curve], staging / RISK_COVERAGE)

        if _has_curve(result):
            _draw_curve(result, staging / CURVE)

        predictions = _tabulate_predictions(predicted, data, with_texts)
        pq.write_table(predictions, staging / "predictions.parquet")

        files.write_text(staging / "metrics.json", files.json_text(result.to_json()))
        files.write_text(staging / "report.md", _report_text(result, data, matrices))


def _tabulate_predictions(predicted: Predicted, data: EvaluationData, with_texts: bool) -> pa.Table:
    """The answer to each row beside its intent."""
    labels = data.labels
    decided = predicted.decisions
    columns = {
        "id": data.rows.ids,
        "label": names_of(np.asarray(data.rows.labels), labels),
        "predicted": names_of(decided.labels, labels),
        "score": np.round(decided.scores, DECIMALS),
        "margin": np.round(decided.margins, DECIMALS),
        "second": names_of(decided.seconds, labels),
        "decision": [decided.of(row).verdict.value for row in range(len(decided))],
        "reason": [decided.of(row).reason.value for row in range(len(decided))],
    }
    if with_texts:
        columns["text"] = data.rows.texts
    repeats = data.source.repeats
    if data.source.folds is not None:
        columns["repeat"] = np.repeat(np.arange(repeats), len(data.rows) // repeats)
    return pa.table(columns)


def _has_curve(result: Evaluation) -> bool:
    return result.cross is not None and len(result.cross.learning_curve) > 1


def _draw_curve(result: Evaluation, path: Path) -> None:
    cross = result.cross
    assert cross is not None
    points = [plots.Share(point.rows, point.accuracy) for point in cross.learning_curve]
    expected = None
    if cross.doubling is not None:
        expected = plots.Share(2 * points[-1].x, cross.doubling)
    plots.accuracy_by_sentences(points, expected, path)


def names_of(label_ids: NDArray[np.integer[Any]], labels: LabelSchema) -> list[str]:
    """The names of some label ids."""
    return [labels.names[label_id] for label_id in label_ids]


def show(result: Evaluation, data: EvaluationData, folder: Path) -> None:
    """Print the metrics, what to know about them, the most confused pairs and the report's path."""
    show_refusals(data.source)
    subject = result.checkpoint
    title = f"{subject.name} ({subject.format}) on {describe_rows(data)}"
    header, body = overview(result)
    console.print_table(title, header, body)

    for text in _row_notes(result):
        console.say(text)
    for line in [*compare_with_trivial(result), *_next_steps(result)]:
        console.say(line)

    for line in _cleaned_lines(result):
        console.say(line)
    for line in _policy_lines(result):
        console.say(line)
    console.say("")

    for table in result.slices:
        header, body = slice_table(table, SHOWN_SLICES)
        console.print_table(f"By {table.by}, the worst first", header, body)
        note = slice_note(table, SHOWN_SLICES)
        if note is not None:
            console.say(note)

    pairs = []
    for pair in result.confused_pairs[:SHOWN_PAIRS]:
        pairs.append([pair.true, pair.predicted, str(pair.count)])
    if pairs:
        console.print_table("Most confused", ["true", "predicted", "rows"], pairs)

    place = console.show_path(folder)
    pictures = f"confusion.png, reliability.png, {RISK_COVERAGE}"
    if _has_curve(result):
        pictures += f", {CURVE}"
    console.say(f"Report: {place} (report.md, {pictures})")


def _policy_lines(result: Evaluation) -> list[str]:
    """What the policy means on the rows; none for a reference, which has no policy."""
    lines = [] if result.reference is not None else [NO_POLICY]
    if result.policy is not None:
        lines = describe_policy(result.policy)
    if result.out_of_scope is not None:
        lines.append(describe_scope_on_rows(result.out_of_scope))
    return lines


def _cleaned_lines(result: Evaluation) -> list[str]:
    """The second figure, where one was asked for."""
    return [] if result.cleaned is None else [describe_cleaned(result.cleaned)]


def describe_rows(data: EvaluationData) -> str:
    """`426 test rows`, or `120 rows of may.csv` for a table."""
    source = data.source
    count = f"{len(data.rows) // source.repeats:,}"
    if source.folds is not None:
        return f"{count} sentences, each held out once"
    if source.dataset is not None or source.path.is_dir():
        return f"{count} {source.split} rows"
    return f"{count} rows of {source.name}"


def _row_notes(result: Evaluation) -> list[str]:
    """What to know about the rows, a sentence each."""
    if result.cross is not None:
        return whose_figures(result.cross, result.rows)

    notes = []
    absent = result.absent_intents
    if absent:
        verb = "does" if len(absent) == 1 else "do"
        others = len(result.per_intent) - len(absent)
        notes.append(
            f"{len(absent)} of {len(result.per_intent)} intents {verb} not occur"
            f" ({list_some(absent)}): macro-F1 is over the other {others}."
        )

    if result.trained_on:
        notes.append(
            f"{result.trained_on:,} of {result.rows:,} rows also stand in the training data:"
            " the model may know them by heart."
        )
    return notes


def _next_steps(result: Evaluation) -> list[str]:
    """Lines with what would help most; none where a split was held out."""
    if result.cross is None:
        return []
    steps = next_steps(result.cross, result.per_intent, result.confused_pairs)
    return ["What would help:", *steps] if steps else []


def _report_text(result: Evaluation, data: EvaluationData, matrices: dict[str, str]) -> str:
    """The text of report.md; `matrices` are the pictures of confusions, file name -> caption."""
    origin = f"model loaded as {result.checkpoint.format}"
    if result.reference is not None:
        origin = result.reference.about

    lines = [
        f"# {result.checkpoint.name} on {_title_of(data)}",
        "",
        f"{result.rows:,} rows; {origin}; intervals from",
        f"{result.bootstrap.resamples:,} bootstrap resamples of the rows.",
        "",
        *_markdown(overview(result)),
        "",
        FLOOR_NOTE,
        "",
        COVERAGE_NOTE,
        "",
        *_paragraphs(result, data),
        f"![Confusion matrix: {matrices[WORST]}]({WORST})",
        "",
        *_whole_matrix(matrices),
        "![calibration](reliability.png)",
        "",
        f"![wrong answers against answered rows]({RISK_COVERAGE})",
        "",
        *_curve_picture(result),
        *_policy_section(result),
        *_slice_sections(result),
        "## Most confused pairs",
        "",
        *_markdown(pairs_table(result.confused_pairs)),
        "",
        *_wrong_section(result),
        "## Intents, worst F1 first",
        "",
        *_markdown(intents_table(result.per_intent)),
    ]
    return "\n".join(lines) + "\n"


def _markdown(table: HeaderAndRows) -> list[str]:
    header, body = table
    return console.markdown_table(header, body)


def _policy_section(result: Evaluation) -> list[str]:
    lines = _policy_lines(result)
    return ["## Answers and refusals", "", lines[0], "", *lines[1:], ""] if lines else []


def _slice_sections(result: Evaluation) -> list[str]:
    """A section for each column that the rows were divided by."""
    lines = []
    for table in result.slices:
        lines += [f"## By {table.by}, the worst first", "", *_markdown(slice_table(table)), ""]
        note = slice_note(table)
        if note is not None:
            lines += [note, ""]
    return lines


def _wrong_section(result: Evaluation) -> list[str]:
    if not result.wrong:
        return []
    title = "## Wrong answers, the most confident first"
    return [title, "", WRONG_NOTE, "", *_markdown(wrong_table(result.wrong)), ""]


def _whole_matrix(matrices: dict[str, str]) -> list[str]:
    """A link, as the picture is too large for a page; nothing where the first shows all intents."""
    if WHOLE not in matrices:
        return []
    return [f"[Confusion matrix of {matrices[WHOLE]}]({WHOLE})", ""]


def _curve_picture(result: Evaluation) -> list[str]:
    if not _has_curve(result):
        return []
    return [f"![accuracy of a linear probe against sentences]({CURVE})", ""]


def _title_of(data: EvaluationData) -> str:
    source = data.source
    if source.folds is not None:
        return f"{source.name}, out of fold"
    if source.dataset is not None or source.path.is_dir():
        return f"{source.name}, {source.split}"
    return source.name


def _paragraphs(result: Evaluation, data: EvaluationData) -> list[str]:
    """The notes and the comparison as Markdown, each followed by an empty line."""
    lines = []
    for note in [*_row_notes(result), *_cleaned_lines(result)]:
        lines += [note, ""]

    refusals = data.source.describe_refusals()
    if refusals is not None:
        lines += [f"{refusals}.", ""]

    comparison = [*compare_with_trivial(result), *_next_steps(result)]
    for number, line in enumerate(comparison):
        lines.append(line)
        # The items of a list stand together.
        is_last = number == len(comparison) - 1
        if is_last or not comparison[number + 1].startswith("- ") or not line.startswith("- "):
            lines.append("")
    return lines
