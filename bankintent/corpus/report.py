"""The data report for people: report.md, and the overview in the terminal."""

from pathlib import Path

from bankintent import console
from bankintent.corpus import kept_columns, out_of_scope
from bankintent.corpus.figures import DataReport, LeakageFigures, RefusedFigures, Spread
from bankintent.corpus.label_notes import show_name
from bankintent.corpus.language import Languages, encoder_note
from bankintent.corpus.patches import notes as patch_notes
from bankintent.corpus.refusals import list_reasons
from bankintent.corpus.rows import Reading, SourceIdentity
from bankintent.labels import in_order
from bankintent.texts import LISTED, list_some

FEW = 5
"""Training sentences below which an intent is pointed out."""

FACT_WIDTH = 10
"""Columns of the name of a fact."""

DELIMITERS = {"\t": "tab", " ": "blank"}
"""Characters that a reader cannot see, by name."""


def show(report: DataReport, title: str, folder: Path) -> None:
    """Print what was read, the overview and the notes, and the folder with the whole report."""
    for name, value in facts(report):
        console.say_beside(name.ljust(FACT_WIDTH), value)

    num_intents = f"{report.intents} intents (ranges, medians in brackets)"
    header, rows = overview_table(report)
    console.print_table(f"{title}: {num_intents}", header, rows)

    for note in notes(report):
        console.say(f"- {note}")
    console.say(f"Written to {console.show_path(folder)} (report.md has every intent's rows).")


def facts(report: DataReport) -> list[tuple[str, str]]:
    """(name, value) of what was taken of the source; a name that goes on is empty."""
    lines: list[tuple[str, str]] = []
    for described in _describe_readings(report.reading):
        lines.append(("" if lines else "Read", described))

    # The files of one source mostly have the same columns.
    columns = dict.fromkeys(filter(None, map(_describe_columns, report.reading)))
    if columns:
        lines.append(("Columns", "; ".join(columns)))
    if report.unread:
        lines.append(("Not read", list_some(report.unread)))

    if report.left:
        counted = [f"{count:,} {name}" for name, count in report.left.items()]
        lines.append(("Left", ", ".join(counted)))

    lines.append(("Language", Languages(report.languages).describe()))
    return lines


def _describe_readings(readings: list[Reading]) -> list[str]:
    """One line for each file, and one for all files of an export."""
    groups: dict[tuple[str | int, ...], list[Reading]] = {}
    for number, reading in enumerate(readings):
        is_export = reading.folder is not None
        key = (reading.folder or "", reading.format) if is_export else (number,)
        groups.setdefault(key, []).append(reading)
    return [_describe_group(group) for group in groups.values()]


def _describe_group(group: list[Reading]) -> str:
    """For example `bot/: 212 files, 1,204 rows, Dialogflow ES`."""
    first = group[0]
    if len(group) == 1:
        return _describe_reading(first)
    rows = sum(reading.rows for reading in group)
    return f"{first.folder}: {len(group):,} files, {rows:,} rows, {first.format}"


def _describe_reading(reading: Reading) -> str:
    """For example `export.csv: 2,110 rows, CSV, cp1252, delimiter ";"`."""
    place = reading.file
    if reading.folder is not None:
        place = f"{reading.folder.removesuffix('/')}/{reading.file}"
    parts = [f"{place}: {reading.rows:,} rows", reading.format]
    if reading.encoding is not None:
        parts.append(reading.encoding)
    if reading.delimiter is not None:
        shown = DELIMITERS.get(reading.delimiter, f'"{reading.delimiter}"')
        parts.append(f"delimiter {shown}")
    if reading.sheet is not None:
        parts.append(f'sheet "{reading.sheet}"')
    return ", ".join(parts)


def _describe_columns(reading: Reading) -> str:
    """The columns that were taken; empty where the format has none."""
    if reading.text is None:
        return ""
    if reading.label is None:
        return f'sentences in "{reading.text}"'
    return f'sentences in "{reading.text}", intents in "{reading.label}"'


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
    lines = [report.split_note, *report.source_notes]
    if report.rare.note:
        lines.append(report.rare.note)
    lines += patch_notes(report.patches)
    lines += _untested_notes(report)
    if report.extra_train:
        lines.append(f"{report.extra_train:,} rows of train come from extra_train.")

    lines += out_of_scope.notes(report.out_of_scope)
    lines += _unlabelled_notes(report)
    lines += _leakage_notes(report.leakage)
    lines += _refused_notes(report.refused)

    count = len(report.two_labels) + report.unlisted.get("two_labels", 0)
    if count:
        texts = "text carries" if count == 1 else "texts carry"
        lines.append(f"{count} {texts} two labels (ids in report.json).")

    lines += _alike_notes(report.alike_labels)
    lines += _rare_notes(report)
    lines += _language_notes(report)
    return lines


def _untested_notes(report: DataReport) -> list[str]:
    """Intents that are trained on, and that no held-out rows judge."""
    if report.not_judged:
        named = [f"{name} ({rows})" for name, rows in report.not_judged.items()]
        intents = "intent is" if len(named) == 1 else "intents are"
        return [
            f"{len(named)} {intents} trained on but not judged, for want of different sentences"
            f" (rows in brackets): {list_some(named)}."
        ]

    trained = report.splits["train"].per_intent
    held_out = [split for split in report.splits if split != "train"]

    lacking: dict[tuple[str, ...], list[str]] = {}
    for name, count in trained.items():
        splits = tuple(split for split in held_out if name not in report.splits[split].per_intent)
        if splits:
            lacking.setdefault(splits, []).append(f"{name} ({count})")

    lines = []
    for splits, names in lacking.items():
        intents = "intent has" if len(names) == 1 else "intents have"
        lines.append(
            f"{len(names)} {intents} no {' and no '.join(splits)} rows and cannot be judged there "
            f"(training rows in brackets): {list_some(names)}."
        )
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
    places = list_some([row.place for row in refused.rows])
    return [f"{refused.count} {rows} left out: {reasons} ({places})."]


def _alike_notes(groups: list[dict[str, int]]) -> list[str]:
    """One note for each group of intents, with their rows."""
    notes = []
    for group in groups:
        named = ", ".join([f"{show_name(name)} ({rows})" for name, rows in group.items()])
        notes.append(
            f"{len(group)} intents have names that differ by case, blanks, _, - or hidden"
            f" characters alone: {named}. If they are one intent, give it one name in the data."
        )
    return notes


def _language_notes(report: DataReport) -> list[str]:
    note = encoder_note(Languages(report.languages))
    if note is None:
        return []
    return [f"{note}."]


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
    named = list_some([f"{label} ({counts[label]})" for label in rare])
    intents = "intent has" if len(rare) == 1 else "intents have"
    return [
        f"{len(rare)} {intents} fewer than {FEW} training sentences and will hardly be learned: "
        f"{named}."
    ]


def markdown(report: DataReport) -> str:
    """The content of report.md."""
    lines = ["# Data report", ""]
    lines += [f"Source: {_describe_source(report.source)}. Split: {report.split}.", ""]
    lines += [f"- {name}: {value}" for name, value in _named_facts(report)]
    lines.append("")
    lines += console.markdown_table(*overview_table(report))

    lines.append("")
    for note in notes(report):
        lines.append(f"- {note}")

    lines += ["", "## Lengths", ""]
    lines += _lengths_table(report)

    if report.columns:
        lines += ["", "## Kept columns", ""]
        lines += kept_columns.markdown(report.columns)

    lines += ["", "## Rows of each intent", ""]
    lines += _rows_by_intent(report)
    return "\n".join(lines) + "\n"


def _named_facts(report: DataReport) -> list[tuple[str, str]]:
    """The facts, each with a name."""
    named = []
    last_name = ""
    for name, value in facts(report):
        last_name = name or last_name
        named.append((last_name, value))
    return named


def _describe_source(source: SourceIdentity) -> str:
    """Its plain facts, then the hash of each of its files where they are few."""
    facts = []
    for key, value in source.items():
        if not isinstance(value, dict):
            facts.append(f"{key} {value}")

    parts = [", ".join(facts)]
    hashes = source.get("files", {})
    if len(hashes) > LISTED:
        return f"{parts[0]}; {len(hashes):,} files (sha256 of each in report.json)"
    for name, sha256 in hashes.items():
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
    for intent in in_order(intents):
        counts = [str(split.per_intent.get(intent, 0)) for split in splits]
        rows.append([intent, *counts])
    return console.markdown_table(["intent", *report.splits], rows)
