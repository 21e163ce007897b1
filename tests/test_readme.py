"""Every command that the README shows, run as it stands there: small data, one epoch, a stand-in for the Hub."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import REPOSITORY, rows, tiny_encoder, tiny_nli, write_csv
from test_hub import free_port

from bankintent.corpus.sources import HUB_ALIASES

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)

IN_CI = (
    "make quickstart",
    "make test",
    "make notebook",
    "make bench",
    "python -m venv",
    "pip install",
    "make mlflow",
)
"""Run by .ci/run, or by what it calls."""

QUICKSTART = (
    "python -m etl --config configs/quickstart/data.yaml",
    "python -m multiregime --config configs/quickstart/train.yaml",
)
"""What `make quickstart` leaves for the commands below it."""

SERVERS = ("uvicorn backend:app", "python -m frontend", "python -m backend")


def commands(block: str) -> list[str]:
    """The commands of a block: without comments, continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    bare = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines)
    return [line for line in bare if line]


def shrink(config: Path) -> None:
    """Keep a config's meaning and make it quick: two sentences for each intent, one epoch, no exported formats."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    if "dataset_name" in settings:
        settings["few_shot"] = 2
    if "batch_size" in settings and "model_name" in settings and "references" not in settings:
        settings |= {"epochs": 1, "max_length": 64, "export": {"onnx": False}}
        if settings.get("contrastive"):
            settings["contrastive"]["steps"] = 1
    if "references" in settings:
        settings |= {"max_length": 64, "nli": settings.get("nli", {}) | {"max_length": 64}}
    if "recipes" in settings:
        sizes = ["all"] if "all" in settings.get("sizes", ["all"]) else [1]
        settings |= {"sizes": sizes, "seeds": [1], "bootstrap": 1000}
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def publish_banking77(root: Path) -> None:
    """On the stand-in, under the real name and revision: eight sentences for training and two for testing per intent."""
    repository, revision = HUB_ALIASES["banking77"]
    folder = root / "datasets" / repository / revision
    folder.mkdir(parents=True)
    with (REPOSITORY / "data" / "bundled" / "sentences.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        sentences = list(csv.DictReader(file))
    seen: Counter[str] = Counter()
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for row in sentences:
        seen[row["label"]] += 1
        if seen[row["label"]] <= 10:
            split = "train" if seen[row["label"]] <= 8 else "test"
            lines[split].append(
                json.dumps({"text": row["text"], "label": 0, "label_text": row["label"]})
            )
    for split, found in lines.items():
        (folder / f"{split}.jsonl").write_text("\n".join(found) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout to the commands, with quick configs and a user's CSV."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    for config in (folder / "configs").rglob("*.yaml"):
        shrink(config)
    write_csv(folder / "my.csv", rows(10))
    write_csv(folder / "log.csv", [(f"please help, {text}",) for text, _ in rows(3)], header="text")
    write_csv(folder / "messages.csv", [(text,) for text, _ in rows(3)], header="text")
    return folder


@pytest.fixture(scope="module")
def environment(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Variables for the commands, with the address of a Hub that has the dataset and tiny models of the real names."""
    root, port = tmp_path_factory.mktemp("hub"), free_port()
    publish_banking77(root)
    deberta = tiny_encoder("deberta-v2", tmp_path_factory.mktemp("deberta"))
    shutil.copytree(deberta, root / "models" / "microsoft" / "deberta-v3-base" / "main")
    nli = tiny_nli(tmp_path_factory.mktemp("nli"))
    shutil.copytree(nli, root / "models" / "facebook" / "bart-large-mnli" / "main")
    hub = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests" / "hub.py"), str(root), str(port)]
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    try:
        wait_for(f"http://127.0.0.1:{port}/docs", hub)
        yield kept | {
            "HF_ENDPOINT": f"http://127.0.0.1:{port}",
            "HF_HOME": str(workspace / "hf"),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
    finally:
        hub.terminate()
        hub.wait(10)


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=2).is_success:
                return
        time.sleep(0.2)
    raise AssertionError(f"nothing answers at {url}")


@contextlib.contextmanager
def serving(
    command: str, port: int, path: str, workspace: Path, environment: dict[str, str]
) -> Iterator[None]:
    """Run a server of the README while the block lasts, on a free port in the place of its usual one."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec env {command} --port {port}"],
        cwd=workspace,
        env=environment,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}{path}", process)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(40)


def run(command: str, workspace: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", command], cwd=workspace, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_commands_that_ci_runs_stand_there() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text() + (REPOSITORY / "Makefile").read_text()
    shown = [
        command for block in BLOCKS for command in commands(block) if command.startswith("make ")
    ]
    assert shown
    for command in shown:
        assert command.startswith(IN_CI), f"{command} is neither in IN_CI nor run here"
    for command in (
        "make quickstart",
        "make test",
        "make notebook",
        "make mlflow",
        "python -m benchmarks --smoke",
    ):
        assert command in script


@pytest.mark.timeout(1500)
def test_every_command_of_the_readme_works(workspace: Path, environment: dict[str, str]) -> None:
    for command in QUICKSTART:
        run(command, workspace, environment)
    count = 0
    for block in BLOCKS:
        with contextlib.ExitStack() as running:
            api = free_port()
            for command in commands(block):
                if command.startswith(IN_CI):
                    continue
                command = command.replace(".venv/bin/", "").replace(
                    "127.0.0.1:8000", f"127.0.0.1:{api}"
                )
                if any(server in command for server in SERVERS):
                    page = "frontend" in command
                    port, path = (free_port(), "/") if page else (api, "/health/ready")
                    running.enter_context(serving(command, port, path, workspace, environment))
                else:
                    run(command, workspace, environment)
                count += 1
    assert count > 20
    labels = json.loads((workspace / "artifacts/models/deberta_lora/labels.json").read_text())
    assert len(labels["label2id"]) == 77
