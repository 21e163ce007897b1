"""MLflow logging: what is recorded, and that no fault of it costs a training run."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, Run, train_config
from faults import tracking_stores
from servers import running

import eval as evaluate
import multiregime
from bankintent import files, public_names, tracking, tracking_calls, tracking_view
from bankintent.bundle import layout
from bankintent.config import TrackingConfig
from bankintent.export import mlflow_loader
from bankintent.process import free_port
from bankintent.tracking_calls import CallLine, StoreSilent
from bankintent.tracking_files import UPLOAD, Loading

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
    assert trained.data.tags["kind"] == "training"
    assert trained.data.tags["split"] == "val"
    assert trained.data.tags["bundle"] == str(bundle)
    assert trained.data.tags["regime"] == "lora"
    assert trained.data.tags["dataset"] == "small.csv"
    assert trained.data.tags["backbone"] == str(tiny_bert)
    params = trained.data.params
    assert params["lora.r"] == "4"
    assert int(params["parameters.trainable"]) < int(params["parameters.total"])
    history = client.get_metric_history(trained.info.run_id, "val_accuracy")
    assert [point.step for point in history] == [1, 2]
    for name in ("accuracy", "macro_f1"):
        exact = trained.data.metrics[f"final.val_{name}"]
        assert trained.data.metrics[name] == round(exact, 4)
    files = {file.path for file in client.list_artifacts(trained.info.run_id, "bundle")}
    assert {"bundle/merged", "bundle/adapter", "bundle/manifest.json"} <= files

    evaluated = runs["bundle-eval-test"]
    exact = evaluated.data.metrics["test_accuracy"]
    assert evaluated.data.metrics["accuracy"] == round(exact, 4)
    tags = evaluated.data.tags
    assert (tags["kind"], tags["split"], tags["regime"]) == ("evaluation", "test", "lora")
    assert tags["training_run"] == trained.info.run_id
    reports = {file.path for file in client.list_artifacts(evaluated.info.run_id)}
    assert {"confusion.png", "report.md", "metrics.json"} <= reports


def test_a_store_that_can_never_work_is_refused_before_training(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    Path("broken.db").write_text("this is no database")
    bundle = tmp_path / "bundle"
    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, bundle)
    for uri in ("sqlite:///broken.db", "nonsense://me:secret@x", "http://me:secret@x:port"):
        words = ("--config", config, "--regime", "head-only", "--set", "tracking.enabled=true")
        result = run(multiregime.main, *words, "--set", f"tracking.uri={uri}")
        message = result.one_line_error()
        assert "tracking.uri cannot be used" in message
        assert "secret" not in result.out + message
    assert not bundle.exists()


def test_a_run_with_a_dead_server_ends_with_one_warning_and_publishes(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    bundle = tmp_path / "bundle"
    uri = f"http://me:secret@127.0.0.1:{free_port()}"
    config = train_config(
        tmp_path / "train.yaml", tiny_bert, data_dir, bundle, tracking={"uri": uri}, epochs=1
    )
    result = run(multiregime.main, "--config", config, "--regime", "head-only")
    assert result.code == 0, result.err
    assert result.out.count("warning: tracking stopped") == 1
    assert "secret" not in result.out + result.err

    assert (bundle / "manifest.json").is_file()
    for name in files.list_files(bundle):
        assert b"secret" not in (bundle / name).read_bytes(), name
    assert "uri" not in yaml.safe_load((bundle / "config.yaml").read_text())["tracking"]


def test_stores_that_fail_are_held_to() -> None:
    """The first two: a port that nobody listens on, and a server that is slow but answers."""
    assert not tracking_stores.run(2).gave_way


def test_a_call_that_hangs_is_given_up_and_one_that_works_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking_calls, "PATIENCE", 1.0)
    monkeypatch.setattr(tracking_calls, "MOST_BUSY", 0.0)
    never = threading.Event()
    done: list[int] = []

    line = CallLine()
    # Slow together, but each of them comes to its end.
    for number in range(6):
        line.add(lambda number=number: (time.sleep(0.3), done.append(number)))
    line.wait()
    assert done == [0, 1, 2, 3, 4, 5]

    line.add(never.wait)
    line.add(lambda: done.append(7))
    with pytest.raises(StoreSilent):
        line.wait()
    line.give_up(StoreSilent())
    never.set()
    assert 7 not in done


def test_a_file_that_is_being_taken_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_calls, "PATIENCE", 1.0)
    monkeypatch.setattr(tracking_calls, "MOST_BUSY", 0.0)

    def take_in_parts() -> None:
        UPLOAD.begin(10)
        for _ in range(10):
            time.sleep(0.2)
            UPLOAD.add(1)
        UPLOAD.end()

    line = CallLine()
    line.add(take_in_parts)
    line.wait()
    line.close()

    # A request that is repeated sends the same bytes again: no progress.
    def send_again() -> None:
        UPLOAD.begin(1)
        for _ in range(20):
            time.sleep(0.1)
            UPLOAD.add(1)

    line = CallLine()
    line.add(send_again)
    with pytest.raises(StoreSilent):
        line.wait()
    line.give_up(StoreSilent())


@pytest.mark.parametrize(
    ("value", "public"),
    [
        ("artifacts/models/x", "artifacts/models/x"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("/srv/customer/models/x", "x"),
        ("~/models/x", "x"),
        ("../customer/x", "x"),
        ("C:\\Users\\me\\x", "x"),
    ],
)
def test_a_path_is_recorded_without_the_machine(value: str, public: str) -> None:
    assert public_names.path(value) == public
    assert public_names.path(str(Path.cwd() / "data")) == "data"


@pytest.mark.parametrize(
    ("value", "public"),
    [
        ("sqlite:///artifacts/mlflow.db", "sqlite:///artifacts/mlflow.db"),
        ("sqlite:////srv/customer/mlflow.db", "sqlite:///mlflow.db"),
        ("https://me:secret@host/path", None),
        ("postgresql://me:secret@host/runs?sslmode=require", None),
        ("databricks", "databricks"),
    ],
)
def test_an_address_is_recorded_where_others_may_have_it(value: str, public: str | None) -> None:
    assert public_names.uri(value) == public


LOADING = Loading(Path(mlflow_loader.__file__), {"torch": "2.13.0+cpu"})
LARGE = b"x" * files.LINKED_BYTES


def fake_bundle(path: Path) -> Path:
    """A folder like a bundle: a large file, and a small one."""
    (path / "merged").mkdir(parents=True)
    (path / "merged" / "model.safetensors").write_bytes(LARGE)
    (path / "README.md").write_text("card")
    return path


def track(bundle: Path, **settings: Any) -> tuple[Any, Path]:
    """Log a bundle; returns its run, and the folder in which MLflow keeps the bundle."""
    config = TrackingConfig.model_validate(TRACKED | settings)
    with tracking.run(config, "run", {}) as tracker:
        tracker.bundle(bundle, LOADING)
    found = open_store(Path.cwd()).get_run(tracker.run_id)
    return found, Path(config.artifacts, found.info.run_id, "artifacts", "bundle")


@pytest.mark.parametrize("models", ["link", "copy", "none"])
@pytest.mark.parametrize("artifacts", ["t/runs", "my runs #1"])
def test_a_bundle_is_kept_as_links_as_copies_or_as_its_path(
    models: str, artifacts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = fake_bundle(tmp_path / "bundle")
    found, kept = track(bundle, models=models, artifacts=artifacts)
    assert found.data.tags["bundle"] == str(bundle)
    assert capsys.readouterr().out == ""
    if models == "none":
        assert not kept.exists()
        return

    weights = kept / "merged" / "model.safetensors"
    assert weights.read_bytes() == LARGE
    assert weights.samefile(bundle / "merged" / "model.safetensors") == (models == "link")
    # What MLflow adds is beside the bundle's files, and not in the bundle.
    added = {"MLmodel", "requirements.txt", "python_env.yaml", "code/mlflow_loader.py"}
    assert set(files.list_files(kept)) == added | set(files.list_files(bundle))
    requirements = (kept / "requirements.txt").read_text().splitlines()
    assert "torch==2.13.0" in requirements


def test_without_links_the_store_gets_a_copy_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    bundle = fake_bundle(tmp_path / "bundle")
    monkeypatch.setattr(os, "link", other_disk)
    _, kept = track(bundle)
    assert (kept / "merged" / "model.safetensors").read_bytes() == LARGE
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "holds a copy of the bundle" in lines[0]


def test_deleting_a_run_leaves_its_bundle_and_a_new_bundle_leaves_the_run(tmp_path: Path) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    bundle = fake_bundle(tmp_path / "bundle")
    found, kept = track(bundle)
    published = fake_bundle(tmp_path / "staging")
    (published / "merged" / "model.safetensors").write_bytes(b"new")
    files.publish(published, bundle)
    assert (kept / "merged" / "model.safetensors").read_bytes() == LARGE

    found, kept = track(bundle)
    # As `mlflow gc` does with the files of a deleted run.
    get_artifact_repository(found.info.artifact_uri).delete_artifacts()
    assert not kept.exists()
    assert (bundle / "merged" / "model.safetensors").read_bytes() == b"new"


def test_a_tracked_bundle_is_registered_and_loaded_as_a_model(published: Path) -> None:
    store = f"sqlite:///{published}/t/mlflow.db"
    bundle = published / "bundle"
    before = {name: files.sha256(bundle / name) for name in files.list_files(bundle)}
    program = (
        "import json, sys, mlflow\n"
        f"mlflow.set_tracking_uri({store!r})\n"
        "[run] = mlflow.search_runs(search_all_experiments=True, output_format='list')\n"
        "version = mlflow.register_model(f'runs:/{run.info.run_id}/bundle', 'intents')\n"
        "model = mlflow.pyfunc.load_model(f'models:/intents/{version.version}')\n"
        "texts = ['i lost\\n my  card', 'top up']\n"
        "print(json.dumps(model.predict(texts)))\n"
        "print(version.source)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *_, answers, source = done.stdout.splitlines()

    from bankintent.inference.predictor import Predictor

    predictor = Predictor.load(bundle)
    logits = predictor.logits(["i lost my card", "top up"])
    for answer, row in zip(json.loads(answers), logits, strict=True):
        assert answer["label"] == predictor.labels.names[row.argmax()]
        assert answer["score"] == pytest.approx(float(max(softmax(row))), abs=1e-4)

    # The artifact is a whole bundle, and the bundle is as it was.
    kept = Path(source.removeprefix("file://"))
    assert (kept / "merged" / "model.safetensors").samefile(bundle / "merged/model.safetensors")
    assert layout.open_checkpoint(kept).manifest is not None
    assert {name: files.sha256(bundle / name) for name in files.list_files(bundle)} == before


def softmax(row: Any) -> Any:
    from bankintent.measures import metrics

    return metrics.softmax(row[None])[0]


def break_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)


def break_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of an MLflow that this one does not know."""
    track(fake_bundle(Path("earlier")))
    with contextlib.closing(sqlite3.connect("t/mlflow.db")) as connection, connection:
        connection.execute("update alembic_version set version_num = 'of-tomorrow'")
    shutil.copy("t/mlflow.db", "t/tomorrow.db")


@pytest.mark.parametrize("fault", [break_import, break_revision])
def test_no_fault_of_mlflow_is_raised(
    fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault(monkeypatch)
    capsys.readouterr()
    config = TrackingConfig.model_validate(TRACKED | {"uri": "sqlite:///t/tomorrow.db"})
    with tracking.run(config, "run", {}) as tracker:
        tracker.metrics({"accuracy": 0.5})
        tracker.bundle(fake_bundle(tmp_path / "bundle"), LOADING)
    assert capsys.readouterr().out.count("warning: tracking stopped") == 1
    assert tracker.run_id is None
    assert not tracker.keeps_models


def test_the_address_of_the_runs_opens_a_view_with_their_accuracy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with tracking.run(TrackingConfig(), "run", {}):
        pass
    capsys.readouterr()
    tracking.main()
    line = capsys.readouterr().out
    assert "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=bankintent&" in line

    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd()}/artifacts/mlflow.db")
    saved = json.loads(client.get_experiment("1").tags[tracking_view.TAG])
    columns = json.loads(saved["state"])["selectedColumns"]
    assert columns[:3] == ["tags.`kind`", "tags.`split`", "metrics.`accuracy`"]

    # Who has changed the view keeps it.
    client.set_experiment_tag("1", tracking_view.TAG, "of a user")
    tracking.main()
    assert client.get_experiment("1").tags[tracking_view.TAG] == "of a user"


@pytest.mark.proof
def test_mlflows_page_shows_the_accuracy_of_each_run_and_its_kind(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("no browser: apt-get install chromium")

    config = TrackingConfig.model_validate(TRACKED)
    with tracking.run(config, "cards", {tracking.KIND: tracking.TRAINING}) as tracker:
        tracker.metrics(tracking.headline({"accuracy": 0.87654, "macro_f1": 0.5}))

    store = f"sqlite:///{tmp_path}/t/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store]
    command += ["--port", "{port}", "--workers", "1"]
    with (
        running(command, tmp_path, ready="/health", whole_group=True) as server,
        playwright.sync_playwright() as browsers,
    ):
        browser = browsers.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 800})
        page.goto(tracking_view.address("1", server.url))
        page.get_by_text("cards", exact=True).wait_for(timeout=60_000)
        for text in ("accuracy", "macro_f1", "0.8765", "kind", "training"):
            page.get_by_text(text, exact=True).first.wait_for(timeout=20_000)
        browser.close()


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
