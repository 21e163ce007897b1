"""The wheel in an environment of its own, with the extra `serve` alone: what a server installs.

It needs the package index. BANKINTENT_BUNDLE names the bundle that it serves; without it a tiny one is made.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, BuildOnce
from policy_fixtures import make_record, put_policy
from servers import Server, environment, running
from serving_fixtures import LABELS, write_exported_bundle

from bankintent import __version__
from bankintent.bundle import layout

pytestmark = pytest.mark.proof

NO_INDEX = (
    "Temporary failure in name resolution",
    "Failed to establish a new connection",
    "timed out",
)
"""What pip says where it does not reach its index."""

ABSENT = (
    *("torch", "transformers", "peft", "mlflow", "gradio", "pandas"),
    *("sklearn", "scipy", "matplotlib", "datasets", "openvino", "onnx"),
)
"""Modules that no server of an exported bundle needs."""

BODY = {"text": ["I lost my card", "what is the weather like", "?"], "explain": True}

PATHS = ("/", "/card", "/info", "/openapi.json", "/docs", "/static/page.css", "/health/live")


def own_environment(**variables: str) -> dict[str, str]:
    """The environment of a server, without this source tree."""
    inherited = environment(**variables)
    del inherited["PYTHONPATH"]
    # The first of many processes compiles what all of them import.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return inherited


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `bin` of a new environment with the wheel and `serve`, as requirements.txt pins them."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")

    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True
    )
    # Without compiled files: most modules are never imported.
    options = ["--quiet", "--no-compile", "-c", str(REPOSITORY / "requirements.txt")]
    done = pip(folder / "venv" / "bin", "install", *options, f"{wheel}[serve]")
    # A retry that went well leaves the same words.
    if done.returncode != 0 and any(reason in done.stderr for reason in NO_INDEX):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder / "venv" / "bin"


def pip(programs: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run the pip of these tests for another environment."""
    command = [sys.executable, "-m", "pip", "--python", str(programs / "python"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=own_environment())


def run(program: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run a program of that environment in the working folder, which is empty."""
    command = [str(program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=own_environment())


@pytest.fixture(scope="module")
def served(build_once: BuildOnce) -> Path:
    """The bundle that is served."""
    named = os.environ.get("BANKINTENT_BUNDLE")
    if named:
        return (REPOSITORY / named).resolve()

    def build(folder: Path) -> None:
        bundle = write_exported_bundle(folder / "tiny")
        put_policy(bundle, make_record(LABELS))

    return build_once("installed-bundle", build) / "tiny"


def test_nothing_is_missing_and_nothing_heavy_is_there(installed: Path) -> None:
    checked = pip(installed, "check")
    assert checked.returncode == 0, checked.stdout

    assert run(installed / "bankintent", "--version").stdout == f"bankintent {__version__}\n"
    assert run(installed / "python", "-m", "bankintent", "--version").returncode == 0
    program = (
        "import importlib.util, sys, bankintent\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(names - sys.stdlib_module_names - {'__main__'})\n"
        f"print([name for name in {ABSENT} if importlib.util.find_spec(name)])\n"
        "import importlib.resources\n"
        "print((importlib.resources.files(bankintent) / 'py.typed').is_file())\n"
    )
    done = run(installed / "python", "-c", program)
    assert done.stdout.splitlines() == ["{'bankintent'}", "[]", "True"], done.stderr


def test_commands_work_with_serve_alone(installed: Path, served: Path, tmp_path: Path) -> None:
    program = installed / "bankintent"
    bundle = Path(shutil.copytree(served, tmp_path / "bundle"))
    (tmp_path / "in.csv").write_text("text\nI lost my card\nhello\n")
    model = ("--model-dir", bundle)
    for words in (
        ("verify", bundle),
        ("explain", "I lost my card", *model),
        ("score", "in.csv", "out.csv", *model),
    ):
        done = run(program, *words)
        assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3

    refused = run(program, "policy", *model, "--restore", "0123")
    assert (
        refused.stderr
        == "error: bundle has no former policy 0123. Former ones: none.\n".replace(
            "bundle", str(bundle)
        )
    )
    train = run(program, "train", "--config", "configs/recommended/lora.yaml")
    assert train.returncode == 2
    assert train.stderr.splitlines() == [
        f"configs/recommended/lora.yaml is the one that comes with bankintent {__version__}",
        "error: training needs torch, which is not installed. Run pip install 'bankintent[train]'.",
    ]


def test_python_answers_with_serve_alone(installed: Path, served: Path) -> None:
    program = (
        "from bankintent import UserError, load, train\n"
        f"model = load({str(served)!r})\n"
        "print(model.predict('I lost my card').top_k[0].label)\n"
        "try: train('configs/recommended/lora.yaml')\n"
        "except UserError as error: print(error)\n"
    )
    done = run(installed / "python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("training needs torch, which is not installed.")


@pytest.fixture(scope="module")
def answers_of_the_checkout(served: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the server of this checkout says of the bundle, computed by the engine that `serve` has."""
    formats = layout.read_manifest(served).formats
    runtime = "onnx-int8" if "onnx-int8" in formats else "onnx"
    command = [sys.executable, "-m", "bankintent", "serve", *options(served, f"runtime={runtime}")]
    folder = tmp_path_factory.mktemp("checkout")
    with running(command, folder, ready="/health/ready") as server:
        return ask(server)


def options(bundle: Path, *settings: str) -> list[str]:
    """The options of `serve` on the port of a test."""
    words = ["--model-dir", str(bundle), "--port", "{port}"]
    for setting in ("threads=1", *settings):
        words += ["--set", setting]
    return words


def ask(server: Server) -> list[Any]:
    """Answers with their decisions and reasons, and what the pages and documents hold."""
    answers = server.post("/predict/", BODY).json()
    assert len(answers) == len(BODY["text"])
    for answer in answers:
        assert {"decision", "explanation"} <= answer.keys()

    said: list[Any] = [answers, server.post("/predict", {"inputs": "I lost my card"}).json()]
    for path in PATHS:
        page = server.get(path)
        assert page.status_code == 200, path
        said.append(page.text)
    return said


@pytest.fixture
def server(
    request: pytest.FixtureRequest, installed: Path, served: Path, tmp_path: Path
) -> Iterator[Server]:
    """A server of that environment: the command itself, or uvicorn with the factory."""
    if request.param == "command":
        command = [str(installed / "bankintent"), "serve", *options(served)]
        env = own_environment()
    else:
        factory = ["--factory", "bankintent.commands.serve:create_app", "--port", "{port}"]
        command = [str(installed / "uvicorn"), *factory]
        (tmp_path / "serve.yaml").write_text("threads: 1\n")
        env = own_environment(MODEL_DIR=str(served), SERVE_CONFIG="serve.yaml")
    with running(command, tmp_path, ready="/health/ready", env=env) as running_server:
        yield running_server


@pytest.mark.parametrize("server", ["command", "uvicorn"], indirect=True)
def test_the_installed_server_answers_as_the_checkout_does(
    server: Server, answers_of_the_checkout: list[Any]
) -> None:
    assert ask(server) == answers_of_the_checkout
