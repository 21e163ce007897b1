"""How one training goes: where it writes, and what a cross-validation changes about it."""

from dataclasses import dataclass
from pathlib import Path

from bankintent.tracking import Tracker
from bankintent.training.selection import Published


@dataclass(frozen=True)
class Course:
    """The places of one training, and how far it goes."""

    checkpoints: Path
    tracker: Tracker
    is_fold: bool = False
    """A part of a cross-validation: the validation rows are answered after each epoch and before
    the first, and no checkpoint is written, because a fold is short."""
    published: Published | None = None
    """The epoch to publish where no validation rows can choose it; training stops after it."""

    @property
    def last_epoch(self) -> int | None:
        """The epoch after which to stop; 0: before training; None: after all."""
        return None if self.published is None else self.published.epoch
