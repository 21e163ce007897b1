"""The jobs that a comparison hands to its child processes, as JSON files.

This module is imported by a light parent process and must import neither torch nor transformers,
see `plan`.
"""

from pathlib import Path
from typing import Literal

from bankintent import files
from bankintent.bundle.work import remove_tables
from bankintent.config import Choices, SweepSection, TrackingConfig, TrainConfig
from bankintent.files import JsonObject
from bankintent.studies.recipes import Values, read_recipe
from bankintent.studies.record import JsonRecord


class RunJob(JsonRecord):
    """One training run, for `bankintent.studies.worker`."""

    settings: TrainConfig
    split: Literal["val", "test"]
    key: str
    record: Path
    """The file to write."""
    keep_model: bool
    """false removes the bundle once it is evaluated."""

    @property
    def cache(self) -> Path:
        """The run's own cache, which is removed after it."""
        output_dir = self.settings.output_dir
        return output_dir.with_name(f"{output_dir.name}.cache")

    def remove_rest(self) -> None:
        """Remove what a run leaves besides its record; a run that was killed may have left more."""
        bundle = self.settings.output_dir
        files.settle(bundle)
        # Not every run makes a cache.
        files.discard(self.cache)
        if not self.keep_model:
            remove_tables(bundle)
            files.discard(bundle)


class SweepJob(JsonRecord):
    """One recipe's sweep, for `bankintent.studies.trials`."""

    recipe: str
    path: Path
    """The recipe's train.yaml."""
    overrides: JsonObject
    backbone: str | None
    data_dir: Path
    space: dict[str, Choices]
    sweep: SweepSection
    key: str
    """Hash of what makes the sweep; a result with this key is a result of this sweep."""
    result: Path
    """The file to write; Optuna's storage and the trials' work are in the same folder."""

    @property
    def work(self) -> Path:
        """The folder in which a trial trains; removed after it."""
        return self.result.with_suffix(".work")

    def trial_settings(self, values: Values) -> TrainConfig:
        """The train.yaml of a trial with these values."""
        # What the sweep decides replaces the recipe's own, as in the comparison's runs.
        settings = read_recipe(self.path, self.overrides | values, self.backbone)
        sweep_settings = {
            "seed": self.sweep.seed,
            # The study's sizes are those of its runs; a trial trains on all rows that it gets.
            "few_shot": None,
            "data_dir": self.data_dir,
            "output_dir": self.work / "trial",
            # One cache for all trials: they train on the same rows.
            "cache_dir": self.result.parent / "cache",
            "tracking": TrackingConfig(enabled=False),
        }
        return settings.model_copy(update=sweep_settings)
