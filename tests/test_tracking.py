"""MLflow logging: what is recorded, and that no fault of it costs a training run."""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Run, train_config

import eval as evaluate
import multiregime
from bankintent import tracking
from bankintent.config import TrackingConfig

TRACKED = {"uri": "sqlite:///t/mlflow.db", "artifacts": "t/runs"}
"""Settings of a store in the test's own folder."""


def open_store(folder: Path) -> Any:
    """A client of that store. MLflow keeps one store for each URI text, so the path is absolute."""
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{folder}/t/mlflow.db")


def test_a_run_records_tags_flat_parameters_epochs_and_files(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, bundle, tracking=TRACKED)
    result = run(multiregime.main, "--config", config, "--regime", "lora")
    assert result.code == 0, result.err
    assert "warning" not in result.out

    overrides = []
    for key, value in TRACKED.items():
        overrides += ["--set", f"tracking.{key}={value}"]
    assert run(evaluate.main, "--checkpoint_path", bundle, *overrides).code == 0

    client = open_store(tmp_path)
    experiment = client.get_experiment_by_name("bankintent")
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"bundle", "bundle-eval-test"}

    trained = runs["bundle"]
    assert trained.info.status == "FINISHED"
    assert trained.data.tags["regime"] == "lora"
    assert trained.data.tags["dataset"] == "small.csv"
    assert trained.data.tags["backbone"] == str(tiny_bert)
    params = trained.data.params
    assert params["lora.r"] == "4"
    assert int(params["parameters.trainable"]) < int(params["parameters.total"])
    history = client.get_metric_history(trained.info.run_id, "val_accuracy")
    assert [point.step for point in history] == [1, 2]
    assert "final.val_macro_f1" in trained.data.metrics
    files = {file.path for file in client.list_artifacts(trained.info.run_id, "bundle")}
    assert {"bundle/merged", "bundle/adapter", "bundle/manifest.json"} <= files

    evaluated = runs["bundle-eval-test"]
    assert "test_accuracy" in evaluated.data.metrics
    reports = {file.path for file in client.list_artifacts(evaluated.info.run_id)}
    assert {"confusion.png", "report.md", "metrics.json"} <= reports


@pytest.mark.parametrize("fault", ["broken", "uri"])
def test_a_tracking_fault_does_not_stop_training(
    fault: str, tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    store = tmp_path / "t" / "mlflow.db"
    store.parent.mkdir()
    store.write_text("this is no database")
    uri = {"broken": "sqlite:///t/mlflow.db", "uri": "nonsense://x"}[fault]

    bundle = tmp_path / "bundle"
    config = train_config(
        tmp_path / "train.yaml", tiny_bert, data_dir, bundle, tracking={"uri": uri}, epochs=1
    )
    result = run(multiregime.main, "--config", config, "--regime", "head-only")
    assert result.code == 0, result.err
    assert result.out.count("warning: tracking stopped") == 1
    assert (bundle / "manifest.json").is_file()


def test_a_failing_run_is_marked_failed() -> None:
    config = TrackingConfig.model_validate(TRACKED)
    with pytest.raises(ZeroDivisionError), tracking.run(config, "bad", {}):
        raise ZeroDivisionError

    with sqlite3.connect("t/mlflow.db") as connection:
        row = connection.execute("select status from runs where name = 'bad'").fetchone()
    connection.close()
    assert row == ("FAILED",)


def test_without_files_a_run_logs_the_rest(tmp_path: Path) -> None:
    Path("report.md").write_text("text")
    config = TrackingConfig.model_validate({**TRACKED, "files": False})
    with tracking.run(config, "light", {}) as tracker:
        tracker.params({"lr": 0.1})
        tracker.files(Path("report.md"))
        run_id = tracker.run_id

    client = open_store(tmp_path)
    assert client.get_run(run_id).data.params == {"lr": "0.1"}
    assert client.list_artifacts(run_id) == []


def test_a_run_that_is_not_tracked_imports_no_mlflow(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bankintent import tracking\n"
        "from bankintent.config import TrackingConfig\n"
        "with tracking.run(TrackingConfig(enabled=False), 'off', {'tag': 'x'}) as tracker:\n"
        "    tracker.params({'lr': 0.1})\n"
        "    tracker.metrics({'accuracy': 0.9}, step=1)\n"
        "    tracker.files(Path('file.txt'))\n"
        "    tracker.files(Path('.'), 'folder')\n"
        "print('mlflow' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert result.stdout.strip() == "False", result.stdout + result.stderr


def test_nested_parameters_become_dotted_names() -> None:
    nested = {"a": 1, "lora": {"r": 2, "x": {"y": 3}}}
    assert tracking.flatten(nested) == {"a": 1, "lora.r": 2, "lora.x.y": 3}
