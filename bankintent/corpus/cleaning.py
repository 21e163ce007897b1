"""Rows as people wrote them to rows fit for training: normalised text, and a list of what was refused and why."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any

from bankintent.corpus.sources import Row
from bankintent.errors import DataError


@dataclass(frozen=True)
class Example:
    """One clean sentence; `id` names its origin and record number, for example `train.csv:17`."""

    id: str
    text: str
    label_text: str
    """Empty where the sentence has no label."""


@dataclass(frozen=True)
class Refusal:
    """A record that was left out, and the reason as a short phrase."""

    id: str
    reason: str


def clean(
    rows: list[Row], max_chars: int, labelled: bool = True
) -> tuple[list[Example], list[Refusal]]:
    """Normalise every row; those that cannot be a sentence, or have no label where they need one, are refused."""
    examples: list[Example] = []
    refusals: list[Refusal] = []
    for row in rows:
        identifier = f"{row.origin}:{row.number}"
        reason = _fault(row.text, "text", max_chars) or (
            labelled and _fault(row.label, "label", max_chars)
        )
        if reason:
            refusals.append(Refusal(identifier, reason))
        else:
            examples.append(
                Example(identifier, tidy(row.text), tidy(row.label) if labelled else "")
            )
    return examples, refusals


def tidy(value: Any) -> str:
    """Unicode NFC, byte order marks stripped, every run of whitespace folded to one space."""
    text = unicodedata.normalize("NFC", str(value)).replace("\ufeff", "")
    return " ".join(text.split())


def normalise(text: str) -> str:
    """The form under which two texts count as the same: NFKC, casefold, no punctuation, whitespace folded."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w\s]|_", " ", text).split())


def _fault(value: Any, column: str, max_chars: int) -> str | None:
    if value is None:
        return f"no {column} (an empty or missing cell, or a row with too many cells)"
    if isinstance(value, bool | float | list | dict | bytes) or (
        column == "text" and not isinstance(value, str)
    ):
        return f"{column} is {type(value).__name__}, not a string"
    value = str(value)
    if any("\udc80" <= char <= "\udcff" for char in value):
        return f"{column} is not valid UTF-8"
    if any("\ud800" <= char <= "\udfff" for char in value):
        return f"{column} holds a lone surrogate"
    if "\0" in value:
        return f"{column} holds a NUL"
    if not tidy(value):
        return f"empty {column}"
    if len(value) > max_chars:
        return f"{column} is longer than {max_chars:,} characters"
    return None


def require_none(refusals: list[Refusal]) -> None:
    """The policy `bad_rows: fail`: raise DataError that counts the reasons and names the first rows."""
    if not refusals:
        return
    reasons = ", ".join(
        f"{count} x {reason}" for reason, count in Counter(r.reason for r in refusals).most_common()
    )
    first = ", ".join(refusal.id for refusal in refusals[:5])
    raise DataError(
        f"{len(refusals)} unusable rows ({reasons}), the first at {first}",
        "Mend them, or set bad_rows: drop",
    )
