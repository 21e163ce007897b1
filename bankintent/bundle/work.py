"""The layout of `<output_dir>.work/`, which holds an unfinished training run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from bankintent import files

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
    def sealed(self) -> Path:
        """sha256 of the manifest of the bundle that is being published."""
        return self.path / "sealed.txt"

    @property
    def check(self) -> Path:
        """Folders of the files that publishing exchanges with its fresh process, one a time."""
        return self.path / "check"

    @property
    def has_progress(self) -> bool:
        """Whether there is something that a run can go on from."""
        return any(place.exists() for place in (self.checkpoints, self.folds, self.bundle))

    def table(self, name: str) -> Path:
        """One of TABLES, before it is published."""
        return self.path / name


def published_table(bundle: Path, name: str) -> Path:
    """The published form of one of TABLES, for example `<bundle>.negatives.csv`."""
    final = files.place(bundle)
    return final.with_name(f"{final.name}.{name}")


def publish_tables(work: WorkFolder, bundle: Path) -> None:
    """Put a run's tables beside its bundle and remove those of an earlier run.

    They are copied: where a kill cuts it off, it can be done again.
    """
    for name in TABLES:
        written = work.table(name)
        final = published_table(bundle, name)
        if written.is_file():
            with files.staged(final) as staging:
                shutil.copyfile(written, staging)
        else:
            files.discard(final)


def remove_tables(bundle: Path) -> None:
    """Remove the tables beside a bundle."""
    for name in TABLES:
        files.discard(published_table(bundle, name))
