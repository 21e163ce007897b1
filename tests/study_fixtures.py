"""A small comparison: tiny recipes, a study file, runs made in this process, invented records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import train_config, write_yaml

from bankintent.config import CompareConfig, TrainConfig
from bankintent.configfile import load
from bankintent.corpus.dataset import DataManifest, Dataset, SourceConfig
from bankintent.errors import UserError
from bankintent.labels import LabelSchema
from bankintent.measures import metrics
from bankintent.studies import plan, trials, worker
from bankintent.studies.jobs import RunJob, SweepJob
from bankintent.studies.plan import PlannedRun
from bankintent.studies.recipes import load_recipes
from bankintent.studies.record import Latency, RunRecord, StudyRows

BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
ENCODER_PARAMETERS = 22_742_861
TRAINABLE = {"head-only": 177_485, "lora": 705_485, "full-ft": ENCODER_PARAMETERS}


def write_recipe(folder: Path, name: str, model: Path | str = "tiny", **more: Any) -> str:
    """`<name>.yaml`, a recipe of two epochs; its regime is its name unless `more` names one.

    `regime=None` leaves the key out.
    """
    settings = {"regime": name, "lr": 5e-3} | more
    if settings["regime"] is None:
        del settings["regime"]
    path = folder / f"{name}.yaml"
    return str(train_config(path, Path(model), Path("unused"), Path("unused"), **settings))


def write_recipes(folder: Path, *names: str) -> list[str]:
    """A recipe of each name."""
    return [write_recipe(folder, name) for name in names]


def write_study(folder: Path, files: list[str], data: Path, **more: Any) -> Path:
    """compare.yaml of a study in `study/`, each recipe named like its file."""
    settings: dict[str, Any] = {
        "name": "small",
        "output_dir": str(folder / "study"),
        "data_dir": str(data),
        "recipes": {Path(path).stem: path for path in files},
        "seeds": [1, 2],
        "bootstrap": 1000,
        "tracking": {"enabled": False},
    }
    return write_yaml(folder / "compare.yaml", **(settings | more))


class InProcess:
    """In the place of `process.run_module`: executes each job here, and records its name."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.fault: Callable[[str], None] = lambda name: None
        """Called with each job's name before it is executed; raises what shall go wrong."""
        self.invents = False
        """Runs are invented instead of trained."""

    def __call__(self, module: str, arguments: list[str | Path], log: Path) -> str | None:
        path = Path(arguments[0])
        name_without_key, _, _ = path.stem.rpartition("-")
        self.jobs.append(name_without_key)
        log.write_text("")
        try:
            self.fault(path.stem)
            self._execute(module, path)
        except UserError as error:
            return str(error)
        return None

    def _execute(self, module: str, path: Path) -> None:
        if module == "bankintent.studies.trials":
            trials.run_sweep(SweepJob.load(path))
        elif self.invents:
            _answer_rightly(RunJob.load(path))
        else:
            worker.execute_run(RunJob.load(path))


def _answer_rightly(job: RunJob) -> None:
    """A record of a run that answers every row of the study correctly."""
    study = job.record.parents[1]
    rows = StudyRows.load(study / "rows.json")
    record = invented_record(job.settings, job.key, rows, np.asarray(rows.true))
    record.save(job.record)


def write_records(
    path: Path,
    accuracies: dict[str, float],
    intents: int = 3,
    per_intent: int = 20,
    without: int = 0,
) -> tuple[CompareConfig, list[PlannedRun], StudyRows]:
    """Records of invented runs of a study file: recipe -> roughly its accuracy.

    The last `without` runs get none.
    """
    config = load(CompareConfig, path)
    rows = _invented_rows(config.split, intents, per_intent)
    rows.save(config.folder / "rows.json")
    labels = LabelSchema(tuple(rows.labels))
    hashes = DataManifest(SourceConfig(""), {}, labels.hash, rows.data_hash, {})
    data = Dataset(config.data_dir, labels, hashes)
    runs = plan.make_runs(config, load_recipes(config), data)

    for run in runs[: len(runs) - without]:
        predicted = _invented_predictions(rows, accuracies[run.recipe.name], run.seed)
        record = invented_record(run.settings, run.key, rows, predicted)
        record.save(run.new_record)
    return config, runs, rows


def _invented_rows(split: str, intents: int, per_intent: int) -> StudyRows:
    return StudyRows(
        dataset="made",
        split=split,
        data_hash="d" * 64,
        rows_hash="r" * 64,
        labels=[f"intent_{index:02d}" for index in range(intents)],
        true=np.repeat(np.arange(intents), per_intent).tolist(),
    )


def _invented_predictions(rows: StudyRows, accuracy: float, seed: int) -> Any:
    true = np.asarray(rows.true)
    # Some rows are harder than others, for every run.
    difficulty = np.random.default_rng(0).permutation(len(true))
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, len(true) / 50, len(true))
    is_wrong = difficulty + noise > accuracy * len(true)

    intents = len(rows.labels)
    other_label = (true + 1 + rng.integers(0, intents - 1, len(true))) % intents
    return np.where(is_wrong, other_label, true)


def invented_record(settings: TrainConfig, key: str, rows: StudyRows, predicted: Any) -> RunRecord:
    """A record of a run that never was."""
    one_hot_logits = np.eye(len(rows.labels))[predicted]
    figures = metrics.summary(one_hot_logits, np.asarray(rows.true))

    trainable = TRAINABLE[settings.regime]
    total = ENCODER_PARAMETERS
    sizes = {"merged": 91_700_000}
    if settings.regime == "lora":
        total += trainable
        sizes["adapter"] = 2_900_000
    train_rows = 9000
    if settings.few_shot is not None:
        train_rows = settings.few_shot * len(rows.labels)

    return RunRecord(
        key=key,
        regime=settings.regime,
        backbone=BACKBONE,
        seed=settings.seed,
        split=rows.split,
        settings=settings.model_dump(
            mode="json", exclude={"data_dir", "output_dir", "cache_dir", "tracking"}
        ),
        data_hash=rows.data_hash,
        labels_hash="l" * 64,
        rows_hash=rows.rows_hash,
        train_rows=train_rows,
        trainable_parameters=trainable,
        total_parameters=total,
        train_seconds=100.0 + settings.seed,
        run_seconds=120.0 + settings.seed,
        peak_memory_bytes=1_500_000_000,
        bytes=sizes,
        latency=Latency(single_ms=9.5, batched_per_second=420.0, sentences=256),
        precision="bf16",
        hardware="made up; CPU, 2 threads",
        versions={"python": "3.11"},
        finished=f"2026-11-22 12:00:{settings.seed:02d}",
        history=[{"epoch": 1.0, "train_loss": 1.0}],
        metrics={"val": figures, rows.split: figures},
        predicted=predicted.tolist(),
    )


def report_files(folder: Path) -> dict[str, bytes]:
    """The files of the study's report."""
    paths = sorted((folder / "study" / "report").iterdir())
    return {path.name: path.read_bytes() for path in paths}


def report_text(folder: Path) -> str:
    """report.md of the study."""
    return (folder / "study" / "report" / "report.md").read_text()
