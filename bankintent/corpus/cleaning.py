"""Rows of a source to folded sentences, and a list of the rows that were refused and why."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus import refusals as refused_rows
from bankintent.corpus.kept_columns import as_kept
from bankintent.corpus.refusals import RefusedRow
from bankintent.corpus.rows import Reading, Row, Sources
from bankintent.texts import fold, is_blank, normalise

KINDS = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "Decimal": "a number",
    "list": "a list",
    "dict": "an object",
    "datetime": "a date",
}
"""Types of values as messages name them; the others have their own names."""

SEVERAL_INTENTS = "label is a list of several intents, and one intent a sentence is learned here"

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
    kept: tuple[str | None, ...] = ()
    """Its values of `keep_columns`, in their order; empty where the source has none to keep."""


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
    """Of the dataset, then of extra_train, unlabelled and the rows out of scope."""
    out_of_scope_labels: tuple[str, ...] = ()
    """Labels whose rows have been moved from the dataset to `out_of_scope`."""


def clean_all(sources: Sources, config: DataConfig) -> Cleaned:
    """Clean every source.

    Raises DataError where fewer than two intents are left, where more rows are refused than
    `bad_rows` allows and, unless `rare` is drop, where every row of an intent is refused.
    """
    dataset, refused = clean_parts(sources.dataset.rows, config.max_chars)
    require_usable(dataset, refused, config, sources.dataset.reading)
    refusals = list(refused)

    extra_train: list[Example] = []
    if sources.extra_train:
        rows = sources.extra_train.pooled()
        extra_train, refused = clean(rows, config.max_chars)
        title = _title(str(config.extra_train), sources.extra_train.reading)
        refused_rows.require_allowed(config.bad_rows, refused, len(rows), title)
        refusals += refused

    unlabelled: list[Example] | None = None
    if sources.unlabelled:
        rows = sources.unlabelled.pooled()
        unlabelled, refused = clean(rows, config.max_chars, labelled=False)
        title = _title(str(config.unlabelled), sources.unlabelled.reading)
        refused_rows.require_allowed(config.bad_rows, refused, len(rows), title)
        refusals += refused

    # Nothing is trained on these: bad ones are listed, and never too many.
    out_of_scope, refused = clean_parts(sources.dataset.out_of_scope, config.max_chars)
    refusals += refused
    return Cleaned(dataset, out_of_scope, extra_train, unlabelled, refusals)


def require_usable(
    dataset: dict[str, list[Example]],
    refused: list[RefusedRow],
    config: DataConfig,
    reading: Iterable[Reading] = (),
) -> None:
    """Raise DataError where the usable rows of a dataset are too few, or not of every intent.

    Messages name the columns of `reading`.
    """
    counts: Counter[str] = Counter()
    for examples in dataset.values():
        counts.update(example.label_text for example in examples)
    require_usable_counts(counts, refused, config, reading)


def require_usable_counts(
    counts: Counter[str],
    refused: list[RefusedRow],
    config: DataConfig,
    reading: Iterable[Reading] = (),
) -> None:
    """The same by the usable rows of each intent."""
    taken = list(reading)
    name = _title(config.dataset_name, taken)
    # A format without columns has none to check.
    has_columns = not taken or any(one.text is not None for one in taken)
    refused_rows.require_two_intents(counts, refused, name, has_columns=has_columns)
    refused_rows.require_allowed(config.bad_rows, refused, counts.total() + len(refused), name)
    if config.rare != "drop":
        refused_rows.require_every_intent(counts, refused)


def _title(name: str, reading: Iterable[Reading]) -> str:
    """The name of a source with the columns that were taken of it."""
    columns: dict[str, None] = {}
    for taken in reading:
        if taken.text is not None:
            columns[f'text "{taken.text}"'] = None
        if taken.label is not None:
            columns[f'label "{taken.label}"'] = None

    if not columns:
        return name
    return f"{name} (columns: {', '.join(columns)})"


def clean_parts(
    parts: dict[str, list[Row]], max_chars: int
) -> tuple[dict[str, list[Example]], list[RefusedRow]]:
    """Clean the labelled splits of one source, and list what all of them refuse."""
    labels: list[Any] = []
    for rows in parts.values():
        labels += [row.label for row in rows]
    # Of the whole source: 3.0 is the intent 3 in every split of it, or in none.
    whole_labels = are_whole(labels)

    cleaned: dict[str, list[Example]] = {}
    refusals: list[RefusedRow] = []
    for split, rows in parts.items():
        cleaned[split], refused = clean(rows, max_chars, whole_labels=whole_labels)
        refusals += refused
    return cleaned, refusals


def clean(
    rows: list[Row], max_chars: int, labelled: bool = True, whole_labels: bool | None = None
) -> tuple[list[Example], list[RefusedRow]]:
    """Fold every row.

    Refused are rows that cannot be a sentence and, where `labelled`, those without one label.
    `whole_labels` says whether a label 3.0 is the intent 3; by default it is where every label of
    these rows that is a number is whole.
    """
    if whole_labels is None:
        whole_labels = are_whole(row.label for row in rows)

    examples: list[Example] = []
    refusals: list[RefusedRow] = []
    for row in rows:
        identifier = f"{row.origin}:{row.number}"
        label = as_label(row.label, whole_labels) if labelled else ""

        text = _digits_as_text(row.text)
        reason = _text_fault(text, max_chars)
        if labelled and reason is None:
            reason = _label_fault(label, max_chars)

        if reason is None:
            kept = tuple(map(as_kept, row.kept))
            examples.append(Example(identifier, fold(text), fold(label), kept))
        else:
            refusals.append(RefusedRow(identifier, reason, _named_intents(label), row.line))
    return examples, refusals


def are_whole(labels: Iterable[Any]) -> bool:
    """Whether all labels that are floats are whole numbers.

    pandas and Excel write whole numbers with a decimal point where one of the column is missing.
    """
    # NaN is a missing number.
    floats = [label for label in labels if isinstance(label, float) and not math.isnan(label)]
    return all(map(float.is_integer, floats))


def as_label(value: Any, whole_labels: bool) -> Any:
    """A label as a string where its meaning is plain; other values as they are.

    Plain are whole numbers, true and false, and the one item of a list. None is a missing label.
    """
    if isinstance(value, list) and len(value) <= 1:
        value = value[0] if value else None

    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and whole_labels:
        return str(int(value))
    return value


def normalised_texts(examples: Iterable[Example]) -> list[str]:
    """The normalised text of each example."""
    return [normalise(example.text) for example in examples]


def _digits_as_text(value: Any) -> Any:
    """A text as a string: a whole number is its digits; other values stay as they are."""
    # True and False are integers to Python.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _text_fault(value: Any, max_chars: int) -> str | None:
    """The reason to refuse a text; None where it is usable."""
    if value is None or isinstance(value, str):
        return _string_fault(value, "text", max_chars)
    return f"text is {_kind(value)}, not a string"


def _label_fault(value: Any, max_chars: int) -> str | None:
    """The reason to refuse a label, as `as_label` gives it; None where it is usable."""
    if value is None or isinstance(value, str):
        return _string_fault(value, "label", max_chars)
    if isinstance(value, list):
        return SEVERAL_INTENTS
    if isinstance(value, float):
        return f"label is a number with decimals such as {value:g}, not a name"
    return f"label is {_kind(value)}, not a name"


def _kind(value: Any) -> str:
    name = type(value).__name__
    return KINDS.get(name, name)


def _string_fault(value: str | None, column: str, max_chars: int) -> str | None:
    # A JSON null, a key that is missing, or a CSV record that has lost its columns.
    if value is None:
        return f"no {column} (an empty or missing value, or a row with too many cells)"

    # Escaped bytes are surrogates too: the narrower reason comes first.
    if ESCAPED_BYTE.search(value):
        return f"{column} is not valid UTF-8"
    if SURROGATE.search(value):
        return f"{column} holds a lone surrogate"
    if "\0" in value:
        return f"{column} holds a NUL"
    if is_blank(value):
        return f"empty {column}"
    if len(value) > max_chars:
        return f"{column} is longer than {max_chars:,} characters"
    return None


def _named_intents(label: Any) -> tuple[str, ...]:
    """The intents that the label of a refused row names, as `as_label` gives it."""
    values = label if isinstance(label, list) else [label]
    names = []
    for value in values:
        # Replaced where it cannot be printed.
        name = fold(str(value).encode("utf-8", "replace").decode()) if value is not None else ""
        if not is_blank(name):
            names.append(name)
    return tuple(names)
