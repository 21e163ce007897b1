"""The steps of the commands as functions, for programs and notebooks."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bankintent.api.model import Model, load
from bankintent.errors import UserError

if TYPE_CHECKING:
    from bankintent.config import DataConfig, EvalConfig, RuntimeName, TrainConfig
    from bankintent.files import JsonObject

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class PreparedData:
    """ETL's output: what `train` and `evaluate` read."""

    path: Path
    """The folder: train, val and test as Parquet, `labels.json`, reports and `manifest.json`."""
    labels: tuple[str, ...]
    """The names of the intents, in the order of their ids."""
    rows: dict[str, int]
    """Split -> its rows. Where the table is too small to hold rows out, there is `train` alone."""

    @property
    def report(self) -> Path:
        """The report on the data as Markdown: rows of each intent, duplicates, refused rows."""
        return self.path / "report.md"


@dataclass(frozen=True, slots=True)
class TrainedBundle:
    """A published bundle."""

    path: Path
    """The folder of the bundle."""
    metrics: dict[str, float]
    """Metrics on the validation rows, or out of fold where cross-validation has judged it:
    `accuracy`, `macro_f1` and the others of `Evaluation.metrics`, as shares of 1."""

    def load(self, runtime: "RuntimeName" = "auto", threads: int | None = None) -> Model:
        """Load the model: `bankintent.load` of its path."""
        return load(self.path, runtime, threads)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of a model on labelled rows, and the folder of its report."""

    folder: Path
    """The folder of the report: Markdown, plots, `metrics.json` and `predictions.parquet`."""
    metrics: dict[str, float]
    """`accuracy`, `macro_f1`, `top3_accuracy` as shares of 1; `ece` (expected calibration error);
    `nll` (negative log-likelihood)."""
    intervals: dict[str, tuple[float, float]]
    """Metric -> lower and upper end of its 95 % interval: bootstrap; with no mistake the exact one
    of accuracy alone."""
    rows: int
    """Rows that were evaluated."""
    details: "JsonObject" = field(repr=False)
    """Everything that was measured, as it stands in `metrics.json`."""

    @property
    def report(self) -> Path:
        """The report as Markdown."""
        return self.folder / "report.md"

    @property
    def predictions(self) -> Path:
        """The answer to each row as Parquet: id, label, predicted, score and more."""
        return self.folder / "predictions.parquet"


def etl(
    config: "StrPath | Mapping[str, Any] | DataConfig",
    *,
    set: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **keys: Any,
) -> PreparedData:
    """Make splits, a label schema and a data report of labelled sentences, as `etl` does.

    `config` is a YAML file such as `configs/data.yaml`, a mapping of its keys, or a `DataConfig`.
    Keyword arguments override keys: `etl("configs/data.yaml", dataset_name="my.csv",
    output_dir="data/mine")`. `set` overrides keys too, also those of a section, as `--set` does.
    Relative paths start at the working folder. `quiet=True` prints nothing.

    Raises UserError where a setting is wrong, or the data cannot be read or used.
    """
    from bankintent.commands.etl import run
    from bankintent.config import DataConfig
    from bankintent.configfile import build
    from bankintent.labels import LabelSchema

    settings = build(DataConfig, _file_or_values(config), {**(set or {}), **keys})
    with _as_command(quiet):
        report = run(settings)

    labels = LabelSchema.load(settings.output_dir / "labels.json").names
    rows = {split: figures.rows for split, figures in report.splits.items()}
    return PreparedData(settings.output_dir, labels, rows)


def train(
    config: "StrPath | Mapping[str, Any] | TrainConfig",
    *,
    set: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **keys: Any,
) -> TrainedBundle:
    """Train a classifier on ETL's output and publish it as a bundle, as `train` does.

    `config` is a YAML file such as `configs/recommended/lora.yaml`, a mapping of its keys, or a
    `TrainConfig`. Keyword arguments override keys, and `set` also those of a section:
    `train("configs/train.yaml", regime="lora", output_dir="out/mine", set={"lora.r": 8})`. The same
    call continues an interrupted run, and leaves a finished one as it is; `overwrite=True` replaces
    one of other settings. `quiet=True` prints nothing.

    Raises UserError where a setting, the data or the encoder cannot be used.
    """
    from bankintent.bundle.layout import METRICS
    from bankintent.commands.train import run
    from bankintent.config import TrainConfig
    from bankintent.configfile import build

    settings = build(TrainConfig, _file_or_values(config), {**(set or {}), **keys})
    _require_alone()
    with _as_command(quiet):
        bundle = run(settings, overwrite)

    recorded = json.loads((bundle / METRICS).read_text(encoding="utf-8"))
    return TrainedBundle(bundle, recorded["metrics"]["val"])


def evaluate(
    model: StrPath | Model | TrainedBundle,
    data: StrPath | PreparedData | None = None,
    *,
    config: "StrPath | Mapping[str, Any] | EvalConfig | None" = None,
    set: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **keys: Any,
) -> Evaluation:
    """Measure a model on labelled rows and write a report, as `eval` does.

    `model` is a path as for `load`, a loaded model or what `train` gave; its files are read anew
    and computed by PyTorch in float32, whatever runtime a loaded one has. `data` is ETL's output,
    a labelled table or a folder of tables; by default the data that the model was trained on.
    `config` may hold the keys of `eval.yaml`; keyword arguments and `set` override them:
    `evaluate(model, "may.csv", by=["channel"], output_dir="evals/may")`. `quiet=True` prints
    nothing.

    Raises UserError where the model or the data cannot be used, or their labels differ.
    """
    from bankintent.commands.evaluate import run
    from bankintent.config import EvalConfig
    from bankintent.configfile import build

    named: dict[str, Any] = {"checkpoint_path": _path_of(model)}
    if data is not None:
        named["data_dir"] = _path_of(data)
    settings = build(EvalConfig, _file_or_values(config), {**named, **(set or {}), **keys})
    with _as_command(quiet):
        report = run(settings)

    result = report.result
    intervals = {name: (low, high) for name, (low, high) in result.intervals.items()}
    return Evaluation(report.folder, result.metrics, intervals, result.rows, result.to_json())


def _require_alone() -> None:
    """Raise UserError where a launcher has started several processes of the program."""
    from bankintent import process

    # All but the main one end with the training, before there is a bundle to return.
    if process.launched() > 1:
        raise UserError(
            f"train() is for one process, and {process.launched()} were started",
            "Start the command on several: torchrun ... -m multiregime --config train.yaml",
        )


def _file_or_values(config: Any) -> Any:
    """What `configfile.build` takes: a path as such; a mapping or a config stays as it is."""
    return Path(config) if isinstance(config, str | os.PathLike) else config


def _path_of(source: StrPath | Model | TrainedBundle | PreparedData) -> Path:
    return Path(source) if isinstance(source, str | os.PathLike) else source.path


@contextlib.contextmanager
def _as_command(quiet: bool) -> Iterator[None]:
    """Run as a command does: libraries are quiet, and with `quiet` so is this package.

    Raises UserError for an error of the machine too, such as a full disk, and for a package that is
    not installed.
    """
    from bankintent import console, distribution, machine_errors, process

    process.quiet_libraries()
    silence = console.silence() if quiet else contextlib.nullcontext()
    with distribution.naming_missing_packages("train"), silence:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            explanation = machine_errors.explain(error)
            if explanation is None:
                raise
            raise UserError(*explanation) from error
