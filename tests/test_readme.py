"""Every command that README.md and docs/ show: all are parsed and their configs read, and `make proofs` runs them.

They run as they stand there, in order, with small data, tiny models, one epoch, and a stand-in for the Hub.
"""

import contextlib
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import COMMANDS, REPOSITORY, write_csv
from docs_pages import navigation
from fake_hub import running_hub
from servers import running
from tiny_models import rows, tiny_encoder, tiny_nli
from typer.main import get_command
from warm import Job, ask, warm

from bankintent import __main__ as verbs
from bankintent import cli, configfile
from bankintent.corpus.sources import BUNDLED, HUB_ALIASES
from bankintent.process import free_port

PAGES = [REPOSITORY / "README.md", *navigation()]

FIRST_STEPS = (
    "README.md",
    "docs/index.md",
    "docs/installation.md",
    "docs/tutorial.md",
    "docs/troubleshooting.md",
)
TRAINING = ("own-data", "regimes", "comparing")
BEGINNING = {*FIRST_STEPS, *(f"docs/how-to/{name}.md" for name in TRAINING)}
"""Pages whose commands build on each other, from the tutorial on. All others build on what `make quickstart` leaves, or
make what they need."""

IN_CI = ("make ", "python -m venv", "pip install", ". .venv/bin/activate", "python -m benchmarks")
"""Commands that .ci/run runs, or what it calls; the benchmarks at sizes that only show that they work."""

QUICKSTART_DATA = "python -m etl --config configs/quickstart/data.yaml"
QUICKSTART_BUNDLE = (
    "python -m multiregime --config configs/recommended/lora.yaml"
    " --set data_dir=data/quickstart --set output_dir=artifacts/models/quickstart"
)
"""What `make quickstart` leaves for the commands after it; the tutorial has them too."""

WRITTEN = {}
"""Configs that a shown `init` writes, and shipped ones with the same keys."""
for folder in ("my", "tickets"):
    WRITTEN[f"configs/{folder}/data.yaml"] = "configs/recommended/data.yaml"
    WRITTEN[f"configs/{folder}/train.yaml"] = "configs/recommended/small.yaml"

FORKED = (
    "python -m etl",
    "python -m multiregime",
    "python -m eval",
    "python -m baseline",
    "python -m bankintent compare",
    "python -m bankintent score",
)
"""Commands that .ci/run, or the notebook, starts as processes of their own, with these names: here they are forks of
one that has imported the libraries, since most of their time would go into that. All others are started by a shell.
"""

SERVERS = ("uvicorn backend:app", "python -m frontend", "python -m backend")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


def blocks(page: Path) -> list[str]:
    """The blocks of shell commands on a page."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.M)


def commands(block: str) -> list[str]:
    """The commands of a block: without comments, continued lines joined, `a && b` as two."""
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    bare = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines]
    every = [command.strip() for line in bare for command in line.split("&&")]
    return [command.replace(".venv/bin/python", "python") for command in every if command]


SHOWN = {
    f"{page.relative_to(REPOSITORY)}: {command}": command
    for page in PAGES
    for block in blocks(page)
    for command in commands(block)
}


def test_shell_commands_stand_in_blocks_that_are_read() -> None:
    assert len(SHOWN) > 30
    for page in PAGES:
        fences = re.findall(r"^```(\w+)$", page.read_text(encoding="utf-8"), re.M)
        assert not {"bash", "shell", "console"} & set(fences), f"{page}: write ```sh"


class Accepted(Exception):
    """A command got as far as its validated settings."""


@pytest.mark.parametrize("command", SHOWN.values(), ids=SHOWN.keys())
def test_a_command_and_its_settings_are_accepted(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [WRITTEN.get(word, word) for word in shlex.split(command)]
    while ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)

    match words:
        case ["python", "-m", name, *options] if name in COMMANDS:
            accept(import_module(name).main, options, monkeypatch)
        case ["python", "-m", "bankintent", verb, *options]:
            accept(getattr(verbs, verb.replace("-", "_")), options, monkeypatch)
        case ["python", "-m", name, *options] if name.split(".")[0] == "benchmarks":
            module = import_module(f"{name}.__main__" if name == "benchmarks" else name)
            parse(module.main, options)
        case ["make", target, *_]:
            makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{target}:", makefile, re.M)
        case _:
            first = " ".join(words).removeprefix(".venv/bin/")
            assert first.startswith(("curl -s ", "uvicorn backend:app", *IN_CI)), command


def accept(
    function: Callable[..., Any], options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a command until its settings are read and validated."""

    def load(*arguments: Any, **flags: Any) -> None:
        configfile.load(*arguments, **flags)
        raise Accepted

    monkeypatch.setattr(sys.modules[function.__module__], "load", load)
    monkeypatch.chdir(REPOSITORY)
    context = parse(function, options)
    with pytest.raises(Accepted), context:
        context.command.invoke(context)


def parse(function: Any, options: list[str]) -> Any:
    """The parsed options of a command; raises where one is unknown or a value is none."""
    app = typer.Typer(**cli.APP)
    app.command(context_settings=cli.CONTEXT)(function)
    return get_command(app).make_context("command", options)


def test_what_the_proof_leaves_out_is_run_by_ci() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text() + (REPOSITORY / "Makefile").read_text()
    for command in (
        "make quickstart",
        "make test",
        "make proofs-shown",
        "make proofs-fuzzed",
        "make notebook",
        "make mlflow",
        "python -m benchmarks --smoke",
    ):
        assert command in script
    script += (REPOSITORY / "notebooks" / "walkthrough.ipynb").read_text(encoding="utf-8")
    for command in FORKED:
        assert f"{command} " in script.replace("$(BIN)/", "")


def shrink(config: Path, model: Path) -> None:
    """Keep a config's meaning and make it quick.

    Two sentences for each intent, one epoch, no exported formats, a tiny model in the place of the embedded one, and no
    MLflow in training, which takes seconds to load; evaluations have it.
    """
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    if "dataset_name" in settings:
        settings["few_shot"] = 2
    if settings.get("model_name", "").startswith("bundled/"):
        settings["model_name"] = str(model)
    if "batch_size" in settings and "model_name" in settings and "references" not in settings:
        settings |= {"epochs": 1, "max_length": 64, "export": {"onnx": False}}
        settings["tracking"] = {"enabled": False}
        if settings.get("contrastive"):
            settings["contrastive"]["steps"] = 1
    if "references" in settings:
        settings |= {"max_length": 64, "nli": settings.get("nli", {}) | {"max_length": 64}}
    if "recipes" in settings:
        sizes = ["all"] if "all" in settings.get("sizes", ["all"]) else [1]
        settings |= {"sizes": sizes, "seeds": [1], "bootstrap": 1000}
        settings["tracking"] = {"enabled": False}
        # Every recipe is a process of its own: two are a comparison.
        names = list(settings["recipes"])
        settings["recipes"] = {name: settings["recipes"][name] for name in (names[0], names[-1])}
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


def write_clinc150(path: Path) -> None:
    """A file shaped as CLINC150's own, of three intents."""
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
    for number, pair in enumerate(rows(20)):
        splits["val" if number % 5 == 3 else "test" if number % 5 == 4 else "train"].append(pair)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(splits | {"oos_test": [["what is a dinosaur", "oos"]]}))


def write_exports(folder: Path) -> None:
    """Exports of other tools, each with ten sentences of three intents."""
    by_intent: dict[str, list[str]] = {}
    for text, intent in rows(10):
        by_intent.setdefault(intent, []).append(text)

    nlu = []
    for intent, texts in by_intent.items():
        nlu.append({"intent": intent, "examples": "".join(f"- {text}\n" for text in texts)})
    rasa = folder / "my-bot" / "data" / "nlu.yml"
    rasa.parent.mkdir(parents=True)
    rasa.write_text(yaml.safe_dump({"version": "3.1", "nlu": nlu}), encoding="utf-8")

    utterances = [{"text": text, "intent": intent, "entities": []} for text, intent in rows(10)]
    assets = {"projectKind": "Conversation", "utterances": utterances}
    watson = []
    tutorial = []
    for intent, texts in by_intent.items():
        watson.append({"intent": intent, "examples": [{"text": text} for text in texts]})
        tutorial.append({"tag": intent, "patterns": texts, "responses": ["Done."]})

    contents: dict[str, Any] = {
        "luis.json": {"luis_schema_version": "7.0.0", "culture": "en-us", "utterances": utterances},
        "clu.json": {"metadata": {"language": "en-us"}, "assets": assets},
        "skill.json": {"language": "en", "dialog_nodes": [], "intents": watson},
        "intents.json": {"intents": tutorial},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    with zipfile.ZipFile(folder / "agent.zip", "w") as archive:
        archive.writestr("agent.json", json.dumps({"language": "en"}))
        for intent, texts in by_intent.items():
            sentences = [{"data": [{"text": text}]} for text in texts]
            archive.writestr(f"intents/{intent}_usersays_en.json", json.dumps(sentences))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout to the commands, with quick configs and a user's files."""
    folder = tmp_path_factory.mktemp("checkout")
    # Enough layers for a student of four, and one that takes the mean.
    model = tiny_encoder("bert", tmp_path_factory.mktemp("embedded"), num_hidden_layers=6)
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    for config in (folder / "configs").rglob("*.yaml"):
        shrink(config, model)

    messages = [(text,) for text, _ in rows(3)]
    write_csv(folder / "my.csv", rows(10))
    tickets = "".join(f"{text};{intent}\n" for text, intent in rows(10))
    (folder / "tickets.csv").write_text(f"Message text;Topic\n{tickets}", encoding="utf-8")
    shutil.copy(BUNDLED, folder / "june.csv")
    write_csv(folder / "log.csv", [(f"please help, {text}",) for (text,) in messages], "text")
    write_csv(folder / "messages.csv", messages, "text")
    write_exports(folder)
    write_clinc150(folder / "path" / "to" / "clinc150" / "data_full.json")
    return folder


@pytest.fixture(scope="module")
def environment(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Variables for the commands, with the address of a Hub that has the dataset and tiny models of the real names."""
    root = tmp_path_factory.mktemp("hub")
    publish_banking77(root)
    models = root / "models"
    tiny_encoder("deberta-v2", models / "microsoft" / "deberta-v3-base" / "main")
    tiny_nli(models / "facebook" / "bart-large-mnli" / "main")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with running_hub(root, tmp_path_factory.mktemp("hub-log")) as address:
        yield inherited | {
            "HF_ENDPOINT": address,
            "HF_HOME": str(workspace / "hf"),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }


def shown_blocks(part: str) -> list[str]:
    """The blocks of the pages of a part, in the order of the navigation."""
    shown = []
    for page in PAGES:
        is_beginning = str(page.relative_to(REPOSITORY)) in BEGINNING
        if is_beginning == (part == "beginning"):
            shown += blocks(page)
    return shown


@dataclass(frozen=True)
class Shell:
    """Runs shown commands in a folder."""

    folder: Path
    environment: dict[str, str]
    warm: Path
    """The address of the process that forks."""

    def run(self, command: str) -> None:
        """Run a command to its end; fails with its output where it fails."""
        output = self.folder / "output.txt"
        if command.startswith(tuple(f"{name} " for name in FORKED)):
            _, _, module, *words = shlex.split(command)
            code = ask(self.warm, Job(module, words, str(self.folder), str(output)))
        else:
            with output.open("w") as file:
                code = subprocess.run(
                    ["bash", "-c", command],
                    cwd=self.folder,
                    env=self.environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                ).returncode
        assert code == 0, f"{command}\n{output.read_text()[-4000:]}"


@pytest.fixture(scope="module")
def shell(workspace: Path, environment: dict[str, str]) -> Iterator[Shell]:
    with warm(environment) as address:
        yield Shell(workspace, environment, address)


@pytest.mark.proof
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", ["beginning", "the rest"])
def test_every_command_works(part: str, workspace: Path, shell: Shell) -> None:
    shown = shown_blocks(part)
    assert len(shown) > 10

    # A command that several pages show is run once.
    finished: set[str] = set()
    for command in (QUICKSTART_DATA, QUICKSTART_BUNDLE):
        shell.run(command)
        finished.add(command)
    for block in shown:
        run_block(block, shell, finished)

    if part == "beginning":
        labels = json.loads((workspace / "artifacts/models/deberta_lora/labels.json").read_text())
        assert len(labels["label2id"]) == 77


def shrink_written(folder: Path) -> None:
    """Keep the meaning of the training configs that a shown `init` has written, and make them quick."""
    recipe = yaml.safe_load((folder / "configs/recommended/small.yaml").read_text())
    for name in WRITTEN:
        if name.endswith("train.yaml") and (folder / name).exists():
            shrink(folder / name, Path(recipe["model_name"]))


def run_block(block: str, shell: Shell, finished: set[str]) -> None:
    """Run the commands of a block; its servers run until its end, on free ports in the place of the usual ones."""
    with contextlib.ExitStack() as stack:
        api = free_port()
        for command in commands(block):
            if command.startswith(IN_CI) or command in finished:
                continue
            command = command.replace(".venv/bin/", "").replace(":8000", f":{api}")
            if not any(server in command for server in SERVERS):
                shell.run(command)
                finished.add(command)
                if " init " in command:
                    shrink_written(shell.folder)
                continue

            is_page = "frontend" in command
            server = running(
                ["bash", "-c", f"exec env {command} --port {{port}}"],
                shell.folder,
                ready="/" if is_page else "/health/ready",
                port=None if is_page else api,
                env=shell.environment,
                whole_group=True,
            )
            stack.enter_context(server)
