"""The records that a bundle keeps of how it was made and checked."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Parity:
    """How far the saved forms of a model are from the trained one, and which formats passed."""

    rows: int
    """Validation sentences that were compared."""
    tolerance: float
    """Largest difference of a logit with which a bundle is published."""
    largest_logit_difference: dict[str, float]
    """Saved form and batch size -> largest absolute difference of a logit."""
    formats: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Exported format -> the figures of its gate."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Exported format that was not published -> the reason."""
