"""What a comparison consists of: its cells, and for each seed a run whose key says what makes it."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bankintent import files
from bankintent.config import CompareConfig, ExportSection, RangeSection, Regime, TrainConfig
from bankintent.configfile import load
from bankintent.corpus.dataset import Dataset
from bankintent.errors import ConfigError, UserError
from bankintent.studies.record import Chosen
from bankintent.tracking import flatten
from bankintent.training.job import rows_without_labels
from bankintent.training.run import identity

DECIDED = (
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
"""Keys of a recipe that the study decides: seeds, sizes, recipes, data_dir, output_dir, tracking and backbones."""

KEY_LENGTH = 12

SizeName = int | Literal["all"]
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
    chosen: Chosen | None = None
    """The sweep behind some of the settings."""

    @property
    def slug(self) -> str:
        """Name for files and tables: the recipe, and the backbone where the study names one."""
        return self.name if self.backbone is None else f"{self.name}-{backbone_slug(self.backbone)}"

    @property
    def regime(self) -> Regime:
        assert self.settings.regime is not None
        return self.settings.regime


@dataclass(frozen=True)
class Run:
    """One training run: a recipe at a size with a seed."""

    recipe: Recipe
    size: SizeName
    seed: int
    settings: TrainConfig
    key: str
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

    def find_record(self) -> Path | None:
        """The record of this run, whatever the recipe was called when it was made."""
        return next(iter(sorted((self.folder / "runs").glob(f"*-{self.key}.json"))), None)


def load_recipes(config: CompareConfig) -> list[Recipe]:
    """Every recipe on every backbone, with the overrides of `set`.

    Raises ConfigError where a recipe has no regime or says what is the study's to say.
    """
    overrides = flatten(config.set)
    require_free(overrides, "set")
    backbones: list[str | None] = [*config.backbones] or [None]
    recipes = [
        Recipe(name, backbone, path, read_recipe(path, overrides, backbone))
        for name, path in config.recipes.items()
        for backbone in backbones
    ]
    for index, recipe in enumerate(recipes):
        if recipe.slug in [other.slug for other in recipes[:index]]:
            raise ConfigError(
                f"two recipes on two backbones would both be called {recipe.slug}",
                "Rename a recipe",
            )
    return recipes


def read_recipe(path: Path, overrides: Values, backbone: str | None) -> TrainConfig:
    """A train.yaml with typed overrides; ConfigError where it names no regime."""
    if backbone is not None:
        overrides = overrides | {"revision": None}  # the recipe's is of its own model
    words = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    settings = load(TrainConfig, path, words, model_name=backbone)
    if settings.regime is None:
        raise ConfigError(
            f"{path} names no regime", "Add regime: head-only, lora or full-ft to the recipe"
        )
    return settings


def require_free(overrides: Values, where: str) -> None:
    """Refuse to override what the study decides."""
    for key in overrides:
        if key.partition(".")[0] in DECIDED:
            raise ConfigError(
                f"{where}: {key} is decided by the study",
                "Set seeds, sizes, backbones, ... instead",
            )


def with_values(recipe: Recipe, config: CompareConfig, chosen: Chosen) -> Recipe:
    """The recipe with what a sweep chose."""
    settings = read_recipe(recipe.path, flatten(config.set) | chosen.values, recipe.backbone)
    return replace(recipe, settings=settings, chosen=chosen)


def require_space(config: CompareConfig, recipes: list[Recipe]) -> None:
    """Try every end and every value of the sweep's space as a setting; ConfigError names the first that is none."""
    for recipe in recipes:
        for key, choices in config.sweep.space.get(recipe.name, {}).items() if config.sweep else ():
            where = f"sweep.space.{recipe.name}"
            require_free({key: None}, where)
            if key.startswith("lora.") and recipe.regime != "lora":
                raise ConfigError(
                    f"{where}: {key} does nothing in a {recipe.regime} recipe", "Remove it"
                )
            for value in (
                (choices.low, choices.high) if isinstance(choices, RangeSection) else choices
            ):
                try:
                    read_recipe(recipe.path, flatten(config.set) | {key: value}, recipe.backbone)
                except UserError as error:
                    raise ConfigError(f"{where}: {error}") from None


def require_sizes(config: CompareConfig, recipes: list[Recipe], data: Dataset) -> None:
    """Draw each size once, so that one that no intent has, or that leaves a recipe's `pseudo_labels` without sentences,
    stops the study before it starts. A sweep draws none."""
    train = data.read("train")
    drawn = {
        size_name(size): train if size == "all" else train.few_shot(size, seed=0)
        for size in config.sizes
    }
    for recipe in recipes:
        swept = {"sweep": train} if config.sweep and recipe.name in config.sweep.space else {}
        for what, rows in (drawn | swept).items():
            try:
                rows_without_labels(recipe.settings, data, train, rows)
            except ConfigError as error:
                raise ConfigError(f"{recipe.slug}, {what}: {error}") from None


def make_runs(config: CompareConfig, recipes: list[Recipe], data: Dataset) -> list[Run]:
    """Every run, all cells of a seed before the next seed, so that an interrupted study has whole rows.

    Raises ConfigError where two recipes are the same.
    """
    runs = [
        _run(config, recipe, size, seed, data)
        for seed in config.seeds
        for size in config.sizes
        for recipe in recipes
    ]
    seen: dict[str, Run] = {}
    for run in runs:
        other = seen.setdefault(run.key, run)
        if other is not run:
            raise ConfigError(
                f"the recipes {other.recipe.slug} and {run.recipe.slug} are the same", "Remove one"
            )
    return runs


def _run(config: CompareConfig, recipe: Recipe, size: SizeName, seed: int, data: Dataset) -> Run:
    decided = {
        "seed": seed,
        "few_shot": None if size == "all" else size,
        "data_dir": config.data_dir,
        "tracking": config.tracking.model_copy(update={"files": False}),
        "export": ExportSection(onnx=False, int8=False),  # no figure is of them
    }
    settings = recipe.settings.model_copy(update=decided)
    key = short_hash({**what_makes(settings, data), "split": config.split})
    slug = f"{recipe.slug}-{size}-seed{seed}-{key}"
    output = config.folder / "models" / slug
    return Run(
        recipe, size, seed, settings.model_copy(update={"output_dir": output}), key, config.folder
    )


def what_makes(settings: TrainConfig, data: Dataset) -> dict[str, Any]:
    """A run's identity without the keys that are off: one that the product gains later leaves older records valid.

    What is exported beside the model changes nothing in its figures.
    """
    what = identity(settings, data)
    kept = {
        key: value
        for key, value in what["settings"].items()
        if value is not None and key != "export"
    }
    return what | {"settings": kept}


def short_hash(value: Any) -> str:
    """The first digits of a JSON value's sha256, whatever the order of its keys."""
    return files.sha256_text(json.dumps(value, sort_keys=True))[:KEY_LENGTH]


def backbone_slug(name: str) -> str:
    """The last part of a model's name, fit for a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", Path(name).name)


def size_name(size: SizeName) -> str:
    """For people: `all data`, `5 per intent`."""
    return "all data" if size == "all" else f"{size} per intent"
