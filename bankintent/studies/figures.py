"""The figures of a comparison, as report.json holds them: its keys are the fields, in order."""

from dataclasses import asdict, dataclass

from bankintent.config import Regime
from bankintent.files import JsonObject
from bankintent.measures.metrics import IntentFigures
from bankintent.measures.paired import Discordance
from bankintent.studies.plan import SizeName
from bankintent.studies.record import BundlePart


@dataclass(frozen=True)
class SeedMean:
    """A share (0 to 1) over the seeds of a cell."""

    mean: float
    interval: list[float] | None
    """95 % interval of the mean; None with one seed."""
    values: list[float]
    """The share of each seed."""


@dataclass(frozen=True)
class CellFigures:
    """One recipe at one size. Times and speeds are medians over seeds, memory is the largest."""

    recipe: str
    regime: Regime
    size: SizeName
    train_rows: int
    seeds: list[int]
    accuracy: SeedMean
    macro_f1: SeedMean
    val_accuracy: SeedMean
    trainable_parameters: int
    total_parameters: int
    share: float
    """Trainable parameters as a share (0 to 1) of all."""
    run_seconds: float | None
    train_seconds: float | None
    peak_memory_bytes: int
    bytes: dict[BundlePart, int]
    """Part of the bundle -> its size."""
    single_ms: float | None
    batched_per_second: float | None


@dataclass(frozen=True)
class SweepChoice:
    """The values that a sweep chose, without its trials."""

    metric: str
    folds: int | None
    """Of the cross-validation; None where the validation split was used."""
    values: JsonObject
    """Config key -> value."""
    value: float
    """The metric of these values."""
    words: str
    """All of it in a sentence."""


@dataclass(frozen=True)
class RecipeFigures:
    """A recipe and the settings that all its runs share."""

    recipe: str
    regime: Regime
    backbone: str
    chosen: SweepChoice | None
    """None without a sweep."""
    settings: JsonObject


@dataclass(frozen=True)
class SeedTest:
    """McNemar's test of one seed's runs."""

    seed: int
    only_a: int
    """Rows that A alone answers correctly."""
    only_b: int
    p: float


@dataclass(frozen=True)
class McNemarFigures:
    """McNemar's test for each seed, and once on the votes of all seeds."""

    seeds: list[SeedTest]
    significant: int
    """Number of seeds whose p is below 0.05."""
    plurality: Discordance


@dataclass(frozen=True)
class PairFigures:
    """Recipe A against recipe B on the same rows and seeds."""

    a: str
    b: str
    size: SizeName
    seeds: list[int]
    difference: float
    """Accuracy of A minus accuracy of B, as a share."""
    interval: list[float]
    """Its 95 % bootstrap interval."""
    resampled: str
    """Of the bootstrap: "rows and seeds", or "rows"."""
    mcnemar: McNemarFigures
    verdict: str


@dataclass(frozen=True)
class IntentComparison:
    """A pair, intent by intent, the largest gain of A first."""

    a: str
    b: str
    size: SizeName
    intents: list[IntentFigures]


@dataclass(frozen=True)
class DataFigures:
    """The data of a study."""

    name: str
    data_hash: str
    intents: int


@dataclass(frozen=True)
class RunCounts:
    """The runs of a study."""

    planned: int
    finished: int
    missing: list[str]
    """Labels of the runs without a record."""


@dataclass(frozen=True)
class Provenance:
    """When and on what the runs were made."""

    first_finished: str
    last_finished: str
    hardware: list[str]
    precision: list[str]
    versions: list[dict[str, str]]

    def as_json(self) -> JsonObject:
        """The same under the keys of report.json, of which `from` cannot be a field's name."""
        return {
            "from": self.first_finished,
            "to": self.last_finished,
            "hardware": self.hardware,
            "precision": self.precision,
            "versions": self.versions,
        }


@dataclass(frozen=True)
class BootstrapSettings:
    """The bootstrap that gives the intervals of differences."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class ComparisonFigures:
    """Everything that the report of a comparison says."""

    study: str
    data: DataFigures
    split: str
    rows: int
    seeds: list[int]
    runs: RunCounts
    made: Provenance
    bootstrap: BootstrapSettings
    recipes: list[RecipeFigures]
    cells: list[CellFigures]
    """All data first, then by falling size; recipes in the config's order."""
    pairs: list[PairFigures]
    intents: list[IntentComparison]
    """The pairs of the largest size."""

    @property
    def largest_size(self) -> SizeName:
        """The size that the summary is of."""
        return self.cells[0].size

    def as_json(self) -> JsonObject:
        """The content of report.json."""
        values = asdict(self)
        # `asdict` has used the names of the fields; the key keeps its place.
        values["made"] = self.made.as_json()
        return values
