"""Names of intents, shares and hints as both pages show them."""

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

NAME_BREAKS = re.compile(r"(?<=_)(?=\w)|(?<=[\-./:+])(?=[^\W\d])|(?<=[a-z])(?=[A-Z])")
"""Places in a name where a line may end: after its separators, and between joined words.

A point or a sign before a digit belongs to a number.
"""

READABLE_NAME = re.compile(r"(?=.*[^\W\d_]{2})[\w .+-]{2,40}")
"""A name that says something within a sentence: a few words, not a number and not markup."""

REFUSALS = {
    "out_of_scope": "not one of the intents",
    "below_threshold": "not sure enough",
    "close_call": "one of two intents",
}
"""Reason of a refusal -> it in words, for a cell of a table."""

SMALLEST_SHARE = 0.001
"""A share below it has no decimal left that could be shown; it is not 0 either."""


def breakable(name: str) -> Markup:
    """A name as HTML that wraps between its words, never inside of one."""
    parts = [escape(part) for part in NAME_BREAKS.split(name)]
    return Markup("<wbr>").join(parts)


def percent(share: float) -> str:
    """A share from 0 to 1 with one decimal; what is nearly nothing or nearly all says so."""
    if share >= 1:
        return "100 %"
    if share > 1 - SMALLEST_SHARE:
        return ">99.9 %"
    if share < SMALLEST_SHARE:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def placeholder(labels: Sequence[str]) -> str:
    """The hint in an empty message box: two of the model's intents where their names are words."""
    names = [label.replace("_", " ") for label in labels if READABLE_NAME.fullmatch(label)]
    if len(names) < 2:
        return "Type or paste a message"

    # Not the first ones: in alphabetical order these are often alike.
    first = names[len(names) // 3]
    second = names[2 * len(names) // 3]
    return f"For example, a message about {first} or {second}"
