"""The schema of compare.yaml."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from bankintent.config.base import Name, Section, Slug, TrackingConfig, no_repeats
from bankintent.config.cluster import Engine, TaskRaySection
from bankintent.config.places import OutputPath


def _check_size(value: Any) -> Any:
    # True is an int in Python, but not a number of sentences.
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if is_count or value == "all":
        return value
    raise ValueError(f"a size is a number of sentences for each intent, or all; found {value!r}")


Size = Annotated[
    Annotated[int, Field(ge=1)] | Literal["all"],
    BeforeValidator(_check_size),
]
"""Training sentences for each intent."""

Scalar = int | float | bool | str | None
"""A value to try. 1e-4 is a string for PyYAML; the recipe's own key makes a number of it."""


class RangeSection(Section):
    """`{low: 1e-4, high: 5e-3, log: true}`: the numbers between two bounds.

    They are whole numbers if both bounds are.
    """

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value."""
    log: bool = False
    """true: values are drawn evenly over orders of magnitude."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g}, not below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}; log: true takes numbers above zero")
        return self


def _choices_tag(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    return "range"


Choices = Annotated[
    Annotated[RangeSection, Tag("range")]
    | Annotated[list[Scalar], Field(min_length=2), Tag("list")],
    # With a tag, an error is about the form that was meant, not about every form.
    Discriminator(_choices_tag),
]
"""The values of a key that a sweep tries: a range, or a list."""


class FoldsSection(Section):
    """`{kfold: 5}`: stratified cross-validation of the train split."""

    kfold: Annotated[int, Field(ge=2, le=20)]
    """Number of folds."""


def _choose_on_tag(value: Any) -> str:
    if isinstance(value, str):
        return "val"
    return "folds"


class SweepSection(Section):
    """`sweep:` Optuna chooses, never on the test split.

    Its trials train on the whole training split, or on its folds; `sizes` has no effect on them.
    """

    trials: Annotated[int, Field(ge=1)] = 20
    """Trials for each recipe."""
    choose_on: Annotated[
        Annotated[Literal["val"], Tag("val")] | Annotated[FoldsSection, Tag("folds")],
        Discriminator(_choose_on_tag),
    ] = "val"
    """val: the validation split; `{kfold: 5}`: cross-validation of the train split."""
    metric: Literal["macro_f1", "accuracy"] = "macro_f1"
    """The metric that the search maximises: its value in the best epoch or, with `keep: last`,
    after the last."""
    seed: int = 6
    """Seed of the trials' runs, of the folds and of the values that are tried."""
    space: Annotated[dict[str, dict[str, Choices]], Field(min_length=1)]
    """For each recipe by its name, for each of its keys (such as `lora.r`), what to try: a list of
    values, or a range such as `{low: 1e-4, high: 5e-3, log: true}`."""


class CompareConfig(Section):
    """compare.yaml: recipes x backbones x training sizes x seeds, one report."""

    name: Slug
    """Name of the study."""
    output_dir: OutputPath | None = None
    """The study's folder; by default `artifacts/studies/<name>`."""
    data_dir: Path = Path("data/processed")
    """ETL's output."""
    recipes: Annotated[dict[Slug, Path], Field(min_length=1)]
    """The name of each recipe, and its train.yaml, which sets its regime. Data, output, seed, size
    and tracking come from the study."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [1, 2, 3, 4, 5]
    """One run of every cell for each seed."""
    backbones: list[Name] = []
    """Models that every recipe is run on; by default each recipe's own."""
    sizes: Annotated[list[Size], Field(min_length=1)] = ["all"]
    """Training sentences for each intent, drawn with the run's seed; an intent with fewer keeps
    all. Validation and test stay whole."""
    split: Literal["val", "test"] = "test"
    """The split of the final figures."""
    set: dict[str, Any] = {}
    """Overrides of every recipe, for example `{epochs: 2, lora.r: 8}`."""
    bootstrap: Annotated[int, Field(ge=1000)] = 10_000
    """Resamples behind the intervals of differences."""
    keep_models: bool = False
    """true keeps the bundle of every run, without exported formats, in models/ of the study's
    folder."""
    sweep: SweepSection | None = None
    """A search for the settings of the recipes before the comparison."""
    tracking: TrackingConfig = TrackingConfig()
    """Where runs are logged: parameters and metrics, no files."""
    engine: Engine = "local"
    """What executes the runs and sweeps. local: this machine, one after another; ray: a Ray
    cluster, as many runs at once as it has room for."""
    ray: TaskRaySection = TaskRaySection()

    @property
    def folder(self) -> Path:
        """The study's folder: `output_dir`, or its default."""
        return self.output_dir or Path("artifacts/studies") / self.name

    _unique = field_validator("seeds", "sizes", "backbones")(no_repeats)

    @model_validator(mode="after")
    def _sweep_fits(self) -> Self:
        if self.sweep is None:
            return self

        for name in self.sweep.space:
            if name not in self.recipes:
                names = ", ".join(self.recipes)
                raise ValueError(f'sweep.space names the recipe "{name}"; there are {names}')

        # Figures on the split that settings were chosen on would be too good.
        if self.split == "val" and self.sweep.choose_on == "val":
            raise ValueError(
                "the sweep would choose on the split of the final figures;"
                " choose_on {kfold: 5} does not"
            )
        return self
