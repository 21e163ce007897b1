"""The plan of a comparison: one training run for each recipe, size and seed, each with a cache key.

This module is imported by a light parent process and must import neither torch nor transformers:
Linux counts a parent's memory into its child's resident peak, which is what the children report.
"""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from bankintent import files
from bankintent.config import CompareConfig, ExplainSection, ExportSection, TrainConfig
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import ConfigError
from bankintent.files import JsonObject
from bankintent.studies.recipes import Recipe
from bankintent.training.identity import identity
from bankintent.training.rows import rows_without_labels

RUNS = "runs"
"""Folder of the records, in the study's folder."""

MODELS = "models"
"""Folder of the bundles, in the study's folder."""

KEY_LENGTH = 12
"""Hexadecimal digits of a cache key: short in a file name, and 48 bits tell all runs apart."""

SizeName = int | Literal["all"]
"""Training sentences for each intent, or all of them."""


@dataclass(frozen=True)
class PlannedRun:
    """One training run: a recipe at a size with a seed."""

    recipe: Recipe
    size: SizeName
    seed: int
    settings: TrainConfig
    key: str
    """Hash of what makes the run; a record with this key is a record of this run."""
    folder: Path
    """The study's folder."""

    @property
    def label(self) -> str:
        """For people, for example `lora, 5 per intent, seed 3`."""
        return f"{self.recipe.slug}, {size_name(self.size)}, seed {self.seed}"

    @property
    def slug(self) -> str:
        """Name for files."""
        return self.settings.output_dir.name

    @property
    def new_record(self) -> Path:
        """The record that the run will write."""
        return self.folder / RUNS / f"{self.slug}.json"

    def find_record(self) -> Path | None:
        """The record of this run, also where the recipe had another name when it was made."""
        # A file's name starts with the recipe's, which may have changed since. Of several names the
        # first is taken, so that the file system's order decides nothing.
        records = sorted((self.folder / RUNS).glob(f"*-{self.key}.json"))
        if not records:
            return None
        return records[0]


def require_sizes(config: CompareConfig, recipes: list[Recipe], data: Dataset) -> None:
    """Draw each size once, so that one that cannot be drawn stops the study before it starts.

    Raises DataError where no intent has as many rows, ConfigError where a size leaves a recipe's
    `pseudo_labels` without sentences. A sweep trains on all rows.
    """
    train = data.read("train")
    draws: dict[str, SplitData] = {}
    for size in config.sizes:
        rows = train
        if size != "all":
            # Any seed will do: all draws of a size have as many rows.
            rows = train.few_shot(size, seed=0)
        draws[size_name(size)] = rows

    for recipe in recipes:
        recipe_draws = dict(draws)
        if config.sweep is not None and recipe.name in config.sweep.space:
            recipe_draws["sweep"] = train

        for name, rows in recipe_draws.items():
            try:
                rows_without_labels(recipe.settings, data, train, rows)
            except ConfigError as error:
                raise ConfigError(f"{recipe.slug}, {name}: {error}") from None


def make_runs(config: CompareConfig, recipes: list[Recipe], data: Dataset) -> list[PlannedRun]:
    """Every run, all cells of a seed before the next seed: an interrupted study has whole rows.

    Raises ConfigError where two recipes are the same.
    """
    runs: dict[str, PlannedRun] = {}
    # The last factor varies fastest: all cells of a seed come together.
    for seed, size, recipe in product(config.seeds, config.sizes, recipes):
        run = _plan_run(config, recipe, size, seed, data)

        if run.key in runs:
            other = runs[run.key].recipe
            raise ConfigError(
                f"the recipes {other.slug} and {recipe.slug} are the same", "Remove one"
            )

        runs[run.key] = run
    return list(runs.values())


def _plan_run(
    config: CompareConfig, recipe: Recipe, size: SizeName, seed: int, data: Dataset
) -> PlannedRun:
    study_settings = {
        "seed": seed,
        "few_shot": None if size == "all" else size,
        "data_dir": config.data_dir,
        # A bundle in MLflow's files would outlive the one that the study removes.
        "tracking": config.tracking.model_copy(update={"files": False}),
        # No figure of the report is of an exported format.
        "export": ExportSection(onnx=False, int8=False),
        # Nor is anything explained or refused.
        "explain": ExplainSection(index=False),
        "decision": None,
    }
    settings = recipe.settings.model_copy(update=study_settings)

    # A record holds the predictions on one split: another split is another run.
    key = short_hash(study_identity(settings, data) | {"split": config.split})
    # Set after the key, which is in its name. The identity leaves it out.
    output_dir = config.folder / MODELS / f"{recipe.slug}-{size}-seed{seed}-{key}"
    settings = settings.model_copy(update={"output_dir": output_dir})
    return PlannedRun(recipe, size, seed, settings, key, config.folder)


def study_identity(settings: TrainConfig, data: Dataset) -> JsonObject:
    """The run's identity without what changes nothing in its figures: exports, explanations."""
    run_identity = identity(settings, data)
    del run_identity["settings"]["export"]
    run_identity["settings"].pop("explain", None)
    return run_identity


def short_hash(value: Any) -> str:
    """The first digits of a JSON value's sha256; the order of its keys does not matter."""
    return files.sha256_text(json.dumps(value, sort_keys=True))[:KEY_LENGTH]


def size_name(size: SizeName) -> str:
    """For people: `all data`, `5 per intent`."""
    if size == "all":
        return "all data"
    return f"{size} per intent"
