"""Intents whose names are so alike that one may be a slip for the other."""

import re
import unicodedata
from collections import Counter, defaultdict

from bankintent.texts import WITHOUT_WIDTH

JOINTS = re.compile(r"[\s_\-\u2010-\u2015]+")
"""What stands between the words of a name."""


def alike_names(counts: Counter[str]) -> list[dict[str, int]]:
    """Names that differ by case, blanks, `_`, `-` or characters without width alone.

    Each group has its names with their rows, the most frequent first.
    """
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for name, rows in sorted(counts.items(), key=_most_rows_first):
        groups[bare_name(name)][name] = rows
    return [group for group in groups.values() if len(group) > 1]


def _most_rows_first(item: tuple[str, int]) -> tuple[int, str]:
    name, rows = item
    return -rows, name


def bare_name(name: str) -> str:
    """The name without case, blanks, `_`, `-` and characters without width."""
    shown = WITHOUT_WIDTH.sub("", unicodedata.normalize("NFKC", name))
    return JOINTS.sub("", shown.casefold())


def show_name(name: str) -> str:
    """A name in quotes, with escapes for what a reader cannot see."""
    visible = WITHOUT_WIDTH.sub(_escape, name)
    return f'"{visible}"'


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
