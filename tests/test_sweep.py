"""Sweeps: the better value is chosen, never on the test split, and an interrupted sweep goes on as if it had not been."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from study_fixtures import InProcess, start, write_recipe, write_study

from bankintent import __main__ as verbs
from bankintent.corpus import dataset
from bankintent.errors import TrainingError
from bankintent.studies.record import Chosen
from bankintent.training import job as training

__all__ = ["start"]  # a fixture

RANGE = {"lora": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "lora.r": [2, 4]}}


class Pretended:
    """Stands in for `training.fit`: each epoch's metric is a function of the settings, and jobs are kept."""

    def __init__(self, score: Callable[[Any, int], float]) -> None:
        self.score = score
        self.jobs: list[training.Job] = []
        self.fault: Callable[[int], None] = lambda number: None

    def __call__(self, job: training.Job) -> None:
        self.jobs.append(job)
        self.fault(len(self.jobs))
        for epoch in range(1, job.config.epochs + 1):
            job.tracker.metrics(
                {"val_macro_f1": self.score(job.config, epoch), "val_loss": 1.0}, step=epoch
            )


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """A run is the better the nearer its lr is to 1e-3, and improves with every epoch."""
    fake = Pretended(
        lambda config, epoch: 0.9 - 0.1 * abs(math.log10(config.lr) + 3) + 0.01 * epoch
    )
    monkeypatch.setattr(training, "fit", fake)
    return fake


def chosen(folder: Path) -> Chosen:
    return Chosen.load(folder / "study" / "sweep" / "lora.json")


def test_the_better_of_two_values_is_chosen_without_the_test_split(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    hidden = (data_dir / "test.parquet").rename(tmp_path / "hidden.parquet")
    space = {"lora": {"lr": [1e-7, 5e-3]}}
    recipe = write_recipe(tmp_path, "lora", tiny_bert, epochs=8)
    study = write_study(
        tmp_path, [recipe], data_dir, seeds=[1], sweep={"trials": 3, "space": space}
    )
    stopped = run(verbs.compare, "--config", study)
    assert (
        "test.parquet does not exist" in stopped.one_line_error()
    )  # the grid needs it; the sweep did not
    assert start.jobs == ["sweep"]
    result = chosen(tmp_path)
    assert result.values == {"lr": 5e-3}
    assert len(result.trials) == 3
    assert {trial["values"]["lr"] for trial in result.trials} == {1e-7, 5e-3}
    assert result.value == max(
        trial["value"] for trial in result.trials if trial["state"] == "complete"
    )
    assert all(
        len(trial["after_each_epoch"]) == 8
        for trial in result.trials
        if trial["state"] == "complete"
    )
    assert "lr 0.005: complete" in stopped.out
    left = {path.name for path in (tmp_path / "study" / "sweep").iterdir()}
    assert left <= {"lora.json", "optuna.db", "cache"}

    # With the test split back the grid runs with what was chosen; the finished sweep is not repeated.
    hidden.rename(data_dir / "test.parquet")
    start.jobs, start.invents = [], True
    assert run(verbs.compare, "--config", study).code == 0
    assert start.jobs == ["lora-all-seed1"]
    report = (tmp_path / "study" / "report" / "report.md").read_text()
    assert "- lora: lr = 0.005, chosen by macro-F1 on the validation split (" in report
    assert "| lr | 0.005 |" in report
    (record,) = (tmp_path / "study" / "runs").iterdir()
    assert json.loads(record.read_text())["settings"]["lr"] == 5e-3
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    unfinished = run(
        verbs.compare, "--config", study, "--report-only", "--set", "sweep.trials=9"
    ).one_line_error()
    assert "the sweep of lora is not finished" in unfinished


def test_an_interrupted_sweep_makes_the_same_trials(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    def sweep_in(name: str) -> list[dict[str, Any]]:
        (tmp_path / name).mkdir(exist_ok=True)
        recipe = write_recipe(tmp_path / name, "lora")
        study = write_study(
            tmp_path / name, [recipe], data_dir, sweep={"trials": 12, "space": RANGE}
        )
        result = run(verbs.compare, "--config", study)
        return chosen(tmp_path / name).trials if result.code == 0 else []

    start.invents = True
    straight = sweep_in("straight")
    assert len(straight) == 12
    assert len({trial["values"]["lr"] for trial in straight}) == 12

    def interrupt(number: int) -> None:
        if number in (
            3,
            12,
        ):  # once while values are drawn at random, once when they follow from the others
            raise KeyboardInterrupt

    fit.jobs, fit.fault = [], interrupt
    assert sweep_in("interrupted") == []
    assert sweep_in("interrupted") == []
    assert sweep_in("interrupted") == straight
    assert len(fit.jobs) == 14

    best = min(straight, key=lambda trial: abs(math.log10(trial["values"]["lr"]) + 3))
    assert chosen(tmp_path / "straight").values == best["values"]
    assert all(job.config.seed == 6 and job.config.few_shot is None for job in fit.jobs)
    assert not any(job.config.tracking.enabled for job in fit.jobs)


def test_folds_are_of_train_alone_and_cover_it(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    for split in ("val", "test"):
        (data_dir / f"{split}.parquet").unlink()
    sweep = {"trials": 2, "choose_on": {"kfold": 4}, "space": {"lora": {"lr": [1e-4, 1e-3]}}}
    study = write_study(tmp_path, [write_recipe(tmp_path, "lora")], data_dir, sweep=sweep)
    assert "test.parquet does not exist" in run(verbs.compare, "--config", study).one_line_error()
    train = dataset.load(data_dir).read("train")
    folds = fit.jobs[:4]
    assert sorted(i for job in folds for i in job.val.ids) == sorted(train.ids)
    for job in folds:
        assert sorted(job.train.ids + job.val.ids) == sorted(train.ids)
        assert np.bincount(job.val.labels).tolist() == [4, 4, 4]
        assert job.config.output_dir.is_relative_to(tmp_path / "study" / "sweep")
    assert [job.val.ids for job in fit.jobs[4:8]] == [job.val.ids for job in folds]
    result = chosen(tmp_path)
    assert result.folds == 4
    assert result.words.startswith(
        "lr = 0.001, chosen by macro-F1 on 4-fold cross-validation of train (92.00 %)"
    )
    assert len(result.trials[0]["after_each_epoch"]) == 8

    many = run(
        verbs.compare, "--config", study, "--set", "sweep.choose_on.kfold=17"
    ).one_line_error()
    assert (
        'the sweep of lora failed: intent "card_lost" has 16 training rows, fewer than 17 folds'
        in many
    )


def test_a_trial_that_falls_behind_is_stopped_early(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    start.invents = True
    recipe = write_recipe(tmp_path, "lora", epochs=6)
    study = write_study(tmp_path, [recipe], data_dir, sweep={"trials": 14, "space": RANGE})
    assert run(verbs.compare, "--config", study).code == 0
    trials = chosen(tmp_path).trials
    assert all(trial["state"] == "complete" for trial in trials[:4])
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    assert all(2 <= len(trial["after_each_epoch"]) < 6 for trial in pruned)
    assert f"from 14 trials, {len(pruned)} of them stopped early" in chosen(tmp_path).words


def test_early_stopping_scores_the_epoch_that_is_kept(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    fit.score = lambda config, epoch: {1: 0.5, 2: 0.8, 3: 0.6}[epoch] + config.lr
    start.invents = True
    for early_stopping, value in ((2, 0.8 + 1e-3), (None, 0.6 + 1e-3)):
        recipe = write_recipe(tmp_path, "lora", epochs=3, early_stopping=early_stopping)
        sweep = {"trials": 2, "space": {"lora": {"lr": [1e-4, 1e-3]}}}
        assert (
            run(
                verbs.compare, "--config", write_study(tmp_path, [recipe], data_dir, sweep=sweep)
            ).code
            == 0
        )
        assert chosen(tmp_path).value == pytest.approx(value, abs=1e-3)


def test_a_trial_that_overflows_is_kept_as_failed_and_another_fault_stops_the_sweep(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    start.invents = True

    def overflow(number: int) -> None:
        if number in (2, 3):
            raise TrainingError("the loss overflowed")

    fit.fault = overflow
    sweep = {"trials": 4, "space": {"lora": {"epochs": {"low": 1, "high": 3}}}}
    study = write_study(tmp_path, [write_recipe(tmp_path, "lora")], data_dir, sweep=sweep)
    assert run(verbs.compare, "--config", study).code == 0
    states = [trial["state"] for trial in chosen(tmp_path).trials]
    assert states == ["complete", "failed", "failed", "complete"]
    assert chosen(tmp_path).trials[1]["error"] == "the loss overflowed."
    assert all(trial["values"]["epochs"] in (1, 2, 3) for trial in chosen(tmp_path).trials)

    # More trials go on from those that are there; a space of its own is a sweep of its own.
    fit.jobs, fit.fault = [], lambda number: None
    assert run(verbs.compare, "--config", study, "--set", "sweep.trials=6").code == 0
    assert len(fit.jobs) == 2
    fit.jobs = []
    assert (
        run(verbs.compare, "--config", study, "--set", "sweep.space.lora.epochs=[1, 2]").code == 0
    )
    assert len(fit.jobs) == 4

    def always(number: int) -> None:
        raise TrainingError("the loss overflowed")

    fit.fault = always
    failed = run(
        verbs.compare, "--config", study, "--set", "sweep.space.lora.epochs=[2, 3]"
    ).one_line_error()
    assert "the sweep of lora failed: no trial came to its end: the loss overflowed" in failed
