"""How accuracy grows with the number of sentences: points of a curve, and what a doubling gives."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy with a part of the rows."""

    rows: int
    """Rows that were learned from."""
    accuracy: float


def foretell_doubling(points: list[CurvePoint]) -> float | None:
    """The accuracy that is expected with twice as many rows as at the last point.

    The error falls as a power of the number of rows (Cortes et al., 1993), so that each doubling
    divides it by the same factor; the last two points are a doubling apart. None where that
    doubling gave nothing.
    """
    half_error = 1 - points[-2].accuracy
    error = 1 - points[-1].accuracy
    if not 0 < error < half_error:
        return None
    return 1 - error * error / half_error
