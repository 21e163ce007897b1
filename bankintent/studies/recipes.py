"""Recipes of a study: train.yaml files with the study's overrides, each on one backbone.

This module is imported by a light parent process and must import neither torch nor transformers,
see `plan`.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bankintent.config import Choices, CompareConfig, RangeSection, Regime, TrainConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError, UserError
from bankintent.studies.record import SweepResult
from bankintent.tracking import flatten

STUDY_KEYS = (
    "seed",
    "few_shot",
    "regime",
    "data_dir",
    "output_dir",
    "cache_dir",
    "tracking",
    "model_name",
    "export",
)
"""Keys of a recipe that the study decides: by seeds, sizes, recipes, data_dir, output_dir, ..."""

Values = dict[str, Any]
"""Config keys, dotted where nested, and what they are set to."""


@dataclass(frozen=True)
class Recipe:
    """One train.yaml on one backbone."""

    name: str
    backbone: str | None
    """The backbone that the study names; None is the recipe's own."""
    path: Path
    settings: TrainConfig
    sweep: SweepResult | None = None
    """The sweep behind some of the settings."""

    @property
    def slug(self) -> str:
        """Name for files and tables: the recipe, and the backbone where the study names one."""
        if self.backbone is None:
            return self.name
        return f"{self.name}-{backbone_slug(self.backbone)}"

    @property
    def regime(self) -> Regime:
        """The regime that the recipe names."""
        return self.settings.regime


def load_recipes(config: CompareConfig) -> list[Recipe]:
    """Every recipe on every backbone, with the overrides of `set`.

    Raises ConfigError where a recipe has no regime or sets what the study decides.
    """
    overrides = flatten(config.set)
    refuse_study_keys(overrides, "set")
    backbones: list[str | None] = [*config.backbones] or [None]

    recipes: dict[str, Recipe] = {}
    for name, path in config.recipes.items():
        for backbone in backbones:
            settings = read_recipe(path, overrides, backbone)
            recipe = Recipe(name, backbone, path, settings)
            if recipe.slug in recipes:
                raise ConfigError(
                    f"two recipes on two backbones would both be called {recipe.slug}",
                    "Rename a recipe",
                )
            recipes[recipe.slug] = recipe
    return list(recipes.values())


def read_recipe(path: Path, overrides: Values, backbone: str | None) -> TrainConfig:
    """A train.yaml with typed overrides."""
    if backbone is not None:
        # The recipe's revision is one of its own model and means nothing for another.
        overrides = overrides | {"revision": None}

    # As --set options, so that they are checked and reported like a user's.
    override_options = [
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in overrides.items()
    ]
    return load(TrainConfig, path, override_options, model_name=backbone)


def refuse_study_keys(overrides: Values, where: str) -> None:
    """Raise ConfigError where an override sets what the study decides."""
    for key in overrides:
        if key.partition(".")[0] in STUDY_KEYS:
            raise ConfigError(
                f"{where}: {key} is decided by the study",
                "Set seeds, sizes, backbones, ... instead",
            )


def with_sweep(recipe: Recipe, config: CompareConfig, sweep: SweepResult) -> Recipe:
    """The recipe with the values that its sweep chose."""
    # The sweep's values last: a key of `set` may be one that the sweep chose.
    overrides = flatten(config.set) | sweep.values
    settings = read_recipe(recipe.path, overrides, recipe.backbone)
    return replace(recipe, settings=settings, sweep=sweep)


def require_valid_space(config: CompareConfig, recipes: list[Recipe]) -> None:
    """Try every end and every value of the sweep's space as a setting.

    Raises ConfigError, which names the first that is not valid.
    """
    if config.sweep is None:
        return

    for recipe in recipes:
        where = f"sweep.space.{recipe.name}"
        for key, choices in config.sweep.space.get(recipe.name, {}).items():
            refuse_study_keys({key: None}, where)
            # Every train.yaml may have a section `lora`, so that reading it would not refuse this.
            if key.startswith("lora.") and recipe.regime != "lora":
                raise ConfigError(
                    f"{where}: {key} does nothing in a {recipe.regime} recipe", "Remove it"
                )
            for value in _values_to_try(choices):
                overrides = flatten(config.set) | {key: value}
                try:
                    read_recipe(recipe.path, overrides, recipe.backbone)
                except UserError as error:
                    raise ConfigError(f"{where}: {error}") from None


def _values_to_try(choices: Choices) -> list[Any]:
    # Limits on a setting are one interval: valid ends make all between them valid.
    if isinstance(choices, RangeSection):
        return [choices.low, choices.high]
    return list(choices)


def backbone_slug(name: str) -> str:
    """The last part of a model's name, fit for a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", Path(name).name)
