"""A small Rasa project, and the time from its files to the first served answer.

The project is written from the embedded sentences, so that it can be made anywhere: 40 intents, 300
sentences. The commands are those of a user, each in a process of its own and in an empty folder,
so that no cache is warm.
"""

import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bankintent import console
from bankintent.config import DataConfig
from bankintent.corpus import sources
from bankintent.errors import UserError
from benchmarks import machine, servers
from benchmarks.machine import ROOT
from benchmarks.servers import Contender
from benchmarks.tables import Record, Table

INTENTS_OF_SIZE = {
    2: 3,
    3: 3,
    4: 3,
    5: 4,
    6: 4,
    7: 4,
    8: 4,
    9: 3,
    10: 3,
    11: 2,
    12: 3,
    13: 2,
    14: 2,
}
"""Sentences of an intent -> intents of that size: 40 intents and 300 sentences in all."""

SEED = 1
"""Of the draw of intents and sentences."""

NUMBER = re.compile(r"\b\d+\b")

WORD = re.compile(r"\bcard\b")
"""A word that every export has in many sentences, marked as an entity."""

RECIPE = ROOT / "configs" / "recommended" / "small.yaml"
DATA = ROOT / "configs" / "recommended" / "data.yaml"

GOAL_SECONDS = 180
"""From the files to the first answer, on two idle cores."""

Pairs = list[tuple[str, str]]
"""(sentence, intent)."""


def draw_pairs() -> Pairs:
    """The sentences of the project, drawn from the embedded ones; always the same."""
    rng = random.Random(SEED)
    source = sources.read(DataConfig(dataset_name="bundled"))
    texts_of_intent: dict[str, list[str]] = {}
    for row in source.rows["all"]:
        texts_of_intent.setdefault(str(row.label), []).append(str(row.text))

    sizes: list[int] = []
    for size, intents in INTENTS_OF_SIZE.items():
        sizes += [size] * intents

    names = rng.sample(sorted(texts_of_intent), len(sizes))
    rng.shuffle(sizes)
    pairs = []
    for name, size in zip(names, sizes, strict=True):
        for text in rng.sample(texts_of_intent[name], size):
            pairs.append((text, name))
    return pairs


def write_project(folder: Path, pairs: Pairs) -> Path:
    """Write a Rasa project of some sentences: domain.yml, data/nlu.yml and data/stories.yml."""
    texts_of_intent: dict[str, list[str]] = {}
    for text, name in pairs:
        texts_of_intent.setdefault(name, []).append(text)

    parts = {
        "domain.yml": _domain(list(texts_of_intent)),
        "data/nlu.yml": _nlu(texts_of_intent),
        "data/stories.yml": _stories(list(texts_of_intent)),
    }
    for name, lines in parts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(['version: "3.1"', *lines]) + "\n", encoding="utf-8")
    return folder


def _domain(intents: list[str]) -> list[str]:
    lines = ["intents:"]
    lines += [f"  - {name}" for name in intents]
    lines += ["entities:", "  - number", "  - product", "responses:"]
    for name in intents:
        lines += [f"  utter_{name}:", f'    - text: "An answer to {name}."']
    return lines


def _nlu(texts_of_intent: dict[str, list[str]]) -> list[str]:
    lines = ["nlu:"]
    for name, texts in texts_of_intent.items():
        lines += [f"  - intent: {name}", "    examples: |"]
        lines += [f"      - {mark_entities(text)}" for text in texts]
    return lines


def _stories(intents: list[str]) -> list[str]:
    lines = ["stories:"]
    for name in intents:
        lines += [f"  - story: {name}", "    steps:"]
        lines += [f"      - intent: {name}", f"      - action: utter_{name}"]
    return lines


def mark_entities(text: str) -> str:
    """The text with its numbers and its first "card" marked, in Rasa's two forms."""
    marked = NUMBER.sub(lambda found: f"[{found[0]}](number)", text)
    return WORD.sub('[card]{"entity": "product"}', marked, count=1)


@dataclass(frozen=True)
class Step:
    """One command of the way from files to an answer."""

    name: str
    seconds: float
    processor_seconds: float
    """Of all cores together."""


def measure(folder: Path) -> Record:
    """Write the project in an empty folder and go all the way; returns the record of it.

    Raises UserError with the last words of a command that fails.
    """
    pairs = draw_pairs()
    write_project(folder / "project", pairs)
    model = folder / "model"
    commands: dict[str, list[str | Path]] = {
        "etl": ["--config", DATA, "--set", "dataset_name=project", "--set", "output_dir=data"],
        "multiregime": [
            *("--config", RECIPE, "--set", "data_dir=data"),
            *("--set", "output_dir=model"),
        ],
        "eval": ["--checkpoint-path", "model", "--output-dir", "evaluation"],
    }

    load_before = list(os.getloadavg())
    steps = []
    for module, options in commands.items():
        console.say(f"python -m {module} ...")
        steps.append(run_command(module, options, folder))
    server_steps, answer = _serve(model, pairs[0][0])
    steps += server_steps

    return {
        "machine": machine.describe(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "load_before": load_before,
        "load_after": list(os.getloadavg()),
        "sentences": len(pairs),
        "intents": len({name for _, name in pairs}),
        "steps": [vars(step) for step in steps],
        "seconds": sum(step.seconds for step in steps),
        "answered_intent": answer,
    }


def run_command(module: str, options: Sequence[str | Path], folder: Path) -> Step:
    """Run `python -m module options` in a folder and time it.

    Raises UserError with the last line of its output where it fails.
    """
    command = [sys.executable, "-m", module, *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    before = _children_seconds()
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started

    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        last_line = lines[-1] if lines else f"exit code {done.returncode}"
        raise UserError(f"python -m {module} failed: {last_line}", "Run it by itself")
    return Step(f"python -m {module}", seconds, _children_seconds() - before)


def _serve(model: Path, text: str) -> tuple[list[Step], str]:
    """Start the API, let it answer a text, and end it; the intent that it answers with."""
    console.say("python -m backend ...")
    with servers.running(rasa_server(model)) as server:
        used = server.cpu_seconds()
        answer = server.label(text)

    ready = server.ready_seconds
    steps = [
        Step("start of the API", ready, used),
        Step("the first answer", server.answer_seconds - ready, 0.0),
    ]
    return steps, answer


def rasa_server(model: Path) -> Contender:
    """The API on a bundle, asked as a Rasa server is."""

    def body(text: str) -> dict[str, Any]:
        return {"text": text}

    def label(answer: Any) -> str:
        return str(answer["intent"]["name"])

    own = servers.ours("rasa", model, "auto")
    command = (*own.command, "--set", "compat=[rasa]")
    return replace(own, command=command, path="/model/parse", body=body, label=label)


def _children_seconds() -> float:
    """Processor seconds of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_table(record: Record) -> Table:
    """Seconds of each step, and their sum."""
    rows = []
    for step in record["steps"]:
        used = step["processor_seconds"]
        rows.append([step["name"], f"{step['seconds']:.1f}", f"{used:.1f}" if used else ""])
    total = record["seconds"]
    rows.append(["all", f"{total:.1f}", ""])

    verdict = "reached" if total <= GOAL_SECONDS else "not reached"
    facts = record["machine"]
    threads = record["omp_num_threads"]
    setting = "OMP_NUM_THREADS not set" if threads is None else f"OMP_NUM_THREADS={threads}"
    before = record["load_before"][0]
    after = record["load_after"][0]
    note = (
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, {setting}; load average"
        f" of the minute {before:.1f} before and {after:.1f} after. The goal is {GOAL_SECONDS} s"
        f" with nothing else running: {verdict}. `POST /model/parse` with a sentence of the project"
        f" gave the intent `{record['answered_intent']}`."
    )
    title = (
        f"From the files of a Rasa project of {record['sentences']} sentences and"
        f" {record['intents']} intents to the first answer"
    )
    return Table(title, ["step", "s", "processor s"], rows, note)
