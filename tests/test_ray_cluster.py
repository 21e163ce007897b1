"""Ray on a cluster of two nodes: the results of the local engine, with a node or the driver killed on the way."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, write_yaml
from servers import serving
from study_fixtures import write_recipe, write_recipes, write_study

from bankintent import process
from bankintent.studies.record import RunRecord

# Minutes each, on a machine with other work.
pytestmark = [pytest.mark.scale, pytest.mark.timeout(1800)]

SECONDS = 900
PAUSE = 0.05


class Nodes:
    """Two nodes of one CPU each; the second one can be killed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "tests" / "ray_nodes.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        )
        self.address = self._line()
        assert ":" in self.address

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill_one(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self._line() == "killed"

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    both = Nodes()
    try:
        yield both
    finally:
        both.stop()


@contextlib.contextmanager
def command(folder: Path, address: str, *words: object) -> Iterator["subprocess.Popen[str]"]:
    """`python -m bankintent ...` in a process of its own, on the cluster."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bankintent", *map(str, words)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "RAY_ADDRESS": address},
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def finish(child: "subprocess.Popen[str]") -> str:
    output, _ = child.communicate(timeout=SECONDS)
    assert child.returncode == 0, output
    return output


def run_words(folder: Path, address: str, *words: object) -> str:
    with command(folder, address, *words) as child:
        return finish(child)


def until(condition: Callable[[], bool], child: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < end
        time.sleep(PAUSE)


# Batch scoring


def write_texts(folder: Path, rows: int) -> None:
    """`in.parquet`, and the same rows in four files of `shards/`."""
    texts: list[str | None] = [
        f"{'my card has not arrived ' * (i % 5)}pin {i}" for i in range(rows)
    ]
    texts[3] = None
    texts[rows // 2] = "  "
    table = pa.table({"id": list(range(rows)), "text": texts})
    pq.write_table(table, folder / "in.parquet")

    shards = folder / "shards"
    shards.mkdir()
    (shards / "_SUCCESS").touch()
    step = rows // 4 + 1
    for number, start in enumerate(range(0, rows, step)):
        pq.write_table(table.slice(start, step), shards / f"part-{number}.parquet")


def score(source: str, output: str, bundle: Path, rows: int, *more: object) -> list[object]:
    chunk = ("--set", f"chunk_rows={rows}", "--set", "threads=1")
    return ["score", source, output, "--model-dir", bundle, *chunk, *more]


def test_scores_have_the_bytes_of_the_local_engine(
    nodes: Nodes, served_bundle: Path, tmp_path: Path
) -> None:
    write_texts(tmp_path, 900)
    ray = ("--engine", "ray")
    run_words(tmp_path, "", *score("in.parquet", "local.parquet", served_bundle, 70))
    run_words(tmp_path, nodes.address, *score("in.parquet", "ray.parquet", served_bundle, 70, *ray))
    run_words(tmp_path, nodes.address, *score("shards", "shards.parquet", served_bundle, 70, *ray))

    expected = (tmp_path / "local.parquet").read_bytes()
    assert (tmp_path / "ray.parquet").read_bytes() == expected
    assert (tmp_path / "shards.parquet").read_bytes() == expected
    assert pq.read_table(tmp_path / "ray.parquet")["id"].to_pylist() == list(range(900))
    assert not list(tmp_path.glob("*.work"))
    assert not list(tmp_path.glob(".shared*"))


def parts(folder: Path) -> dict[str, int]:
    """The finished parts of a run, and the inode of each: one that is made again has another."""
    return {path.name: path.stat().st_ino for path in (folder / "ray.parquet.work").glob("part-*")}


def test_a_killed_node_loses_and_doubles_no_row(
    nodes: Nodes, served_bundle: Path, tmp_path: Path
) -> None:
    write_texts(tmp_path, 12_000)
    words = score("in.parquet", "ray.parquet", served_bundle, 40, "--engine", "ray")
    with command(tmp_path, nodes.address, *words) as child:
        until(lambda: len(parts(tmp_path)) >= 20, child)
        nodes.kill_one()
        assert len(parts(tmp_path)) < 300
        finish(child)

    run_words(tmp_path, "", *score("in.parquet", "local.parquet", served_bundle, 40))
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()


def test_a_killed_driver_keeps_the_parts_and_the_local_engine_goes_on(
    nodes: Nodes, served_bundle: Path, tmp_path: Path
) -> None:
    write_texts(tmp_path, 12_000)
    words = score("in.parquet", "ray.parquet", served_bundle, 40)
    with command(tmp_path, nodes.address, *words, "--engine", "ray") as child:
        until(lambda: len(parts(tmp_path)) >= 20, child)
        child.kill()
        child.wait()

    assert not (tmp_path / "ray.parquet").exists()
    assert 20 <= len(parts(tmp_path)) < 300
    assert "rows are scored already" in run_words(tmp_path, "", *words)
    run_words(tmp_path, "", *score("in.parquet", "local.parquet", served_bundle, 40))
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()


# Studies


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """What the runs of a study have found, without their times and sizes in memory."""
    found = {}
    for path in sorted((folder / "study" / "runs").iterdir()):
        record = RunRecord.load(path)
        assert record.peak_memory_bytes > 100 << 20
        for epoch in record.history:
            del epoch["seconds"]
        found[path.name] = {
            "predicted": record.predicted,
            "metrics": record.metrics,
            "history": record.history,
            "settings": record.settings,
            "train_rows": record.train_rows,
        }
    return found


def write_small_study(folder: Path, data: Path, model: Path, **more: Any) -> Path:
    folder.mkdir()
    recipes = [write_recipe(folder, name, model) for name in ("head-only", "lora")]
    return write_study(folder, recipes, data, **more)


def test_a_study_finds_the_same_with_a_node_killed_and_the_driver_killed(
    nodes: Nodes, data_dir: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    study = write_small_study(there, data_dir, tiny_bert, engine="ray")
    words = ("compare", "--config", study)

    def finished() -> int:
        return len(list((there / "study" / "runs").glob("*.json")))

    with command(there, nodes.address, *words) as child:
        until(lambda: finished() >= 1, child)
        child.kill()
        child.wait()
    kept = {path.name: path.read_bytes() for path in (there / "study" / "runs").glob("*.json")}
    assert 1 <= len(kept) < 4

    with command(there, nodes.address, *words) as child:
        # Both nodes work on a run.
        until(lambda: len(list((there / "study" / "models").glob(".*.lock"))) == 2, child)
        nodes.kill_one()
        output = finish(child)
    assert "finished before" in output
    for name, content in kept.items():
        assert (there / "study" / "runs" / name).read_bytes() == content

    here = tmp_path / "here"
    study = write_small_study(here, data_dir, tiny_bert)
    run_words(here, "", "compare", "--config", study)
    assert len(records(here)) == 4
    assert records(there) == records(here)
    assert not list((there / "study").glob(".shared*"))


def test_a_sweep_keeps_its_trials_and_a_mistake_is_not_repeated(
    nodes: Nodes, data_dir: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    sweep = {"trials": 3, "space": {"head-only": {"lr": [1e-3, 1e-2, 3e-2]}}}
    results = []
    for engine in ("ray", "local"):
        folder = tmp_path / engine
        folder.mkdir()
        recipes = [write_recipe(folder, "head-only", tiny_bert)]
        study = write_study(folder, recipes, data_dir, seeds=[1], sweep=sweep, engine=engine)
        run_words(folder, nodes.address, "compare", "--config", study)
        results.append(json.loads((folder / "study" / "sweep" / "head-only.json").read_text()))
        assert (folder / "study" / "sweep" / "optuna.db").is_file()
    assert results[0] == results[1]

    broken = tmp_path / "broken"
    broken.mkdir()
    recipe = write_recipe(broken, "head-only", tmp_path / "no-such-model")
    study = write_study(broken, [recipe], data_dir, seeds=[1], engine="ray")
    with command(broken, nodes.address, "compare", "--config", study) as child:
        output, _ = child.communicate(timeout=SECONDS)
    assert child.returncode == 2, output
    assert "no-such-model" in output
    assert "Traceback" not in output
    # Its log is written anew whenever it is begun.
    assert len(list((broken / "study" / "logs").glob("*.log"))) == 1


def test_nodes_without_the_shared_folder_are_named(
    nodes: Nodes, data_dir: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    recipes = write_recipes(tmp_path, "head-only")
    study = write_study(tmp_path, recipes, data_dir, engine="ray", ray={"cpus": 2})
    with command(tmp_path, nodes.address, "compare", "--config", study) as child:
        output, _ = child.communicate(timeout=SECONDS)
    assert "no node of the cluster has room for 2 CPUs" in output
    assert child.returncode == 2


# Serving


@contextlib.contextmanager
def served(folder: Path, address: str, bundle: Path | None, **more: Any) -> Iterator[str]:
    """The address of the API on Ray Serve."""
    port = process.free_port()
    config = write_yaml(folder / "ray-serve.yaml", threads=1, port=port, engine="ray", **more)
    model = () if bundle is None else ("--model-dir", bundle)
    with command(folder, address, "serve", "--config", config, *model) as child:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            try:
                return httpx.get(f"{url}/health/ready", timeout=30).status_code == 200
            except httpx.TransportError:
                return False

        until(ready, child)
        yield url
        child.send_signal(signal.SIGTERM)
        finish(child)


def test_answers_on_ray_serve_are_those_of_the_plain_server(
    nodes: Nodes, served_bundle: Path, tmp_path: Path
) -> None:
    bodies: list[Any] = [
        {"text": "my card has not arrived"},
        {"text": ["pin", "rate " * 40, "lost"], "top_k": 5},
        {"text": ""},
        {"text": 3},
        {"inputs": "my card"},
        {"text": "my card", "explain": True},
        {"text": ["x"] * 65},
    ]
    with (
        serving(tmp_path / "plain", MODEL_DIR=str(served_bundle)) as plain,
        served(
            tmp_path, nodes.address, served_bundle, ray={"min_replicas": 2, "max_replicas": 2}
        ) as url,
    ):
        for path in ("/predict", "/predict/"):
            for body in bodies:
                expected = plain.post(path, body)
                found = httpx.post(url + path, json=body, timeout=60)
                assert (found.status_code, found.json()) == (expected.status_code, expected.json())
        for path in ("/info", "/nothing", "/health/ready", "/card"):
            assert httpx.get(url + path, timeout=60).text == plain.get(path).text

        # Whichever replica was on the killed node: the other one answers.
        nodes.kill_one()
        answers = [httpx.post(f"{url}/predict", json=bodies[0], timeout=60) for _ in range(40)]
        right = [answer for answer in answers if answer.status_code == 200]
        assert {answer.text for answer in right} == {plain.post("/predict", bodies[0]).text}
        assert answers[-1].status_code == 200


def test_several_models_are_loaded_when_asked_for_and_a_broken_one_harms_none(
    nodes: Nodes, served_bundle: Path, trained: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(served_bundle, tmp_path / "broken"))
    folders = {"one": served_bundle, "two": trained / "bundle", "broken": broken}
    models = {name: {"model_dir": str(path)} for name, path in folders.items()}
    body = {"text": "my card has not arrived"}

    with (
        serving(tmp_path / "plain-one", MODEL_DIR=str(served_bundle)) as one,
        serving(tmp_path / "plain-two", MODEL_DIR=str(trained / "bundle")) as two,
        served(tmp_path, nodes.address, None, models=models, ray={"max_models": 1}) as url,
    ):
        # Verified at the start, and spoiled afterwards.
        (broken / "manifest.json").write_text("{")
        for name, plain in (("one", one), ("two", two), ("one", one)):
            expected = plain.post("/predict", body).text
            named = {"serve_multiplexed_model_id": name}
            found = httpx.post(f"{url}/predict", json=body, headers=named, timeout=60)
            assert found.text == expected
            by_path = httpx.post(f"{url}/models/{name}/predict", json=body, timeout=60)
            assert by_path.text == expected

        statuses = {}
        for name in ("broken", "none", "one"):
            answer = httpx.post(f"{url}/models/{name}/predict", json=body, timeout=60)
            statuses[name] = answer.status_code
        assert statuses == {"broken": 503, "none": 404, "one": 200}
        assert httpx.post(f"{url}/predict", json=body, timeout=60).status_code == 404


def test_a_replica_refuses_to_serve_without_the_key_of_the_command(
    nodes: Nodes, served_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANKINTENT_API_KEY", "secret-of-the-command")
    config = write_yaml(tmp_path / "s.yaml", port=process.free_port(), engine="ray")
    words = ("serve", "--config", config, "--model-dir", served_bundle)
    with command(tmp_path, nodes.address, *words) as child:
        output, _ = child.communicate(timeout=SECONDS)
    assert child.returncode == 2, output
    assert "the replicas do not start" in output
    assert "secret-of-the-command" not in output


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    shutil.rmtree(tmp_path / "there", ignore_errors=True)
