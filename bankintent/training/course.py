"""How one training goes: where it writes, and what a cross-validation changes about it."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from bankintent import files
from bankintent.files import JsonObject
from bankintent.tracking import Tracker
from bankintent.training.selection import Published

EPOCHS = "epochs.json"
"""What is known of the epochs until then, in the folder of a checkpoint."""


@dataclass(frozen=True)
class Past:
    """What earlier processes of an interrupted run have seen, up to its checkpoint."""

    history: list[dict[str, float]] = field(default_factory=list)
    """Figures of each epoch."""
    start: dict[str, float] | None = None
    """Figures of the weights before training, where they were measured."""
    seconds: float = 0.0
    """What the run took until then, loading included."""

    def write(self, checkpoint: Path) -> None:
        """Write it into the folder of a checkpoint."""
        content = {"seconds": self.seconds, "start": self.start, "history": self.history}
        files.write_text(checkpoint / EPOCHS, json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, checkpoint: Path | None) -> "Past":
        """What a whole checkpoint knows; nothing where there is none."""
        if checkpoint is None:
            return cls()
        content: JsonObject = json.loads((checkpoint / EPOCHS).read_text(encoding="utf-8"))
        return cls(content["history"], content["start"], content["seconds"])


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
    resume_from: Path | None = None
    """The checkpoint to go on from, which was found whole."""
    past: Past = field(default_factory=Past)
    """What was until then."""
    started: float = field(default_factory=time.perf_counter)
    """When this process began with the run, as `time.perf_counter` gives it."""

    @property
    def last_epoch(self) -> int | None:
        """The epoch after which to stop; 0: before training; None: after all."""
        return None if self.published is None else self.published.epoch

    @property
    def seconds(self) -> float:
        """What the run has taken so far, in this process and in those before it."""
        return self.past.seconds + time.perf_counter() - self.started
