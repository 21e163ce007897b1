"""What a policy costs beside an answer, both measured in one run.

python -m benchmarks.decision --model-dir artifacts/models/quickstart

The policies are made up, of the size that one for 77 intents has, so that any bundle serves to
measure. Each batch is read once and then decided without a policy and with each, in turns: what
else the machine does meanwhile, all have. Prints a table.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bankintent import cli, console
from bankintent.decision.deciding import decide
from bankintent.decision.gaussian import Gaussians
from bankintent.decision.policy import (
    FORMAT,
    Policy,
    PolicyRecord,
    ScopeRule,
    Temperature,
    Thresholds,
)
from bankintent.decision.prototypes import Prototypes
from bankintent.decision.scope_scores import Geometry
from bankintent.inference import choice
from bankintent.inference.runtime import Runtime
from bankintent.measures.unit_vectors import normalise
from benchmarks.serving import read_texts

BATCHES = (1, 8, 32)
ROUNDS = 400
"""Batches of each size."""

PROTOTYPES = 16
"""Of each intent."""

WIDTH = 384
"""Of features, where the bundle's format gives none."""

WEIGHTS = {
    "logits alone": {"max_logit": 1.0},
    "prototypes": {"max_logit": 1.0, "nearest": 1.0},
    "Mahalanobis": {"mahalanobis": 1.0},
    "relative Mahalanobis": {"relative_mahalanobis": 1.0},
}
"""Policy -> the scores of its rule for what is out of scope."""

RESAMPLES = 1000

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """The cost of one policy at one size of a batch."""

    batch: int
    policy: str
    answer: float
    """Milliseconds of a batch without a policy, the median."""
    decision: float
    """Milliseconds that the policy adds, the median."""
    ratio: float
    """Median time with the policy over that without."""
    interval: tuple[float, float]
    """95 %, from resampled batches."""


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    runtime: Annotated[str, typer.Option(help="auto, torch, onnx, ...")] = "auto",
    rounds: Annotated[int, typer.Option(help="Batches of each size.")] = ROUNDS,
) -> None:
    """Measure and print."""
    model = choice.find(model_dir, runtime, threads=1).load()  # type: ignore[arg-type]
    policies = make_policies(model.facts.labels, _width(model))

    rows = []
    for batch in BATCHES:
        for timing in measure(model, policies, batch, rounds):
            rows.append(_row(timing))
    header = ["batch", "policy", "answer, ms", "policy, ms", "ratio", "95 % interval"]
    console.print_table(f"{model.facts.runtime}, {rounds} batches each", header, rows)


def _row(timing: Timing) -> list[str]:
    low, high = timing.interval
    return [
        str(timing.batch),
        timing.policy,
        f"{timing.answer:.2f}",
        f"{timing.decision:.3f}",
        f"{timing.ratio:.3f}",
        f"{low:.3f} to {high:.3f}",
    ]


def _width(model: Runtime) -> int:
    features = model.outputs(model.tokenize(["a text"])).features
    return WIDTH if features is None else features.shape[1]


def make_policies(labels: tuple[str, ...], width: int) -> dict[str, Policy]:
    """A policy for each of WEIGHTS, of random vectors."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32)

    intents = np.repeat(np.arange(len(labels), dtype=np.int64), PROTOTYPES)
    prototypes = Prototypes(normalise(draw(len(intents), width)), intents)
    gaussians = Gaussians(
        mean=draw(width),
        whitening=draw(width, width),
        centres=draw(len(labels), width),
        background=draw(width, width),
        normalised=True,
    )
    geometries = {
        "logits alone": None,
        "prototypes": Geometry(prototypes),
        "Mahalanobis": Geometry(prototypes, gaussians),
        "relative Mahalanobis": Geometry(prototypes, gaussians),
    }

    policies = {}
    for name, weights in WEIGHTS.items():
        record = PolicyRecord(
            format=FORMAT,
            labels_hash="",
            temperature=Temperature(0.0, 0.1, 0.1),
            out_of_scope=ScopeRule(weights, 0.0),
            thresholds=Thresholds(0.5),
            vectors=None,
            target={},
            promise={},
            fitted_on={},
        )
        policies[name] = Policy(record, labels, geometries[name])
    return policies


def measure(model: Runtime, policies: dict[str, Policy], batch: int, rounds: int) -> list[Timing]:
    """The timings of batches of one size."""
    texts = read_texts()
    choices: list[tuple[str, Policy | None]] = [("", None), *policies.items()]
    times: dict[str, list[float]] = {name: [] for name, _ in choices}
    answers = []

    for number in range(rounds):
        start = number * batch % (len(texts) - batch)
        chosen = texts[start : start + batch]
        started = time.perf_counter()
        outputs = model.outputs(model.tokenize(chosen))
        answers.append(time.perf_counter() - started)

        features = outputs.features
        if features is None:
            features = np.full((batch, WIDTH), 0.1, dtype=np.float32)
        # Another one comes first each time: the first finds nothing in the processor's cache.
        first = number % len(choices)
        for name, policy in choices[first:] + choices[:first]:
            times[name].append(_time(partial(decide, outputs.logits, features, policy)))

    plain = np.asarray(answers) + np.asarray(times[""])
    timings = []
    for name in policies:
        timings.append(_compare(batch, name, plain, np.asarray(answers) + np.asarray(times[name])))
    return timings


def _time(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _compare(batch: int, name: str, plain: Seconds, decided: Seconds) -> Timing:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(plain), size=len(plain))
        ratios.append(np.median(decided[drawn]) / np.median(plain[drawn]))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Timing(
        batch=batch,
        policy=name,
        answer=1000 * float(np.median(plain)),
        decision=1000 * float(np.median(decided - plain)),
        ratio=float(np.median(decided) / np.median(plain)),
        interval=(float(low), float(high)),
    )


if __name__ == "__main__":
    cli.run(main)
