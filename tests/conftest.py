"""Fixtures of all tests: a small dataset, small runs, servers, and a command run as a user would, inside this process."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# One thread for each of the processes that `make test` runs side by side: more than cores cost far
# more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
# The Hub's tests run in processes of their own, against a stand-in.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from filelock import FileLock
from servers import Server, serving
from serving_fixtures import write_evaluation, write_tiny_bundle
from tiny_models import rows, tiny_encoder

from bankintent import cli, process
from bankintent.corpus import division

if TYPE_CHECKING:
    from study_fixtures import InProcess

process.quiet_libraries()

REPOSITORY = Path(__file__).parents[1]
COMMANDS = ("etl", "multiregime", "baseline", "eval", "backend", "frontend")
DATASETS = Path(os.environ.get("BANKINTENT_DATASETS", REPOSITORY.parent / "shared" / "datasets"))

needs_datasets = pytest.mark.skipif(
    not DATASETS.is_dir(), reason="the real datasets are not at hand (set BANKINTENT_DATASETS)"
)

NO_BF16 = "this CPU does not compute in bf16"
EXPECTED_SKIPS = ("the real datasets are not at hand", NO_BF16)


LONGEST_FILES = (
    "test_readme.py",
    "test_resuming.py",
    "test_training.py",
    "test_export.py",
    "test_card.py",
    "test_bundled.py",
    "test_boundary.py",
    "test_uploads.py",
    "test_kills.py",
    "test_pages.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in a browser are proofs; files that take longest come first, so that no process ends long before another."""

    def rank(item: pytest.Item) -> int:
        name = item.path.name
        return LONGEST_FILES.index(name) if name in LONGEST_FILES else len(LONGEST_FILES)

    for item in items:
        needs_browser = "browser" in getattr(item, "fixturenames", ())
        # What needs a program beside the browser stays with its own kind.
        if needs_browser and item.get_closest_marker("scale") is None:
            item.add_marker(pytest.mark.proof)
            # One process starts the browser and the servers for all of a file.
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """With REQUIRE_NO_SKIPS set, a test that skips for an unexpected reason is a failure."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_NO_SKIPS") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr)
        if not any(expected in reason for expected in EXPECTED_SKIPS):
            report.outcome, report.longrepr = "failed", f"unexpected skip: {reason}"
    return report


def write_csv(path: Path, pairs: list[tuple[str, str]], header: str = "text,label") -> Path:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(pairs)
    return path


def write_yaml(path: Path, **values: Any) -> Path:
    import yaml

    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def one_line_error(self) -> str:
        """The error line of a refused command; fails where it was not refused, or not in one clear line."""
        assert self.code == 2, (self.code, self.out, self.err)
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.out + self.err
        return lines[0]


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call a command's main with command-line words: `run(etl.main, "--config", path)`."""

    def call(command: Callable[..., Any], *words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.run(command)
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Result(int(code), captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, so that relative outputs never meet."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="session")
def _small_tables_are_split() -> Iterator[None]:
    """The tables of tests are small; without this ETL would judge them by cross-validation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(division, "CROSS_BELOW", 0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _nothing_waits_for_the_disk() -> Iterator[None]:
    """A power cut is not tried, and thousands of small files take minutes to reach the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def data_dir(tmp_path: Path, run: Run) -> Path:
    """ETL's output of the small dataset."""
    import etl

    source = write_csv(tmp_path / "small.csv", rows())
    config = write_yaml(
        tmp_path / "data.yaml", dataset_name=str(source), output_dir=str(tmp_path / "data")
    )
    result = run(etl.main, "--config", config)
    assert result.code == 0, result.err
    return tmp_path / "data"


@contextlib.contextmanager
def checked_in_this_process() -> Iterator[None]:
    """Check saved models without the fresh process that a run starts for it, which imports torch anew."""
    run_module = process.run_module

    def run_here(module: str, arguments: list[str | Path], log: Path) -> str | None:
        if module != "bankintent.export.fresh_check":
            return run_module(module, arguments, log)
        from bankintent.export import fresh_check

        try:
            fresh_check.main(*map(Path, arguments))
        except Exception as error:  # noqa: BLE001 (as a process would end, with any error)
            return f"{type(error).__name__}: {error}"
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "run_module", run_here)
        yield


@pytest.fixture(autouse=True)
def _checked_in_this_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only a test that is marked `fresh_process` starts the process that checks saved models."""
    if request.node.get_closest_marker("fresh_process"):
        yield
        return
    with checked_in_this_process():
        yield


BuildOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> BuildOnce:
    """`build_once(name, build)` gives a folder that one of the test processes builds for all of them."""
    base = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        base = base.parent

    def folder_of(name: str, build: Callable[[Path], None]) -> Path:
        folder = base / name
        built = base / f"{name}.built"
        with FileLock(base / f"{name}.lock"):
            if not built.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                build(folder)
                built.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def tiny_bert(build_once: BuildOnce) -> Path:
    """A random BERT encoder."""
    return build_once("tiny-bert", lambda folder: tiny_encoder("bert", folder))


@pytest.fixture(scope="session")
def trained(tiny_bert: Path, build_once: BuildOnce) -> Path:
    """A folder with `data.yaml`, `data/` and `bundle/`, a small LoRA run that names them relative to the folder."""

    def build(folder: Path) -> None:
        with checked_in_this_process():
            train_in(folder, rows(), tiny_bert, epochs=6, lr=5e-3)

    return build_once("trained", build)


CARD_LABELS = {"card_lost": 'card|lost: "it"', "top_up": "top_up `now`", "Exchange": "# Exchange"}
"""Names with what means something in Markdown, YAML or Python."""


@pytest.fixture(scope="session")
def published(tiny_bert: Path, build_once: BuildOnce) -> Path:
    """The folder of a tracked LoRA run with every exported format: its bundle is `bundle/` in it.

    Its labels are those of CARD_LABELS; `output.txt` holds what the run printed.
    """

    def build(folder: Path) -> None:
        pairs = [(text, CARD_LABELS[label]) for text, label in rows()]
        tracked = {"uri": "sqlite:///t/mlflow.db", "artifacts": "t/runs"}
        with (folder / "output.txt").open("w") as file, contextlib.redirect_stdout(file):
            train_in(folder, pairs, tiny_bert, epochs=1, export={"onnx": True}, tracking=tracked)

    return build_once("published", build)


def train_in(folder: Path, pairs: list[tuple[str, str]], model: Path, **settings: Any) -> None:
    """Make `data/` and `bundle/` in a folder, by LoRA; their configs name them relative to it."""
    import etl
    import multiregime

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        source = write_csv(folder / "small.csv", pairs)
        etl.main(write_yaml(folder / "data.yaml", dataset_name=str(source), output_dir="data"))
        config = train_config(
            folder / "train.yaml", model, Path("data"), Path("bundle"), **settings
        )
        multiregime.main(config, regime="lora")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> "InProcess":
    """The runs of a study are made in this process, and what they save is not checked."""
    from study_fixtures import InProcess

    from bankintent.bundle.record import Parity
    from bankintent.export import publish

    starter = InProcess()
    monkeypatch.setattr(process, "run_module", starter)
    parity = Parity(rows=1, tolerance=1.0, largest_logit_difference={"merged": 0.0})
    monkeypatch.setattr(publish, "check_parity", lambda *_: parity)
    return starter


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle, with its data in the same folder, for this test alone."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "bundle"


@pytest.fixture(scope="session")
def served_bundle(build_once: BuildOnce) -> Path:
    """The bundle of the serving tests, `tiny`."""
    return build_once("served", lambda folder: write_tiny_bundle(folder / "tiny")) / "tiny"


@pytest.fixture(scope="session")
def server(served_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API over `served_bundle`, with an evaluation of it."""
    folder = tmp_path_factory.mktemp("server")
    evals = folder / "evals"
    write_evaluation(evals, served_bundle.name)
    with serving(folder, MODEL_DIR=str(served_bundle), config={"evals_dir": str(evals)}) as server:
        yield server


def train_config(path: Path, model: Path, data_dir: Path, output_dir: Path, **more: Any) -> Path:
    """A train.yaml for a tiny run without tracking."""
    settings: dict[str, Any] = {
        "model_name": str(model),
        "data_dir": str(data_dir),
        "output_dir": str(output_dir),
        "epochs": 2,
        "batch_size": 8,
        "max_length": 32,
        "precision": "fp32",
        "lora": {"r": 4},
        "export": {"onnx": False},  # it takes seconds; the fixture `published` has it on
        "tracking": {"enabled": False},
    }
    return write_yaml(path, **(settings | more))
