"""What an audit has found, for people: report.md, pairs.md, and lines in the terminal."""

from pathlib import Path

from bankintent import console
from bankintent.audit.findings import Findings, Share
from bankintent.audit.pairs import ConfusablePair
from bankintent.audit.review import ReviewRow
from bankintent.corpus.label_notes import show_name
from bankintent.measures.shares import in_percent
from bankintent.texts import shorten

LISTED = 20
"""Rows and intents that a table of the report lists."""

LONGEST_TEXT = 90
"""Characters of a sentence in a table."""


def show(found: Findings, title: str, folder: Path) -> None:
    """Print what was found and where it is written."""
    console.print_table(
        f"Label audit of {title}", ["", "rows", "of", "share", "95 %"], _counts(found)
    )
    for note in notes(found):
        console.say(f"- {note}")
    console.say(f"Written to {console.show_path(folder)} (review.csv, report.md, pairs.md).")


def _counts(found: Findings) -> list[list[str]]:
    return [
        _count("labels that the models suspect", found.suspected),
        _count("contradicted by a near duplicate", found.contradicting),
    ]


def _count(name: str, share: Share) -> list[str]:
    low, high = share.interval
    return [
        name,
        f"{share.count:,}",
        f"{share.of:,}",
        in_percent(share.count / share.of),
        f"{100 * low:.2f} to {100 * high:.2f}",
    ]


def notes(found: Findings) -> list[str]:
    """What a reader should know besides the counts, a sentence each."""
    lines = [
        f"Answered out of fold by {found.method}; {in_percent(found.accuracy)} of the labels are"
        " the answer.",
        f"{len(found.review):,} rows to review. A suspicion is no proof: a person decides.",
    ]
    unjudged = found.rows - found.judged
    if unjudged:
        lines.append(
            f"{unjudged:,} rows are of intents with too few different sentences to be judged;"
            " near duplicates alone were looked for."
        )
    if found.reviewed:
        lines.append(f"{found.reviewed:,} rows that a person has kept before are not listed.")
    for group in found.alike_names:
        named = ", ".join([f"{show_name(name)} ({rows})" for name, rows in group.items()])
        lines.append(
            f"Names that differ by case, spaces or punctuation alone: {named}. If they are one"
            " intent, give it one name in the source."
        )
    return lines


def markdown(found: Findings, title: str) -> str:
    """The content of report.md."""
    lines = [f"# Label audit of {title}", ""]
    lines += console.markdown_table(["", "rows", "of", "share", "95 %"], _counts(found))
    lines.append("")
    lines += [f"- {note}" for note in notes(found)]

    lines += ["", "## Intents with most suspected rows", ""]
    lines += _intents_table(found.review)
    lines += ["", f"## The surest {LISTED} rows", ""]
    lines += _rows_table(found.review[:LISTED])
    if found.pairs:
        lines += ["", "## The most confusable pairs of intents", ""]
        lines += _pairs_table(found.pairs)
        lines += ["", "Their nearest sentences, and a suggested guideline for each: pairs.md."]
    return "\n".join(lines) + "\n"


def _intents_table(review: list[ReviewRow]) -> list[str]:
    counts: dict[str, int] = {}
    suggestions: dict[str, dict[str, int]] = {}
    for row in review:
        counts[row.given] = counts.get(row.given, 0) + 1
        of_intent = suggestions.setdefault(row.given, {})
        of_intent[row.suggested] = of_intent.get(row.suggested, 0) + 1

    rows = []
    for name in sorted(counts, key=lambda name: (-counts[name], name))[:LISTED]:
        most = max(suggestions[name].items(), key=lambda item: item[1])
        rows.append([name, str(counts[name]), f"{most[0]} ({most[1]})"])
    return console.markdown_table(["given", "rows", "most often suggested"], rows)


def _rows_table(review: list[ReviewRow]) -> list[str]:
    rows = []
    for row in review:
        text = shorten(row.text, LONGEST_TEXT)
        rows.append([text, row.given, row.suggested, f"{row.confidence:.2f}"])
    return console.markdown_table(["sentence", "given", "suggested", "confidence"], rows)


def _pairs_table(pairs: list[ConfusablePair]) -> list[str]:
    rows = []
    for pair in pairs:
        names = f"{pair.first} / {pair.second}"
        crossed = f"{pair.first_as_second} / {pair.second_as_first}"
        rows.append([names, str(pair.rows), crossed, in_percent(pair.confusion)])
    return console.markdown_table(["pair", "rows", "answered crosswise", "confusion"], rows)


def pairs_markdown(found: Findings) -> str:
    """The content of pairs.md."""
    lines = [
        "# Confusable pairs of intents",
        "",
        "Of each pair: how many rows of one are answered with the other, out of fold; the nearest"
        " sentences; and a suggested line for the people who label, made of the words that"
        " separate the two. Correct it before you use it.",
    ]
    for pair in found.pairs:
        lines += ["", f"## {pair.first} / {pair.second}", ""]
        lines.append(
            f"Of {pair.rows} rows {pair.first_as_second} are answered with the second and"
            f" {pair.second_as_first} with the first."
        )
        lines += ["", f"Guideline (suggested): {pair.guideline}", ""]
        rows = []
        for near in pair.sentences:
            rows.append([near.first, near.second, f"{near.cosine:.2f}"])
        lines += console.markdown_table([pair.first, pair.second, "cosine"], rows)
    return "\n".join(lines) + "\n"
