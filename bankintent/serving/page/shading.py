"""The words of a text with their weights, in pieces that a page shades."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bankintent.explanation.occlusion import shades


class Weighed(Protocol):
    """A part of a text with its weight, as the API gives it."""

    @property
    def start(self) -> int:
        """Place of its first character."""

    @property
    def end(self) -> int:
        """Place behind its last one."""

    @property
    def weight(self) -> float:
        """Log-odds that are lost without it."""

    @property
    def score_without(self) -> float:
        """Score of the intent without it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text, all of which have one shade."""

    text: str
    degree: int
    """From 0 to 4 what the intent needs it; below 0 it speaks against the intent."""
    score_without: float | None
    """Score of the intent without it; None between the words."""


def pieces_of(text: str, weighed: Sequence[Weighed]) -> list[Piece]:
    """The whole text in pieces; `weighed` are parts of it in order, which do not overlap."""
    degrees = shades([part.weight for part in weighed])

    pieces = []
    position = 0
    for part, degree in zip(weighed, degrees, strict=True):
        if part.start > position:
            pieces.append(Piece(text[position : part.start], 0, None))
        pieces.append(Piece(text[part.start : part.end], degree, part.score_without))
        position = part.end
    if position < len(text):
        pieces.append(Piece(text[position:], 0, None))
    return pieces
