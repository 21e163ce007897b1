"""`engine: ray` without a cluster: its config, its messages, and inputs of several files."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import score_fixtures
from conftest import Run, write_yaml
from study_fixtures import InProcess, write_recipes, write_study

from bankintent import __main__ as verbs
from bankintent import distribution, process
from bankintent.config import CompareConfig, ScoreConfig, ServeConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError, DataError, ModelError
from bankintent.on_ray import tasks
from bankintent.on_ray.cluster import Cluster, Node, user_error
from bankintent.on_ray.studies import require_one_writer
from bankintent.scoring import precheck, shards
from bankintent.scoring import score as scoring


@pytest.fixture
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = distribution.importlib.util.find_spec

    def without_ray(name: str, package: str | None = None) -> object:
        return None if name == "ray" else find_spec(name, package)

    monkeypatch.setattr(distribution.importlib.util, "find_spec", without_ray)


@pytest.mark.usefixtures("_no_ray")
def test_without_ray_the_message_names_the_line_that_installs_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "head-only"), tmp_path, engine="ray")
    (tmp_path / "in.csv").write_text("text\nmy card\n")
    commands = (
        (verbs.compare, "--config", study),
        (verbs.score, "in.csv", "out.csv", "--model-dir", tmp_path, "--engine", "ray"),
    )
    for words in commands:
        message = run(*words).one_line_error()
        assert message == (
            "error: engine: ray needs ray, which is not installed."
            " Run pip install -r requirements-ray.txt."
        )
    monkeypatch.setattr(distribution, "SHIPPED", tmp_path)
    message = run(*commands[1]).one_line_error()
    assert "Run pip install 'bankintent[ray]'." in message
    assert not (tmp_path / "out.csv").exists()


def test_the_engine_is_local_unless_it_is_named(tmp_path: Path, run: Run) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "head-only"), tmp_path)
    assert load(CompareConfig, study).engine == "local"
    assert load(ServeConfig, None).engine == "local"
    assert "ray" not in sys.modules or sys.modules["ray"] is not None

    message = run(verbs.compare, "--config", study, "--set", "engine=spark").one_line_error()
    assert "engine" in message
    assert "'local' or 'ray'" in message


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"address": "ray://head:10001"}, "run the command on one of its nodes"),
        ({"cpus": 0}, "cpus"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas is 3, above max_replicas (2)"),
        ({"target_requests": 300}, "target_requests is 300, above max_requests (256)"),
    ],
)
def test_a_section_that_cannot_be_is_refused(
    section: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = write_yaml(tmp_path / "serve.yaml", ray=section)
    with pytest.raises(ConfigError) as refused:
        load(ServeConfig, path)
    assert message in str(refused.value)


def test_an_address_where_nothing_listens_is_named_at_once(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "in.csv").write_text("text\nmy card\n")
    address = f"127.0.0.1:{process.free_port()}"
    words = ("in.csv", "out.csv", "--model-dir", tmp_path, "--engine", "ray")
    message = run(verbs.score, *words, "--set", f"ray.address={address}").one_line_error()
    assert f"there is no Ray cluster at {address}" in message


class FakeCluster(Cluster):
    """A cluster with nodes that are made up."""

    made_up: tuple[Node, ...] = ()

    @property
    def nodes(self) -> list[Node]:
        return list(self.made_up)


def fake_cluster(monkeypatch: pytest.MonkeyPatch, nodes: list[Node], **section: object) -> Cluster:
    monkeypatch.setattr(FakeCluster, "made_up", tuple(nodes))
    config = ServeConfig.model_validate({"ray": section})
    return FakeCluster(config.ray)


def test_room_is_counted_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        Node("a", "10.0.0.1", {"CPU": 4, "memory": 8 << 30}),
        Node("b", "10.0.0.2", {"CPU": 3, "memory": 64 << 30}),
    ]
    assert fake_cluster(monkeypatch, nodes, cpus=2).require_room() == 3
    assert fake_cluster(monkeypatch, nodes, memory_gb=4).require_room() == 5
    with pytest.raises(ConfigError, match="no node of the cluster has room for 5 CPUs"):
        fake_cluster(monkeypatch, nodes, cpus=5).require_room()
    with pytest.raises(ConfigError, match="1 GPUs"):
        fake_cluster(monkeypatch, nodes, gpus=1).require_room()


def test_several_machines_do_not_write_one_sqlite_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = [Node("a", "10.0.0.1", {}), Node("b", "10.0.0.1", {})]
    two = [Node("a", "10.0.0.1", {}), Node("b", "10.0.0.2", {})]
    recipes = write_recipes(tmp_path, "head-only")
    off = load(CompareConfig, write_study(tmp_path, recipes, tmp_path))
    on = load(CompareConfig, write_study(tmp_path, recipes, tmp_path, tracking={}))
    require_one_writer(on, fake_cluster(monkeypatch, one))
    require_one_writer(off, fake_cluster(monkeypatch, two))
    with pytest.raises(ConfigError, match="Name an MLflow server"):
        require_one_writer(on, fake_cluster(monkeypatch, two))


def test_an_error_of_the_user_is_found_in_what_ray_made_of_it() -> None:
    original = ModelError("it is wrong", "Train it again")
    wrapped = RuntimeError("a task failed")
    wrapped.__cause__ = original
    assert user_error(wrapped) is original
    assert user_error(RuntimeError("another")) is None


def test_a_task_runs_in_the_folder_of_the_driver(tmp_path: Path) -> None:
    marker = tmp_path / ".shared-1"
    marker.write_text(".shared-1")
    seen = tasks.look(marker, [tmp_path, tmp_path / "none"])
    assert (seen.has_marker, seen.lacks) == (True, [tmp_path / "none"])
    marker.write_text("other")
    assert not tasks.look(marker, []).has_marker
    assert tasks.is_seen(marker)


def test_an_engine_may_end_runs_in_any_order(
    data_dir: Path, tmp_path: Path, start: InProcess
) -> None:
    from bankintent.studies import comparison
    from bankintent.studies.engine import Ended, LocalEngine, Task

    class Backwards(LocalEngine):
        at_once = 2

        def execute(self, tasks: object) -> object:  # type: ignore[override]
            every: list[Task] = list(tasks)  # type: ignore[call-overload]
            ended: list[Ended] = list(super().execute(every[::-1]))
            yield from ended

    start.invents = True
    study = write_study(tmp_path, write_recipes(tmp_path, "head-only", "lora"), data_dir)
    comparison.run_comparison(load(CompareConfig, study), Backwards())  # type: ignore[arg-type]
    assert start.jobs[0] == "lora-all-seed2"
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 4
    assert (tmp_path / "study" / "report" / "report.md").is_file()


# Inputs of several files


def write_shards(folder: Path, sizes: tuple[int, ...], kind: str = "parquet") -> list[str]:
    """Files of a folder with as many rows each; returns the texts in order."""
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.parquet").write_text("no table")
    texts = []
    for number, size in enumerate(sizes):
        own = [f"text {number} {row}" for row in range(size)]
        texts += own
        path = folder / f"part-{number}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.table({"id": list(range(size)), "text": own}), path)
        else:
            path.write_text("id,text\n" + "".join(f"{i},{text}\n" for i, text in enumerate(own)))
    return texts


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_folder_of_tables_is_scored_as_one_table(kind: str, tmp_path: Path) -> None:
    texts = write_shards(tmp_path / "in", (10, 1, 25), kind)
    model = score_fixtures.WordModel()
    settings = score_fixtures.settings(tmp_path / "in", tmp_path / "out.parquet")
    summary = scoring.score(settings, load=lambda: model)
    assert summary.rows == 36
    scored = pq.read_table(tmp_path / "out.parquet")
    assert scored["text"].to_pylist() == texts
    assert scored["label"].to_pylist() == [score_fixtures.expected(text)[0] for text in texts]


def test_each_chunk_of_a_folder_is_read_in_one_range(tmp_path: Path) -> None:
    texts = write_shards(tmp_path / "in", (10, 1, 25, 40))
    settings = score_fixtures.settings(tmp_path / "in", tmp_path / "out.parquet")
    table = shards.open_input(settings.input, settings)
    whole = list(shards.read_texts(table, 1, 7, list(range(11))))
    assert [text for _, chunk in whole for text in chunk.to_pylist()] == texts

    missing = [0, 2, 3, 7, 9, 10]
    ranges = shards.ranges(table, missing)
    assert len(ranges) > 1
    found = []
    for numbers in ranges:
        found += [
            (number, chunk.to_pylist()) for number, chunk in shards.read_texts(table, 1, 7, numbers)
        ]
    assert found == [(number, chunk.to_pylist()) for number, chunk in whole if number in missing]


def test_a_file_that_comes_or_changes_is_noticed(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", (10, 5))
    settings = score_fixtures.settings(tmp_path / "in", tmp_path / "out.parquet")
    table = shards.open_input(settings.input, settings)
    source = precheck.read_through(table, 1, settings)
    precheck.require_unchanged(table.path, source)
    (tmp_path / "in" / "part-9.parquet").write_bytes(
        (tmp_path / "in" / "part-0.parquet").read_bytes()
    )
    with pytest.raises(DataError, match="changed while it was scored"):
        precheck.require_unchanged(table.path, source)


def test_files_that_are_no_one_table_are_refused(tmp_path: Path, run: Run) -> None:
    def message(folder: str, output: str = "out.csv") -> str:
        words = (tmp_path / folder, output, "--model-dir", tmp_path)
        return run(verbs.score, *words).one_line_error()

    write_shards(tmp_path / "columns", (3, 3))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "columns" / "part-1.parquet")
    assert "part-1.parquet has other columns than part-0.parquet" in message("columns")

    write_shards(tmp_path / "kinds", (3,))
    (tmp_path / "kinds" / "part-2.csv").write_text("id,text\n1,a\n")
    assert "another ending than part-0.parquet" in message("kinds")

    write_shards(tmp_path / "inside", (3,))
    assert "is in the folder of the input" in message("inside", str(tmp_path / "inside" / "o.csv"))


def test_the_key_of_a_run_does_not_depend_on_the_engine(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nmy card\n")
    model = score_fixtures.WordModel()
    identities = []
    for engine in ("local", "ray"):
        settings = score_fixtures.settings(tmp_path / "in.csv", tmp_path / "o.csv", engine=engine)
        assert isinstance(settings, ScoreConfig)
        table = shards.open_input(settings.input, settings)
        source = precheck.read_through(table, 0, settings)
        identities.append(scoring.run_identity(source, model, table, 0, settings))  # type: ignore[arg-type]
    assert identities[0] == identities[1]


# Several models on Ray Serve


def asked(app: object, path: str, **headers: str) -> tuple[int, dict[str, object]]:
    """The status and body of a POST to an ASGI app whose lifespan is not run."""
    import asyncio

    import httpx

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, headers=headers)

    answer = asyncio.run(ask())
    return answer.status_code, answer.json()


def several(tmp_path: Path, *names: str, **more: object) -> ServeConfig:
    models = {name: {"model_dir": str(tmp_path / name)} for name in names}
    return load(ServeConfig, write_yaml(tmp_path / "serve.yaml", models=models, **more))


def test_a_request_is_handed_to_the_model_that_it_names(tmp_path: Path) -> None:
    from starlette.responses import JSONResponse
    from starlette.types import Receive, Scope, Send

    from bankintent.on_ray.multiplexing import Multiplexer

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
            body = {"model": self.name, "path": scope["path"]}
            await JSONResponse(body)(scope, receive, send)

    async def load_model(name: str) -> Named:
        if name == "broken":
            raise ModelError("/secret/path is broken")
        return Named(name)

    settings = several(tmp_path, "a", "b", "broken", default_model="b")
    app = Multiplexer(settings, load_model)  # type: ignore[arg-type]
    header = {"serve_multiplexed_model_id": "a"}
    assert asked(app, "/predict", **header) == (200, {"model": "a", "path": "/predict"})
    assert asked(app, "/models/a/predict/") == (200, {"model": "a", "path": "/predict/"})
    assert asked(app, "/info") == (200, {"model": "b", "path": "/info"})
    assert asked(app, "/models/none/predict")[0] == 404
    assert asked(app, "/health/ready") == (200, {"status": "ready"})
    status, body = asked(app, "/models/broken/predict")
    assert status == 503
    assert "secret" not in str(body)


def test_a_model_of_several_has_the_settings_of_the_file_and_its_own(tmp_path: Path) -> None:
    from bankintent.on_ray.multiplexing import require_supported, settings_of

    path = write_yaml(
        tmp_path / "serve.yaml",
        models={"a": {"model_dir": "x", "cache": 9, "limits": {"max_texts": 5}}},
        limits={"max_chars": 200},
        batching={"max_texts": 3},
    )
    one = settings_of(load(ServeConfig, path), "a")
    assert (one.model_dir, one.cache, one.models) == (Path("x"), 9, {})
    assert (one.limits.max_texts, one.limits.max_chars) == (5, 200)
    assert one.batching.max_texts == 3

    watched = several(tmp_path, "a", models_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="engine: ray does not serve models_dir"):
        require_supported(watched)
