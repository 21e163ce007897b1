"""Commands killed at each of their writes, then run again.

What must hold: the same command, run again, ends well; all files are those of an undisturbed run,
and there is no other.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import train_config, write_csv, write_yaml
from dying import KILLED
from tiny_models import rows, tiny_encoder

from faults.tally import Tally

DYING = Path(__file__).parents[1] / "dying.py"

Files = dict[str, str]
"""Path of each file and folder -> sha256 of what must be the same."""


@dataclass
class Ended:
    """How a job ended."""

    code: int
    writes: list[str]
    output: str


class Runner:
    """The process that runs jobs, see `dying`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(
        self, folder: Path, command: str, words: list[str], dies_at: int | None = None
    ) -> Ended:
        """Run a command in a folder."""
        job = {"folder": str(folder), "command": command, "words": words, "dies_at": dies_at}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


@contextlib.contextmanager
def runner() -> Iterator[Runner]:
    """Start the process that runs jobs."""
    scratch = tempfile.mkdtemp()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(DYING), scratch],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Runner(process)
        assert process.stdin is not None
        process.stdin.close()


@dataclass
class Scenario:
    """A command and the state that it begins in."""

    name: str
    command: str
    words: list[str]
    prepare: list[tuple[str, list[str]]] = field(default_factory=list)
    """Commands that are run before, undisturbed."""
    varying: tuple[str, ...] = ()
    """Names of files whose content differs from run to run."""
    refused: str | None = None
    """The command refuses to run again, with these words, once it has ended."""
    most: int = 10_000
    """Most writes at which it is killed, at even distances."""
    changes: dict[str, str] = field(default_factory=dict)
    """A file and its text, before the command."""


TRAIN_VARYING = ("metrics.json", "README.md", "manifest.json")


def scenarios() -> list[Scenario]:
    """Every command from nothing, and over what another run has left."""
    etl = ["--config", "data.yaml"]
    other_etl = [*etl, "--set", "seed=7"]
    evaluation = ["--checkpoint-path", "bundle", "--set", "tracking.enabled=false"]
    train = ["--config", "train.yaml", "--regime", "lora"]
    made = [("etl", etl), ("train", train)]
    # What it leaves beside its bundle: a table.
    other_train = [*train, "--set", "contrastive.steps=2", "--set", "contrastive.hard=1"]
    compare = ["--config", "compare.yaml"]
    # Enough validation rows for a policy.
    many = [*etl, "--set", "dataset_name=many.csv", "--set", "val_split=0.3"]
    policy = ["--model-dir", "bundle", "--set", "target.precision=0.5"]

    return [
        Scenario("etl", "etl", etl),
        Scenario("etl over former data", "etl", etl, [("etl", other_etl)]),
        Scenario("eval", "eval", evaluation, made),
        Scenario(
            "eval over a report",
            "eval",
            evaluation,
            [*made, ("eval", [*evaluation, "--split", "val"])],
        ),
        Scenario(
            "compare-models",
            "compare_models",
            ["bundle", "bundle", "--output-dir", "changes"],
            made,
        ),
        Scenario("score", "score", ["in.csv", "out.csv"], refused="out.csv exists"),
        Scenario(
            "score over an output",
            "score",
            ["in.csv", "out.csv", "--overwrite"],
            [("score", ["other.csv", "out.csv"])],
        ),
        Scenario("policy", "policy", policy, [("etl", many), ("train", train)]),
        Scenario("train", "train", other_train, [("etl", etl)], TRAIN_VARYING, most=50),
        Scenario(
            "train over another",
            "train",
            [*train, "--overwrite"],
            [("etl", etl), ("train", other_train)],
            TRAIN_VARYING,
            most=50,
        ),
        Scenario(
            "compare",
            "compare",
            compare,
            [("etl", etl)],
            # Times, and what follows from them.
            ("*.json", "report.md", "report.html", "accuracy.png"),
            most=30,
        ),
    ]


def snapshot(folder: Path, varying: tuple[str, ...]) -> Files:
    """What a folder holds, down to the content of every file that does not vary."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = "a folder"
        if path.is_file():
            is_varying = any(path.match(name) for name in varying)
            content = "" if is_varying else hashlib.sha256(path.read_bytes()).hexdigest()
        found[path.relative_to(folder).as_posix()] = content
    return found


def differences(expected: Files, found: Files) -> str | None:
    """What is missing, too much or other, in words; None where nothing is."""
    parts = {
        "missing": sorted(expected.keys() - found.keys()),
        "stray": sorted(found.keys() - expected.keys()),
        "other": sorted(
            name for name in expected.keys() & found.keys() if expected[name] != found[name]
        ),
    }
    named = [f"{kind} {', '.join(names[:4])}" for kind, names in parts.items() if names]
    return "; ".join(named) or None


def write_inputs(folder: Path) -> None:
    """Configs, tables and a tiny encoder."""
    write_csv(folder / "small.csv", rows())
    write_csv(folder / "many.csv", rows(150))
    write_csv(folder / "in.csv", rows(6), "text,intent")
    write_csv(folder / "other.csv", rows(2), "text,intent")
    write_yaml(folder / "data.yaml", dataset_name="small.csv", output_dir="data")
    tiny_encoder("bert", folder / "encoder")
    train_config(folder / "train.yaml", Path("encoder"), Path("data"), Path("bundle"))
    settings: dict[str, Any] = {"regime": "head-only", "lr": 5e-3, "epochs": 1}
    train_config(folder / "head.yaml", Path("encoder"), Path("unused"), Path("unused"), **settings)
    write_yaml(
        folder / "compare.yaml",
        name="small",
        output_dir="study",
        data_dir="data",
        recipes={"head": "head.yaml"},
        seeds=[1, 2],
        bootstrap=1000,
        tracking={"enabled": False},
    )


@dataclass
class Trial:
    """A scenario with its start and its undisturbed end."""

    scenario: Scenario
    runner: Runner
    folder: Path
    """Where it runs, each time anew: paths stand in some results."""
    start: Path
    expected: Files
    writes: list[str]

    def fault_at(self, number: int) -> str | None:
        """Kill the command at a write, run it again, and say what is wrong then."""
        scenario = self.scenario
        copy_tree(self.start, self.folder)
        killed = self.runner.run(self.folder, scenario.command, scenario.words, number)
        if killed.code != KILLED:
            return f"it was not killed: {killed.code}"

        again = self.runner.run(self.folder, scenario.command, scenario.words)
        found = differences(self.expected, snapshot(self.folder, scenario.varying))
        if again.code == 0:
            return found
        is_finished = scenario.refused is not None and scenario.refused in again.output
        if again.code == 2 and is_finished and found is None:
            return None
        return f"ended with {again.code}: {again.output.strip()[-200:]}"


def copy_tree(source: Path, target: Path) -> None:
    """Make a folder a copy of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def begin(scenario: Scenario, runner: Runner, base: Path) -> Trial:
    """Prepare a scenario, and run it once without a fault."""
    folder = base / "trial"
    start = base / "start"
    copy_tree(base / "inputs", folder)
    for command, words in scenario.prepare:
        prepared = runner.run(folder, command, words)
        assert prepared.code == 0, prepared.output
    copy_tree(folder, start)

    straight = runner.run(folder, scenario.command, scenario.words)
    assert straight.code == 0, straight.output
    expected = snapshot(folder, scenario.varying)
    return Trial(scenario, runner, folder, start, expected, straight.writes)


def spread(numbers: list[int], most: int) -> list[int]:
    """At most so many of the numbers, at even distances, the last among them."""
    if len(numbers) <= most:
        return numbers
    return [numbers[(index + 1) * len(numbers) // most - 1] for index in range(most)]


def run(count: int, chosen: Callable[[Scenario], bool] = lambda _: True) -> Tally:
    """Kill each command at its writes, at most `count` kills in all."""
    tally = Tally("kills")
    every = [scenario for scenario in scenarios() if chosen(scenario)]
    each = max(1, count // len(every))
    with tempfile.TemporaryDirectory() as scratch, runner() as started:
        base = Path(scratch).resolve()
        (base / "inputs").mkdir()
        write_inputs(base / "inputs")
        for scenario in every:
            trial = begin(scenario, started, base)
            numbers = list(range(1, len(trial.writes) + 1))
            for number in spread(numbers, min(each, scenario.most)):
                situation = f"{scenario.name}, {number} {trial.writes[number - 1]}"
                tally.add(situation, trial.fault_at(number))
    return tally
