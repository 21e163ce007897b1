"""MLflow logging: what is recorded, and that no fault of it costs a training run."""

import sqlite3
from pathlib import Path

import pytest
from conftest import Run, train_config

import eval as evaluate
import multiregime
from bankintent import tracking
from bankintent.config import TrackingConfig


def test_a_run_records_tags_flat_parameters_epochs_and_files(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    import mlflow

    tracked = {"uri": "sqlite:///t/mlflow.db", "artifacts": "t/runs"}
    config = train_config(
        tmp_path / "train.yaml", tiny_bert, data_dir, tmp_path / "bundle", tracking=tracked
    )
    result = run(multiregime.main, "--config", config, "--regime", "lora")
    assert result.code == 0, result.err
    assert "warning" not in result.out
    overrides = (
        "--set",
        "tracking.uri=sqlite:///t/mlflow.db",
        "--set",
        "tracking.artifacts=t/runs",
    )
    assert run(evaluate.main, "--checkpoint_path", tmp_path / "bundle", *overrides).code == 0

    client = mlflow.MlflowClient("sqlite:///t/mlflow.db")
    experiment = client.get_experiment_by_name("bankintent")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"bundle", "bundle-eval-test"}
    trained = runs["bundle"]
    assert trained.info.status == "FINISHED"
    assert trained.data.tags["regime"] == "lora"
    assert trained.data.tags["dataset"] == "small.csv"
    assert trained.data.tags["backbone"] == str(tiny_bert)
    assert trained.data.params["lora.r"] == "4"
    assert int(trained.data.params["parameters.trainable"]) < int(
        trained.data.params["parameters.total"]
    )
    history = client.get_metric_history(trained.info.run_id, "val_accuracy")
    assert [point.step for point in history] == [1, 2]
    assert "final.val_macro_f1" in trained.data.metrics
    files = {f.path for f in client.list_artifacts(trained.info.run_id, "bundle")}
    assert {"bundle/merged", "bundle/adapter", "bundle/manifest.json"} <= files
    reports = {f.path for f in client.list_artifacts(runs["bundle-eval-test"].info.run_id)}
    assert {"confusion.png", "report.md", "metrics.json"} <= reports
    assert "test_accuracy" in runs["bundle-eval-test"].data.metrics


@pytest.mark.parametrize("fault", ["broken", "uri"])
def test_a_tracking_fault_does_not_stop_training(
    fault: str, tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "mlflow.db").write_text("this is no database")
    uri = {"broken": "sqlite:///t/mlflow.db", "uri": "nonsense://x"}[fault]
    config = train_config(
        tmp_path / "train.yaml",
        tiny_bert,
        data_dir,
        tmp_path / "bundle",
        tracking={"uri": uri},
        epochs=1,
    )
    result = run(multiregime.main, "--config", config, "--regime", "head-only")
    assert result.code == 0, result.err
    assert result.out.count("warning: tracking stopped") == 1
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_a_failing_run_is_marked_failed(tmp_path: Path) -> None:
    config = TrackingConfig(uri="sqlite:///t/mlflow.db", artifacts=Path("t/runs"))
    with pytest.raises(ZeroDivisionError), tracking.run(config, "bad", {}):
        raise ZeroDivisionError
    with sqlite3.connect("t/mlflow.db") as connection:
        assert connection.execute("select status from runs where name = 'bad'").fetchone() == (
            "FAILED",
        )
    connection.close()


def test_nested_parameters_become_dotted_names() -> None:
    assert tracking.flatten({"a": 1, "lora": {"r": 2, "x": {"y": 3}}}) == {
        "a": 1,
        "lora.r": 2,
        "lora.x.y": 3,
    }
