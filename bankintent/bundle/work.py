"""The layout of `<output_dir>.work/`, which holds an unfinished training run."""

from dataclasses import dataclass
from pathlib import Path

NEGATIVES = "negatives.csv"
"""Mined hard negatives of the contrastive stage, among which wrong labels are found."""

PSEUDO_LABELS = "pseudo-labels.csv"
"""Sentences without labels and the intents that were given to them, the least certain first."""

TABLES = (NEGATIVES, PSEUDO_LABELS)
"""Tables about a run's training rows, for people to read; they are published next to the bundle."""


@dataclass(frozen=True)
class WorkFolder:
    """Names and places of everything in a work folder."""

    path: Path

    @property
    def run(self) -> Path:
        """The identity of the run that works here."""
        return self.path / "run.json"

    @property
    def base(self) -> Path:
        """The model that an adapter is trained on, saved before training."""
        return self.path / "base"

    @property
    def checkpoints(self) -> Path:
        """The Trainer's checkpoints."""
        return self.path / "checkpoints"

    @property
    def folds(self) -> Path:
        """The answers of the finished folds of a cross-validation."""
        return self.path / "folds"

    @property
    def contrastive(self) -> Path:
        """The Trainer's output of the contrastive stage."""
        return self.path / "contrastive"

    @property
    def bundle(self) -> Path:
        """The bundle before it is published."""
        return self.path / "bundle"

    @property
    def check(self) -> Path:
        """Files that publishing exchanges with its fresh process."""
        return self.path / "check"

    def table(self, name: str) -> Path:
        """One of TABLES, before it is published."""
        return self.path / name


def published_table(bundle: Path, name: str) -> Path:
    """The published form of one of TABLES, for example `<bundle>.negatives.csv`."""
    return bundle.with_name(f"{bundle.name}.{name}")
