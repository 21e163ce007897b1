"""The columns by which an evaluation is divided: those of the data, and some that are found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bankintent.corpus import language
from bankintent.errors import DataError
from bankintent.inference.labelled import EvaluationData
from bankintent.texts import is_blank, list_some

NO_VALUE = "no value"
"""The slice of rows whose cell is empty."""

UNCLEAR = "not clear"
"""The language of a text that tells none."""

LENGTHS = ((3, "1 to 3 words"), (8, "4 to 8 words"), (15, "9 to 15 words"))
"""Most words of a slice, and its name."""

LONGEST = "16 or more words"


@dataclass(frozen=True)
class Slicing:
    """The value of each row by one column."""

    by: str
    values: list[str]


def find_slicings(data: EvaluationData, by: Sequence[str]) -> list[Slicing]:
    """The values of all rows by each column of `by`.

    A column of the data comes before a built-in one of its name. Raises DataError where there is
    neither, which lists those that are there.
    """
    columns = data.source.columns
    # All of them first: to find languages takes a while.
    for name in by:
        if name not in columns and name not in BUILT_IN:
            raise DataError(
                f'{data.source.where} has no column "{name}" to divide the rows by',
                f"Name one of these with --by: {_known(data)}",
            )

    slicings = []
    for name in by:
        if name in columns:
            values = [_cell(value) for value in columns[name]]
        else:
            values = BUILT_IN[name](data)
        slicings.append(Slicing(name, values))
    return slicings


def _known(data: EvaluationData) -> str:
    own = list_some([name for name in data.source.columns if name])
    built_in = ", ".join(f"{name} (built in)" for name in BUILT_IN)
    return f"{own}, {built_in}" if own else built_in


def _cell(value: str | None) -> str:
    return NO_VALUE if value is None or is_blank(value) else value


def _lengths(data: EvaluationData) -> list[str]:
    """By the number of words, which white space divides."""
    return [_length(text) for text in data.rows.texts]


def _length(text: str) -> str:
    words = len(text.split())
    for most, name in LENGTHS:
        if words <= most:
            return name
    return LONGEST


def _languages(data: EvaluationData) -> list[str]:
    codes = language.of_each(data.rows.texts)
    return [UNCLEAR if code is None else language.name(code) for code in codes]


def _intents(data: EvaluationData) -> list[str]:
    return [data.labels.names[label] for label in data.rows.labels]


BUILT_IN: dict[str, Callable[[EvaluationData], list[str]]] = {
    "intent": _intents,
    "language": _languages,
    "length": _lengths,
}
"""Columns that every data has, by their names."""
