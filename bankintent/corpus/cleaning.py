"""Rows of a source to normalised sentences, and a list of the rows that were refused and why."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.rows import Row, Sources
from bankintent.errors import DataError

NOT_TEXT = (bool, float, list, dict, bytes)
"""Types that neither a text nor a label may have; a label may be a whole number."""

ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
"""Surrogates that stand for bytes that are not UTF-8 (surrogateescape, PEP 383)."""

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Example:
    """One clean sentence."""

    id: str
    """Its origin and record number, for example `train.csv:17`."""
    text: str
    label_text: str
    """Empty where the sentence has no label."""


@dataclass(frozen=True)
class RefusedRow:
    """A record that was left out, and the reason as a short phrase."""

    id: str
    reason: str


@dataclass(frozen=True)
class Cleaned:
    """The usable rows of all sources, and the refused ones."""

    dataset: dict[str, list[Example]]
    """By the names of the source's splits; `all` where it has none."""
    out_of_scope: dict[str, list[Example]]
    extra_train: list[Example]
    unlabelled: list[Example] | None
    """None where the config names no unlabelled table."""
    refusals: list[RefusedRow]
    """Of the dataset, then of extra_train and unlabelled; those out of scope are not listed."""


def clean_all(sources: Sources, config: DataConfig) -> Cleaned:
    """Clean every source; with `bad_rows: fail`, DataError where a row is refused."""
    max_chars = config.max_chars
    refusals: list[RefusedRow] = []

    dataset = {}
    for split, rows in sources.dataset.rows.items():
        dataset[split], refused = clean(rows, max_chars)
        refusals += refused

    extra_train: list[Example] = []
    if sources.extra_train:
        extra_train, refused = clean(sources.extra_train.pooled(), max_chars)
        refusals += refused

    unlabelled: list[Example] | None = None
    if sources.unlabelled:
        unlabelled, refused = clean(sources.unlabelled.pooled(), max_chars, labelled=False)
        refusals += refused

    # Nothing is trained on these: a bad one goes without a note.
    out_of_scope = {}
    for split, rows in sources.dataset.out_of_scope.items():
        out_of_scope[split], _ = clean(rows, max_chars)

    if config.bad_rows == "fail":
        require_none(refusals)
    return Cleaned(dataset, out_of_scope, extra_train, unlabelled, refusals)


def clean(
    rows: list[Row], max_chars: int, labelled: bool = True
) -> tuple[list[Example], list[RefusedRow]]:
    """Normalise every row.

    Refused are rows that cannot be a sentence and, where `labelled`, those without a label.
    """
    examples: list[Example] = []
    refusals: list[RefusedRow] = []

    for row in rows:
        identifier = f"{row.origin}:{row.number}"
        reason = _fault(row.text, "text", max_chars)
        if labelled and reason is None:
            reason = _fault(row.label, "label", max_chars)

        if reason is not None:
            refusals.append(RefusedRow(identifier, reason))
        else:
            label_text = tidy(row.label) if labelled else ""
            examples.append(Example(identifier, tidy(row.text), label_text))
    return examples, refusals


def tidy(value: Any) -> str:
    """Unicode NFC, byte order marks stripped, every run of whitespace folded to one space."""
    text = unicodedata.normalize("NFC", str(value))
    text = text.replace("\ufeff", "")
    return " ".join(text.split())


def normalise(text: str) -> str:
    """The form under which two texts count as the same.

    NFKC, casefold, no punctuation, whitespace folded.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    # For regular expressions the underscore is a letter.
    words = re.sub(r"[^\w\s]|_", " ", folded)
    return " ".join(words.split())


def normalised_texts(examples: Iterable[Example]) -> list[str]:
    """The normalised text of each example."""
    return [normalise(example.text) for example in examples]


def _fault(value: Any, column: str, max_chars: int) -> str | None:
    """The reason to refuse a cell; None where it is usable."""
    # A JSON null, a key that is missing, or a CSV record that has lost its columns.
    if value is None:
        return f"no {column} (an empty or missing cell, or a row with too many cells)"
    is_number = column == "text" and not isinstance(value, str)
    if is_number or isinstance(value, NOT_TEXT):
        return f"{column} is {type(value).__name__}, not a string"

    # A label that is a whole number is as good as its digits.
    text = str(value)
    # Escaped bytes are surrogates too: the narrower reason comes first.
    if ESCAPED_BYTE.search(text):
        return f"{column} is not valid UTF-8"
    if SURROGATE.search(text):
        return f"{column} holds a lone surrogate"
    if "\0" in text:
        return f"{column} holds a NUL"
    if not tidy(text):
        return f"empty {column}"
    if len(text) > max_chars:
        return f"{column} is longer than {max_chars:,} characters"
    return None


def require_none(refusals: list[RefusedRow]) -> None:
    """Raise DataError that counts the reasons and names the first rows, where there are any."""
    if not refusals:
        return

    reasons = list_reasons(count_reasons(refusals))
    first = ", ".join([refusal.id for refusal in refusals[:5]])
    raise DataError(
        f"{len(refusals)} unusable rows ({reasons}), the first at {first}",
        "Correct them, or set bad_rows: drop",
    )


def count_reasons(refusals: list[RefusedRow]) -> dict[str, int]:
    """Refused rows by their reason, the most frequent reason first."""
    counts = Counter(refusal.reason for refusal in refusals)
    return dict(counts.most_common())


def list_reasons(reasons: dict[str, int]) -> str:
    """Counted reasons as words, for example `2 x empty text, 1 x empty label`."""
    return ", ".join([f"{count} x {reason}" for reason, count in reasons.items()])
