"""The data report for people: report.md, and the overview in the terminal."""

from pathlib import Path

from bankintent import console
from bankintent.corpus.cleaning import list_reasons
from bankintent.corpus.figures import DataReport, LeakageFigures, RefusedFigures, Spread
from bankintent.corpus.rows import SourceIdentity

FEW = 5
"""Training sentences below which an intent is pointed out."""

NAMED = 5
"""Rows or intents that a note names at most."""


def show(report: DataReport, title: str, folder: Path) -> None:
    """Print the overview and the notes, and the folder that holds the whole report."""
    num_intents = f"{report.intents} intents (ranges, medians in brackets)"
    header, rows = overview_table(report)
    console.print_table(f"{title}: {num_intents}", header, rows)

    for note in notes(report):
        console.say(note)
    console.say(f"Written to {console.show_path(folder)} (report.md has every intent's rows).")


def overview_table(report: DataReport) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the table of splits, for the terminal and for Markdown alike."""
    header = ["split", "rows", "intents", "rows/intent", "words", "duplicates", "two labels"]

    rows = []
    for name, split in report.splits.items():
        row = [
            name,
            f"{split.rows:,}",
            str(split.intents),
            _range(split.rows_per_intent),
            _range(split.words),
            str(split.duplicates),
            str(split.two_labels),
        ]
        rows.append(row)
    return header, rows


def _range(spread: Spread) -> str:
    if spread.min == spread.max:
        return f"{spread.min}"
    return f"{spread.min}-{spread.max} ({spread.median:g})"


def notes(report: DataReport) -> list[str]:
    """What a reader should know besides the table, one sentence each."""
    lines = []
    if report.extra_train:
        lines.append(f"{report.extra_train:,} rows of train come from extra_train.")

    lines += _unlabelled_notes(report)
    lines += _leakage_notes(report.leakage)
    lines += _refused_notes(report.refused)

    if report.two_labels:
        lines.append(f"{len(report.two_labels)} texts carry two labels (ids in report.json).")

    lines += _rare_notes(report)
    return lines


def _unlabelled_notes(report: DataReport) -> list[str]:
    counts = report.unlabelled
    if counts is None:
        return []

    note = f"{counts.kept:,} sentences without labels stand beside them, for pseudo_labels"
    left_out = counts.read - counts.kept
    if left_out:
        note += f"; {left_out:,} more are known, or nearly the same as one of val or test"
    return [f"{note}."]


def _leakage_notes(leakage: LeakageFigures) -> list[str]:
    lines = []
    for pair, figures in leakage.pairs.items():
        if not figures.rows:
            continue

        kept, other = pair.split("/")
        outcome = f"dropped from {other}" if leakage.policy == "drop" else "left in place"
        lines.append(
            f"{figures.same} {other} rows also stand in {kept}, {figures.near} more nearly so; "
            f"{outcome} (leakage: {leakage.policy})."
        )
    return lines


def _refused_notes(refused: RefusedFigures) -> list[str]:
    if not refused.count:
        return []

    rows = "row was" if refused.count == 1 else "rows were"
    reasons = list_reasons(refused.reasons)
    ids = _name_some([row.id for row in refused.rows])
    return [f"{refused.count} {rows} left out: {reasons} ({ids})."]


def _rare_notes(report: DataReport) -> list[str]:
    # With few_shot, every intent has as few sentences as the config says.
    if report.few_shot:
        return []

    counts = report.splits["train"].per_intent
    rare = [label for label in counts if counts[label] < FEW]
    if not rare:
        return []

    # By count alone, so that intents with as many sentences stay in alphabetical order.
    rare.sort(key=counts.__getitem__)
    named = _name_some([f"{label} ({counts[label]})" for label in rare])
    intents = "intent has" if len(rare) == 1 else "intents have"
    return [
        f"{len(rare)} {intents} fewer than {FEW} training sentences and will hardly be learned: "
        f"{named}."
    ]


def _name_some(names: list[str]) -> str:
    listed = ", ".join(names[:NAMED])
    if len(names) > NAMED:
        listed += ", ..."
    return listed


def markdown(report: DataReport) -> str:
    """The content of report.md."""
    lines = ["# Data report", ""]
    lines += [f"Source: {_describe_source(report.source)}. Split: {report.split}.", ""]
    lines += console.markdown_table(*overview_table(report))

    lines.append("")
    for note in notes(report):
        lines.append(f"- {note}")

    lines += ["", "## Lengths", ""]
    lines += _lengths_table(report)

    lines += ["", "## Rows of each intent", ""]
    lines += _rows_by_intent(report)
    return "\n".join(lines) + "\n"


def _describe_source(source: SourceIdentity) -> str:
    """Its plain facts, then the hash of each of its files."""
    facts = []
    for key, value in source.items():
        if not isinstance(value, dict):
            facts.append(f"{key} {value}")

    parts = [", ".join(facts)]
    for name, sha256 in source.get("files", {}).items():
        parts.append(f"`{name}` sha256 `{sha256}`")
    return "; ".join(parts)


def _lengths_table(report: DataReport) -> list[str]:
    rows = []
    for name, split in report.splits.items():
        rows.append(_lengths_row(f"{name}, words", split.words))
        rows.append(_lengths_row(f"{name}, characters", split.characters))
    return console.markdown_table(["", "min", "median", "p95", "max"], rows)


def _lengths_row(name: str, spread: Spread) -> list[str]:
    numbers = (spread.min, spread.median, spread.p95, spread.max)
    return [name, *map("{:g}".format, numbers)]


def _rows_by_intent(report: DataReport) -> list[str]:
    """Rows of each intent in each split."""
    splits = list(report.splits.values())
    intents: set[str] = set()
    for split in splits:
        intents |= split.per_intent.keys()

    rows = []
    # By name as well: a set has no order to fall back on where names differ by case alone.
    for intent in sorted(intents, key=lambda name: (name.lower(), name)):
        counts = [str(split.per_intent.get(intent, 0)) for split in splits]
        rows.append([intent, *counts])
    return console.markdown_table(["intent", *report.splits], rows)
