"""Comparisons: finished runs are kept, failed ones are reported, and runs are measured alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Run
from study_fixtures import (
    InProcess,
    report_files,
    report_text,
    write_recipe,
    write_recipes,
    write_study,
)

from bankintent import __main__ as verbs
from bankintent.corpus import dataset
from bankintent.errors import TrainingError
from bankintent.studies.clock import duration_text
from bankintent.studies.record import RunRecord


def records(folder: Path) -> list[RunRecord]:
    paths = sorted((folder / "study" / "runs").iterdir())
    return [RunRecord.load(path) for path in paths]


def no_fault(name: str) -> None:
    """Nothing goes wrong."""


def test_an_interrupted_comparison_makes_what_is_missing_and_then_nothing(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "head-only", "lora"), data_dir)
    start.invents = True

    def interrupt(name: str) -> None:
        if name.startswith("head-only-all-seed2"):
            raise KeyboardInterrupt

    start.fault = interrupt
    stopped = run(verbs.compare, "--config", study)
    assert stopped.code == 130
    assert "Run the same command again" in stopped.err
    assert start.jobs == ["head-only-all-seed1", "lora-all-seed1", "head-only-all-seed2"]
    assert len(records(tmp_path)) == 2
    assert not (tmp_path / "study" / "report").exists()

    start.jobs = []
    start.fault = no_fault
    result = run(verbs.compare, "--config", study)
    assert result.code == 0, result.err
    assert start.jobs == ["head-only-all-seed2", "lora-all-seed2"]
    assert "4 runs, 2 finished before" in result.out
    assert "[3/4] head-only, all data, seed 2: test accuracy 100.00 %" in result.out
    assert "[4/4] lora" in result.out

    start.jobs = []
    before = report_files(tmp_path)
    assert run(verbs.compare, "--config", study).code == 0
    assert start.jobs == []
    assert report_files(tmp_path) == before


def test_a_report_alone_finds_the_runs_that_used_sentences_without_labels(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    data = tmp_path / "with-unlabelled"
    shutil.copytree(data_dir, data)
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["unlabelled_hash"] = "u" * 64
    (data / "manifest.json").write_text(json.dumps(manifest))

    recipes = [
        write_recipe(tmp_path, "head-only"),
        write_recipe(tmp_path, "more", regime="head-only", pseudo_labels={}),
    ]
    study = write_study(tmp_path, recipes, data, sizes=[2])
    start.invents = True
    assert run(verbs.compare, "--config", study).code == 0
    before = report_files(tmp_path)

    shutil.rmtree(data)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    assert report_files(tmp_path) == before
    assert "4 of 4 runs" in report_text(tmp_path)


def test_other_settings_are_other_runs_and_older_records_stay(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "head-only", "lora"), data_dir)
    start.invents = True
    assert run(verbs.compare, "--config", study).code == 0

    start.jobs = []
    changed = run(verbs.compare, "--config", study, "--set", "set={lora.r: 2}")
    assert changed.code == 0, changed.err
    assert start.jobs == ["lora-all-seed1", "lora-all-seed2"]
    assert len(records(tmp_path)) == 6
    figures = json.loads(report_files(tmp_path)["report.json"])
    assert figures["runs"] == {"planned": 4, "finished": 4, "missing": []}
    assert figures["recipes"][1]["settings"]["lora"]["r"] == 2


def test_a_failing_run_is_reported_and_loses_no_other(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "head-only", "lora"), data_dir)
    start.invents = True

    def fail(name: str) -> None:
        if name.startswith("lora-all-seed1"):
            raise TrainingError("the loss overflowed", "Set a lower lr")

    start.fault = fail
    result = run(verbs.compare, "--config", study)
    message = result.one_line_error()
    assert "1 of 4 runs failed, first lora, all data, seed 1: the loss overflowed" in message
    assert "study/logs/lora-all-seed1" in message
    assert "[2/4] lora, all data, seed 1: failed: the loss overflowed" in result.out
    assert len(records(tmp_path)) == 3
    assert "3 of 4 runs" in report_text(tmp_path)
    assert "in no figure here:** lora, all data, seed 1" in report_text(tmp_path)

    start.jobs = []
    start.fault = no_fault
    assert run(verbs.compare, "--config", study).code == 0
    assert start.jobs == ["lora-all-seed1"]


@pytest.mark.usefixtures("start")
def test_where_every_run_fails_there_is_no_report(data_dir: Path, tmp_path: Path, run: Run) -> None:
    recipe = write_recipe(tmp_path, "lora", model="no/where/at/all")
    study = write_study(tmp_path, [recipe], data_dir)

    failed = run(verbs.compare, "--config", study)
    assert "2 of 2 runs failed, first lora" in failed.one_line_error()
    assert not (tmp_path / "study" / "report").exists()

    report_only = run(verbs.compare, "--config", study, "--report-only")
    assert "holds no finished run" in report_only.one_line_error()


def test_a_report_folder_with_other_files_is_left_alone(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), data_dir)
    start.invents = True
    notes = tmp_path / "study" / "report" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")

    refused = run(verbs.compare, "--config", study)
    assert "is no comparison report: it holds notes.txt" in refused.one_line_error()
    assert notes.read_text() == "mine"
    assert len(records(tmp_path)) == 2


@pytest.mark.usefixtures("start")
def test_a_run_killed_while_training_continues_and_its_time_is_not_reported(
    tiny_bert: Path,
    data_dir: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bankintent.training import trainer

    recipe = write_recipe(tmp_path, "lora", tiny_bert)
    study = write_study(tmp_path, [recipe], data_dir, seeds=[1], sizes=[5])

    class Killed(trainer.MarkComplete):
        def on_save(self, args, state, control, **options):  # type: ignore[no-untyped-def]
            if (state.epoch or 0) >= 2:
                raise KeyboardInterrupt
            super().on_save(args, state, control, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "MarkComplete", Killed)
        assert run(verbs.compare, "--config", study).code == 130
    assert not (tmp_path / "study" / "runs").exists()

    result = run(verbs.compare, "--config", study)
    assert result.code == 0, result.err
    assert "Going on from" in result.out
    (record,) = records(tmp_path)
    assert record.train_seconds is None
    assert record.run_seconds is None
    assert record.train_rows == 15
    assert record.settings["few_shot"] == 5
    assert not any((tmp_path / "study" / "models").iterdir())
    assert "| lora | 5 per intent (15) |" in report_text(tmp_path)


def test_a_run_in_a_fresh_process_records_the_answers_of_its_model(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    from bankintent.inference.predictor import Predictor

    recipe = write_recipe(tmp_path, "lora", tiny_bert)
    study = write_study(tmp_path, [recipe], data_dir, seeds=[3], keep_models=True)
    result = run(verbs.compare, "--config", study)
    logs = [path.read_text() for path in (tmp_path / "study").rglob("*.log")]
    assert result.code == 0, result.err + "".join(logs)

    (record,) = records(tmp_path)
    (bundle,) = (tmp_path / "study" / "models").iterdir()
    rows = dataset.load(data_dir).read("test")
    predicted = Predictor.load(bundle).logits(rows.texts).argmax(axis=1)
    assert record.predicted == predicted.tolist()
    assert record.metrics["test"]["accuracy"] == pytest.approx(np.mean(predicted == rows.labels))
    assert set(record.metrics) == {"val", "test"}

    assert record.trainable_parameters < record.total_parameters
    assert record.train_rows == len(dataset.load(data_dir).read("train"))
    assert (record.seed, record.settings["seed"]) == (3, 3)
    assert len(record.history) == 2

    assert record.train_seconds is not None
    assert record.run_seconds is not None
    assert 0 < record.train_seconds < record.run_seconds
    assert record.peak_memory_bytes > 1e8  # torch alone is more
    assert record.latency.single_ms > 0

    assert set(record.bytes) == {"merged", "adapter"}
    for part, size in record.bytes.items():
        assert size == sum(path.stat().st_size for path in (bundle / part).rglob("*"))


@pytest.mark.usefixtures("start")
def test_a_run_is_logged_with_the_tags_of_an_evaluation(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = {"uri": uri, "artifacts": str(tmp_path / "mlruns")}
    recipe = write_recipe(tmp_path, "head-only", tiny_bert)
    study = write_study(tmp_path, [recipe], data_dir, seeds=[1], tracking=settings)
    result = run(verbs.compare, "--config", study)
    assert result.code == 0, result.err

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("bankintent")
    logged = client.search_runs([experiment.experiment_id])
    (evaluation,) = (item for item in logged if item.info.run_name.endswith("-eval-test"))
    tags = evaluation.data.tags
    assert tags["dataset"] == "small.csv"
    assert tags["checkpoint"] == evaluation.info.run_name.removesuffix("-eval-test")
    assert tags["split"] == "test"
    assert "test_accuracy" in evaluation.data.metrics


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.4, "4 s"), (100, "2 min"), (3600, "60 min"), (11_000, "3 h 03 min")],
)
def test_times_are_written_as_people_write_them(seconds: float, expected: str) -> None:
    assert duration_text(seconds) == expected


HEAVY = {
    "matplotlib",
    "mlflow",
    "optuna",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
}


def loaded_libraries(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that then prints the heavy libraries that it imported."""
    program += f"import sys\nprint(sorted({HEAVY} & set(sys.modules)))\n"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )


def test_the_verb_answers_config_errors_without_heavy_libraries() -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['bankintent', 'compare', '--config', 'nowhere.yaml']\n"
        "try: runpy.run_module('bankintent', run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code)\n"
    )
    ended = loaded_libraries(program)
    assert ended.stdout.split("\n")[:2] == ["2", "[]"], ended.stdout + ended.stderr
    assert "nowhere.yaml does not exist" in ended.stderr


def test_the_help_of_all_verbs_names_compare() -> None:
    command = [sys.executable, "-m", "bankintent", "--help"]
    page = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert "compare" in page.stdout


def test_the_process_that_starts_the_runs_is_light() -> None:
    """Linux counts a parent's memory into the peak of its child, which a record holds."""
    ended = loaded_libraries("from bankintent.studies import comparison\n")
    assert ended.stdout.strip() == "['pyarrow']", ended.stdout + ended.stderr
