"""A small comparison: tiny recipes, a study file, runs made inside the test process, and records of invented runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import train_config, write_yaml

from bankintent import process
from bankintent.config import CompareConfig, TrainConfig
from bankintent.configfile import load
from bankintent.corpus.dataset import Dataset
from bankintent.errors import UserError
from bankintent.labels import LabelSchema
from bankintent.measures import metrics
from bankintent.studies import plan, sweep, worker
from bankintent.studies.plan import Run
from bankintent.studies.record import Latency, Rows, RunRecord

TRAINABLE = {"head-only": 177_485, "lora": 705_485, "full-ft": 22_742_861}


def write_recipe(folder: Path, name: str, model: Path | str = "tiny", **more: Any) -> str:
    """`<name>.yaml`, a recipe of two epochs; its regime is its name unless told."""
    settings = {"regime": name, "lr": 5e-3} | more
    return str(
        train_config(
            folder / f"{name}.yaml", Path(model), Path("unused"), Path("unused"), **settings
        )
    )


def write_study(folder: Path, files: list[str], data: Path, **more: Any) -> Path:
    """compare.yaml of a study in `study/`, each recipe called like its file."""
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
    """Stands in for `process.run_module`: executes each job here, and keeps what was asked."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.fault: Callable[[str], None] = lambda name: None
        """Called with each job's name before it is executed; raises what shall go wrong."""
        self.invents = False
        """Runs are invented instead of trained."""

    def __call__(self, module: str, arguments: list[str | Path], log: Path) -> str | None:
        job = Path(arguments[0])
        self.jobs.append(job.stem.rpartition("-")[0])  # without the key
        log.write_text("")
        try:
            self.fault(job.stem)
            if module == "bankintent.studies.sweep":
                sweep.execute(sweep.Job.load(job))
            elif self.invents:
                _answer(worker.Job.load(job))
            else:
                worker.execute(worker.Job.load(job))
        except UserError as error:
            return str(error)
        return None


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """Runs are made in this process, without the fresh one that checks exported forms (see test_training.py)."""
    from bankintent.bundle.record import Parity
    from bankintent.export import publish as export

    fake = InProcess()
    monkeypatch.setattr(process, "run_module", fake)
    parity = Parity(rows=1, tolerance=1.0, largest_logit_difference={"merged": 0.0})
    monkeypatch.setattr(export, "check_parity", lambda *_: parity)
    return fake


def _answer(job: worker.Job) -> None:
    rows = Rows.load(job.record.parents[1] / "rows.json")
    invented(job.settings, job.key, rows, np.asarray(rows.true)).save(job.record)


def write_records(
    path: Path,
    accuracies: dict[str, float],
    intents: int = 3,
    per_intent: int = 20,
    without: int = 0,
) -> tuple[CompareConfig, list[Run], Rows]:
    """Records of invented runs of a study file: recipe -> about which share of the rows it answers rightly.

    The last `without` runs get none.
    """
    config = load(CompareConfig, path)
    names = [f"intent_{index:02d}" for index in range(intents)]
    true = np.repeat(np.arange(intents), per_intent)
    rows = Rows(
        dataset="made",
        split=config.split,
        data_hash="d" * 64,
        rows_hash="r" * 64,
        labels=names,
        true=true.tolist(),
    )
    rows.save(config.folder / "rows.json")
    data = Dataset(config.data_dir, LabelSchema(tuple(names)), {"data_hash": rows.data_hash})
    runs = plan.make_runs(config, plan.load_recipes(config), data)
    hard = np.random.default_rng(0).permutation(
        len(true)
    )  # some rows are harder than others, for every run
    for run in runs[: len(runs) - without]:
        rng = np.random.default_rng(run.seed)
        wrong = hard + rng.normal(0, len(true) / 50, len(true)) > accuracies[run.recipe.name] * len(
            true
        )
        predicted = np.where(
            wrong, (true + 1 + rng.integers(0, intents - 1, len(true))) % intents, true
        )
        invented(run.settings, run.key, rows, predicted).save(
            config.folder / "runs" / f"{run.slug}.json"
        )
    return config, runs, rows


def invented(settings: TrainConfig, key: str, rows: Rows, predicted: Any) -> RunRecord:
    """A record of a run that never was."""
    figures = metrics.summary(np.eye(len(rows.labels))[predicted], np.asarray(rows.true))
    assert settings.regime is not None
    trainable = TRAINABLE[settings.regime]
    return RunRecord(
        key=key,
        regime=settings.regime,
        backbone="sentence-transformers/all-MiniLM-L6-v2",
        seed=settings.seed,
        split=rows.split,
        settings=settings.model_dump(
            mode="json", exclude={"data_dir", "output_dir", "cache_dir", "tracking"}
        ),
        data_hash=rows.data_hash,
        labels_hash="l" * 64,
        rows_hash=rows.rows_hash,
        train_rows=9000 if settings.few_shot is None else settings.few_shot * len(rows.labels),
        trainable_parameters=trainable,
        total_parameters=22_742_861 + (trainable if settings.regime == "lora" else 0),
        train_seconds=100.0 + settings.seed,
        run_seconds=120.0 + settings.seed,
        peak_memory_bytes=1_500_000_000,
        bytes={"merged": 91_700_000}
        | ({"adapter": 2_900_000} if settings.regime == "lora" else {}),
        latency=Latency(single_ms=9.5, batched_per_second=420.0, sentences=256),
        precision="bf16",
        hardware="made up; CPU, 2 threads",
        versions={"python": "3.11"},
        finished=f"2026-11-22 12:00:{settings.seed:02d}",
        history=[{"epoch": 1.0, "train_loss": 1.0}],
        metrics={"val": figures, rows.split: figures},
        predicted=predicted.tolist(),
    )
