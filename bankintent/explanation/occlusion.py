"""A text without one of its words at a time: what the model answers then shows what they weigh.

It is occlusion (Zeiler & Fergus, 2014), for words the erasure of Li et al. (2016). It asks the
model for nothing but answers, so that every runtime gives the same, also without torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bankintent.texts import is_blank

MOST_PARTS = 64
"""Most parts of a text, each of which costs one forward pass; a longer text has parts of several
words."""

UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
"""Characters of scripts without blanks between words: Thai, Lao, Burmese, Khmer, kana, Han."""

MARKS = (
    r"\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
    r"\u102b-\u103e\u17b4-\u17d3\u3099\u309a"
)
"""Those of them that belong to the character before them."""

WORD = re.compile(rf"[{UNSPACED}][{MARKS}]*|[^\s{UNSPACED}]+")
"""What stands between blanks, its punctuation included; without blanks, one character."""


@dataclass(frozen=True, slots=True)
class Part:
    """A word of a text, or several words of a long one."""

    start: int
    """Place of its first character."""
    end: int
    """Place behind its last one."""

    def of(self, text: str) -> str:
        """The part as it stands in the text."""
        return text[self.start : self.end]

    def left_out(self, text: str) -> str:
        """The text without it."""
        return text[: self.start] + text[self.end :]


def parts_of(text: str) -> list[Part]:
    """The parts of a text that can be left out, in order; at most MOST_PARTS.

    None leaves a blank text: the only word of a text cannot be weighed.
    """
    words = [Part(*match.span()) for match in WORD.finditer(text)]
    seen = [word for word in words if not is_blank(word.of(text))]

    parts = []
    for part in _grouped(seen):
        if not is_blank(part.left_out(text)):
            parts.append(part)
    return parts


def _grouped(words: Sequence[Part]) -> list[Part]:
    """Neighbouring words together, all groups but the last of the same size."""
    size = max(1, -(-len(words) // MOST_PARTS))  # rounded up

    groups = []
    for first in range(0, len(words), size):
        group = words[first : first + size]
        groups.append(Part(group[0].start, group[-1].end))
    return groups


def passes(text: str) -> int:
    """Forward passes that an explanation of a text takes, its own answer included."""
    return 1 + len(parts_of(text))


SHADES = 4
"""Degrees of weight that are shown."""

LEAST_WEIGHT = 0.1
"""A text whose words all weigh less has none that is shown: a factor of 1.1 of the odds."""


def shades(weights: Sequence[float]) -> list[int]:
    """From -SHADES to SHADES, the degree of each weight beside the largest of the text."""
    largest = max((abs(weight) for weight in weights), default=0.0)
    if largest < LEAST_WEIGHT:
        return [0] * len(weights)
    return [round(SHADES * weight / largest) for weight in weights]
