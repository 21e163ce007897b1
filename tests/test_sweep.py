"""Sweeps choose the better value without the test split, and an interruption changes nothing."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Run
from study_fixtures import InProcess, write_recipe, write_recipes, write_study

from bankintent import __main__ as verbs
from bankintent.corpus import dataset
from bankintent.errors import TrainingError
from bankintent.studies.record import SweepResult
from bankintent.training import fit as training
from bankintent.training.fit import TrainingRun

RANGE = {"lora": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "lora.r": [2, 4]}}


def no_fault(number: int) -> None:
    """Nothing goes wrong."""


class Pretended:
    """In the place of `fit_run`: each epoch's metric is a function of the settings."""

    def __init__(self, score: Callable[[Any, int], float]) -> None:
        self.score = score
        self.runs: list[TrainingRun] = []
        self.fault: Callable[[int], None] = no_fault
        """Called with the number of runs so far; raises what shall go wrong."""

    def __call__(self, run: TrainingRun) -> None:
        self.runs.append(run)
        self.fault(len(self.runs))
        for epoch in range(1, run.config.epochs + 1):
            score = self.score(run.config, epoch)
            # The other way round, so that one metric's best epoch is the other's worst.
            figures = {"val_macro_f1": score, "val_accuracy": 1 - score, "val_loss": 1.0}
            run.tracker.metrics(figures, step=epoch)


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """A run is the better the nearer its lr is to 1e-3, and improves with every epoch."""

    def score(config: Any, epoch: int) -> float:
        distance = abs(math.log10(config.lr) + 3)
        return 0.9 - 0.1 * distance + 0.01 * epoch

    pretended = Pretended(score)
    monkeypatch.setattr(training, "fit_run", pretended)
    return pretended


def compare(run: Run, study: Path, *words: str) -> Result:
    return run(verbs.compare, "--config", study, *words)


def sweep_result(folder: Path) -> SweepResult:
    return SweepResult.load(folder / "study" / "sweep" / "lora.json")


def test_the_better_of_two_values_is_chosen_without_the_test_split(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    hidden = (data_dir / "test.parquet").rename(tmp_path / "hidden.parquet")
    sweep = {"trials": 3, "space": {"lora": {"lr": [1e-7, 5e-3]}}}
    recipe = write_recipe(tmp_path, "lora", tiny_bert, epochs=8)
    study = write_study(tmp_path, [recipe], data_dir, seeds=[1], sweep=sweep)

    # The runs need the test split; the sweep did not.
    stopped = compare(run, study)
    assert "test.parquet does not exist" in stopped.one_line_error()
    assert start.jobs == ["sweep"]
    assert "lr 0.005: complete" in stopped.out

    result = sweep_result(tmp_path)
    assert result.values == {"lr": 5e-3}
    assert len(result.trials) == 3
    assert {trial["values"]["lr"] for trial in result.trials} == {1e-7, 5e-3}
    complete = [trial for trial in result.trials if trial["state"] == "complete"]
    assert result.value == max(trial["value"] for trial in complete)
    assert all(len(trial["after_each_epoch"]) == 8 for trial in complete)
    names = {path.name for path in (tmp_path / "study" / "sweep").iterdir()}
    assert names <= {"lora.json", "optuna.db", "cache"}

    # With the test split there, the runs take the chosen value; the sweep is not repeated.
    hidden.rename(data_dir / "test.parquet")
    start.jobs = []
    start.invents = True
    assert compare(run, study).code == 0
    assert start.jobs == ["lora-all-seed1"]
    report = (tmp_path / "study" / "report" / "report.md").read_text()
    assert "- lora: lr = 0.005, chosen by macro-F1 on the validation split (" in report
    assert "| lr | 0.005 |" in report
    (record,) = (tmp_path / "study" / "runs").iterdir()
    assert json.loads(record.read_text())["settings"]["lr"] == 5e-3


@pytest.mark.usefixtures("fit")
def test_a_report_alone_needs_a_finished_sweep(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    sweep = {"trials": 3, "space": {"lora": {"lr": [1e-4, 1e-3]}}}
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), data_dir, sweep=sweep)
    start.invents = True
    assert compare(run, study).code == 0
    assert compare(run, study, "--report-only").code == 0

    unfinished = compare(run, study, "--report-only", "--set", "sweep.trials=9")
    assert "the sweep of lora is not finished" in unfinished.one_line_error()


def test_an_interrupted_sweep_makes_the_same_trials(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    def sweep_in(name: str) -> list[dict[str, Any]]:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        sweep = {"trials": 12, "space": RANGE}
        study = write_study(folder, write_recipes(folder, "lora"), data_dir, sweep=sweep)
        if compare(run, study).code != 0:
            return []
        return sweep_result(folder).trials

    start.invents = True
    straight = sweep_in("straight")
    assert len(straight) == 12
    assert len({trial["values"]["lr"] for trial in straight}) == 12

    def interrupt(number: int) -> None:
        # Once while values are drawn at random, once when they follow from the others.
        if number in (3, 12):
            raise KeyboardInterrupt

    fit.runs = []
    fit.fault = interrupt
    assert sweep_in("interrupted") == []
    assert sweep_in("interrupted") == []
    assert sweep_in("interrupted") == straight
    assert len(fit.runs) == 14

    best = min(straight, key=lambda trial: abs(math.log10(trial["values"]["lr"]) + 3))
    assert sweep_result(tmp_path / "straight").values == best["values"]
    for made in fit.runs:
        assert made.config.seed == 6
        assert made.config.few_shot is None
        assert not made.config.tracking.enabled


@pytest.mark.usefixtures("start")
def test_folds_are_of_train_alone_and_cover_it(
    data_dir: Path, tmp_path: Path, run: Run, fit: Pretended
) -> None:
    for split in ("val", "test"):
        (data_dir / f"{split}.parquet").unlink()
    sweep = {"trials": 2, "choose_on": {"kfold": 4}, "space": {"lora": {"lr": [1e-4, 1e-3]}}}
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), data_dir, sweep=sweep)
    assert "test.parquet does not exist" in compare(run, study).one_line_error()

    train = dataset.load(data_dir).read("train")
    first_trial = fit.runs[:4]
    second_trial = fit.runs[4:8]
    held_out = []
    for fold in first_trial:
        held_out += fold.rows.val.ids
        assert sorted(fold.rows.train.ids + fold.rows.val.ids) == sorted(train.ids)
        assert np.bincount(fold.rows.val.labels).tolist() == [4, 4, 4]
        assert fold.config.output_dir.is_relative_to(tmp_path / "study" / "sweep")
    assert sorted(held_out) == sorted(train.ids)
    for first, second in zip(first_trial, second_trial, strict=True):
        assert first.rows.val.ids == second.rows.val.ids

    result = sweep_result(tmp_path)
    assert result.folds == 4
    assert result.describe().startswith(
        "lr = 0.001, chosen by macro-F1 on 4-fold cross-validation of train (92.00 %)"
    )
    assert len(result.trials[0]["after_each_epoch"]) == 8


@pytest.mark.usefixtures("start", "fit")
def test_more_folds_than_rows_of_an_intent_are_refused(
    data_dir: Path, tmp_path: Path, run: Run
) -> None:
    sweep = {"choose_on": {"kfold": 17}, "space": {"lora": {"lr": [1e-4, 1e-3]}}}
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), data_dir, sweep=sweep)
    message = compare(run, study).one_line_error()
    assert "the sweep of lora failed: " in message
    assert 'intent "card_lost" has 16 training rows, fewer than 17 folds' in message


@pytest.mark.usefixtures("fit")
def test_a_trial_that_falls_behind_is_stopped_early(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    start.invents = True
    recipe = write_recipe(tmp_path, "lora", epochs=6)
    study = write_study(tmp_path, [recipe], data_dir, sweep={"trials": 14, "space": RANGE})
    assert compare(run, study).code == 0

    result = sweep_result(tmp_path)
    assert all(trial["state"] == "complete" for trial in result.trials[:4])
    pruned = [trial for trial in result.trials if trial["state"] == "pruned"]
    assert pruned
    # Nothing of a stopped trial stays, whichever was the last.
    names = {path.name for path in (tmp_path / "study" / "sweep").iterdir()}
    assert names <= {"lora.json", "optuna.db", "cache"}
    assert all(2 <= len(trial["after_each_epoch"]) < 6 for trial in pruned)
    assert f"from 14 trials, {len(pruned)} of them stopped early" in result.describe()


def test_a_trial_is_scored_by_the_epoch_that_is_kept(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    scores = {1: 0.5, 2: 0.8, 3: 0.6}
    fit.score = lambda config, epoch: scores[epoch] + config.lr
    start.invents = True
    sweep = {"trials": 2, "space": {"lora": {"lr": [1e-4, 1e-3]}}}
    for keep, expected in (("best", scores[2]), ("last", scores[3])):
        recipe = write_recipe(tmp_path, "lora", epochs=3, keep=keep)
        study = write_study(tmp_path, [recipe], data_dir, sweep=sweep)
        assert compare(run, study).code == 0
        assert sweep_result(tmp_path).value == pytest.approx(expected + 1e-3, abs=1e-3)

        # Training chooses by macro-F1, whatever the sweep maximises.
        by_accuracy = write_study(
            tmp_path, [recipe], data_dir, sweep=sweep | {"metric": "accuracy"}
        )
        assert compare(run, by_accuracy).code == 0
        assert sweep_result(tmp_path).value == pytest.approx(1 - expected, abs=1e-3)


def test_a_trial_that_overflows_is_recorded_as_failed(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    def overflow(number: int) -> None:
        if number in (2, 3):
            raise TrainingError("the loss overflowed")

    start.invents = True
    fit.fault = overflow
    sweep = {"trials": 4, "space": {"lora": {"epochs": {"low": 1, "high": 3}}}}
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), data_dir, sweep=sweep)
    assert compare(run, study).code == 0

    trials = sweep_result(tmp_path).trials
    states = [trial["state"] for trial in trials]
    assert states == ["complete", "failed", "failed", "complete"]
    assert trials[1]["error"] == "the loss overflowed."
    assert all(trial["values"]["epochs"] in (1, 2, 3) for trial in trials)


@pytest.mark.usefixtures("start")
def test_a_sweep_whose_trials_all_fail_stops_the_comparison(
    data_dir: Path, tmp_path: Path, run: Run, fit: Pretended
) -> None:
    def overflow(number: int) -> None:
        raise TrainingError("the loss overflowed")

    fit.fault = overflow
    sweep = {"trials": 2, "space": {"lora": {"epochs": [2, 3]}}}
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), data_dir, sweep=sweep)
    message = compare(run, study).one_line_error()
    expected = "the sweep of lora failed: no trial came to its end: the loss overflowed"
    assert expected in message


def test_more_trials_continue_a_sweep_and_another_space_is_another_sweep(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess, fit: Pretended
) -> None:
    start.invents = True
    sweep = {"trials": 4, "space": {"lora": {"epochs": {"low": 1, "high": 3}}}}
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), data_dir, sweep=sweep)
    assert compare(run, study).code == 0
    assert len(fit.runs) == 4

    fit.runs = []
    assert compare(run, study, "--set", "sweep.trials=6").code == 0
    assert len(fit.runs) == 2

    fit.runs = []
    assert compare(run, study, "--set", "sweep.space.lora.epochs=[1, 2]").code == 0
    assert len(fit.runs) == 4
