"""What a text is to a tokenizer, when two count as the same, and how messages shorten texts."""

import re
import unicodedata
from collections.abc import Sequence

BYTE_ORDER_MARK = "\ufeff"

WITHOUT_WIDTH = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that show nothing: joiners, marks of direction, soft hyphens, variation selectors.

They are Unicode's Default_Ignorable_Code_Point, without the tags that tell one flag from another.
"""

UNSEEN = (
    r"\s\u0000-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
)
"""Characters that leave nothing to see, for a class of a regular expression in any language.

They are white space, control characters and Unicode's Default_Ignorable_Code_Point: a text of these
alone is blank. \\s differs between languages, so its characters that do are listed too.
"""

UNSEEN_BEYOND = "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
"""Such characters past the first plane: JavaScript reads these in its Unicode mode only."""

SEEN = re.compile(f"[^{UNSEEN}{UNSEEN_BEYOND}]")
"""A character that can be seen."""

KEPT_FORMS = ("<super>", "<sub>", "<fraction>", "<circle>", "<compat> 0020")
"""Decompositions that would lose something: ten squared is not 102, an accent alone is no blank."""

SIGNS = frozenset("#%&*/@\\§¶†‡‰‱٪")
"""Characters that Unicode counts as punctuation and that tell texts apart: C# and C, 5 % and 5."""

QUOTES = frozenset("`´")
"""Characters that Unicode counts as symbols and that people type as quotes."""

MINUS = "\u2212"

LISTED = 5
"""Names that a message lists: a table read by the wrong column has as many as rows."""

MARKS = re.compile(
    r"""
    (?P<within_number> (?<=\d) [.,:\u066b\u066c] (?=\d) )
    | (?P<minus> (?<!\w) [-\u2010-\u2015\u2212\ufe63\uff0d] (?=[.,$€£¥]?\d) )
    | (?P<other> [^\w\s] | _ )
    """,
    re.VERBOSE,
)
"""What is neither a letter, a digit nor white space. For regular expressions `_` is a letter."""


def fold(text: str) -> str:
    """The text as a model reads it: NFC, no byte order marks, single spaces.

    ETL writes texts in this form, and every tokenizer call folds what it is given, so that a text
    has one answer however it was typed, pasted or sent.
    """
    composed = unicodedata.normalize("NFC", text).replace(BYTE_ORDER_MARK, "")
    return " ".join(composed.split())


def shorten(text: str, longest: int) -> str:
    """The text, cut to `longest` characters with three dots at its end where it has more."""
    if len(text) <= longest:
        return text
    return text[: longest - 3] + "..."


def list_some(names: Sequence[str], total: int | None = None) -> str:
    """The first LISTED names, and how many more there are of `total`, by default of `names`."""
    shown = list(names[:LISTED])
    left_out = (total or len(names)) - len(shown)
    if left_out > 0:
        shown.append(f"and {left_out} more")
    return ", ".join(shown)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, control characters and what has no width alone.

    The one answer to this question: for ETL, for `score`, for the API and for its pages.
    """
    return SEEN.search(text) is None


def normalise(text: str) -> str:
    """The form under which two texts count as the same.

    Not looked at: case, white space, characters without width, quotes, brackets, underscores, the
    punctuation of sentences, and forms of a letter such as full width. Everything else tells texts
    apart: currencies, emoji, `+`, `#`, `%`, a sign before a number, the marks inside a number, and
    the vowels and accents that are written as combining marks. A text of punctuation alone is only
    the same as itself.
    """
    shown = WITHOUT_WIDTH.sub("", text)
    plain = unicodedata.normalize("NFC", _fold_forms(shown).casefold())

    words = MARKS.sub(_replace_mark, plain).split()
    return " ".join(words or plain.split())


def _fold_forms(text: str) -> str:
    """NFKC, but for the KEPT_FORMS."""
    if text.isascii():
        return text
    return "".join(map(_fold_form, unicodedata.normalize("NFC", text)))


def _fold_form(character: str) -> str:
    if unicodedata.decomposition(character).startswith(KEPT_FORMS):
        return character
    return unicodedata.normalize("NFKC", character)


def _replace_mark(match: re.Match[str]) -> str:
    """A blank for punctuation; a sign as a word of its own, so that `5%` is `5 %`."""
    mark = match[0]
    if match.lastgroup == "within_number":
        return mark
    if match.lastgroup == "minus":
        return f" {MINUS} "

    category = unicodedata.category(mark)
    # An accent, or a vowel of Hindi, is part of the word that it stands in.
    if category.startswith("M"):
        return mark
    is_punctuation = category.startswith("P") and mark not in SIGNS
    return " " if is_punctuation or mark in QUOTES else f" {mark} "
