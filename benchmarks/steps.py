"""Where the time of a training step goes, by kind of operation, for this project's full fine-tuning and LoRA.

python -m benchmarks.steps --data-dir data/quickstart

A profile by torch.profiler of whole steps (collating, forward, backward, optimizer) on one process's warm Trainer. The
steps before it are timed without the profiler, which costs some per cent itself. What no operation accounts for is
Python and the framework. The floor is the arithmetic of the steps' real tokens at the measured rate of matrix products.
CPU only. Writes a table and a JSON file.
"""

import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files, process
from bankintent.corpus import dataset
from benchmarks import machine, tables, training
from benchmarks.tables import Table, share

REGIMES = ("full-ft", "lora")
WARM = 3
KINDS = {
    "attention": ("attention",),
    "dropout": ("dropout", "bernoulli"),
    "optimizer": ("adam", "foreach", "vector_norm"),
    "normalisation": ("layer_norm",),
    "activation": ("gelu", "tanh"),
    "loss": ("softmax", "nll_loss", "cross_entropy"),
    "embedding": ("embedding", "index_"),
    "matrix products": ("::mm", "addmm", "bmm", "matmul", "linear"),
    "copies and casts": ("copy", "::to", "clone", "contiguous", "::cat", "fill_", "zero_", "empty"),
}
"""Kinds of operations, by parts of their names; the first that fits."""
OTHER, HOST = "other operations", "Python and framework"


def main(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path(
        "data/quickstart"
    ),
    steps: Annotated[
        int, typer.Option(help="Steps that are profiled, and as many timed before.")
    ] = 10,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/steps.json"
    ),
) -> None:
    """Profile both regimes, print a table and write the figures."""
    dataset.load(data_dir)
    profiles = {}
    for regime in REGIMES:
        console.say(f"Profiling {regime} ...")
        job = {"regime": regime, "data_dir": str(data_dir.absolute()), "steps": steps}
        profiles[regime] = machine.run_apart("benchmarks.steps", job)
    record = {
        "machine": machine.describe(),
        "peak": machine.peak(),
        "steps": steps,
        "profiles": profiles,
    }
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


@contextlib.contextmanager
def before_steps(hook: Callable[[int, Any], None]) -> Iterator[None]:
    """Within the block, `hook` is called with its number (from 0) and its batch before each step of the Trainer."""
    from bankintent.training.trainer import IntentTrainer

    original, done = IntentTrainer.training_step, 0

    def step(self: Any, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        nonlocal done
        hook(done, inputs)
        done += 1
        return original(self, model, inputs, *args, **options)

    IntentTrainer.training_step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        IntentTrainer.training_step = original  # type: ignore[method-assign]


def profile(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step by kind of operation, and of a step without the profiler."""
    import torch
    from torch.profiler import ProfilerActivity

    count, tokens = job["steps"], 0
    profiler = torch.profiler.profile(activities=[ProfilerActivity.CPU])
    marks: dict[int, float] = {}

    def hook(number: int, inputs: Any) -> None:
        nonlocal tokens
        marks[number] = time.perf_counter()
        if number == WARM + count:
            profiler.start()
            marks[number] = time.perf_counter()
        elif number == WARM + 2 * count:
            profiler.stop()
        if WARM <= number < WARM + count:
            tokens += int(inputs["attention_mask"].sum())

    with tempfile.TemporaryDirectory() as work, before_steps(hook):
        setting = training.prepare(
            job["regime"], Path(job["data_dir"]), (WARM + 2 * count + 1) * training.BATCH, 1
        )
        precision = training.fit_ours(setting, Path(work))
    plain, profiled = (
        (marks[WARM + k * count + count] - marks[WARM + k * count]) / count for k in (0, 1)
    )
    kinds: Counter[str] = Counter()
    for event in profiler.key_averages():
        if "::" in event.key and not event.key.startswith("autograd"):
            kinds[kind_of(event.key)] += event.self_cpu_time_total / 1e6 / count
    kinds[HOST] = max(0.0, profiled - kinds.total())
    return {
        "precision": precision,
        "seconds": plain,
        "profiled_seconds": profiled,
        "kinds": dict(kinds.most_common()),
        "flops": setting.flops_per_token * tokens / count,
        "tokens": tokens / count,
    }


def kind_of(operation: str) -> str:
    """The kind of an operation such as `aten::addmm`."""
    return next(
        (kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), OTHER
    )


def make_tables(record: dict[str, Any]) -> list[Table]:
    """Kinds of operations in rows, regimes in columns."""
    profiles = record["profiles"]
    kinds = dict.fromkeys(kind for one in profiles.values() for kind in one["kinds"])
    rows = []
    for kind in sorted(
        kinds, key=lambda kind: -sum(one["kinds"].get(kind, 0) for one in profiles.values())
    ):
        row = [kind]
        for one in profiles.values():
            value = one["kinds"].get(kind, 0)
            row += [f"{1000 * value:.1f}", share(value, one["profiled_seconds"])]
        rows.append(row)
    lines: dict[str, Callable[[dict[str, Any]], float]] = {
        "a step, profiled": lambda one: one["profiled_seconds"],
        "a step without the profiler": lambda one: one["seconds"],
        "the floor": lambda one: one["flops"] / record["peak"][training.PEAKS[one["precision"]]],
    }
    for name, value in lines.items():
        cells = [
            [f"{1000 * value(one):.1f}", share(value(one), one["profiled_seconds"])]
            for one in profiles.values()
        ]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    header = [
        "kind of operation",
        *(cell for name in profiles for cell in (f"{name}, ms", "share")),
    ]
    tokens = ", ".join(
        f"{one['tokens']:.0f} tokens a step in {name}" for name, one in profiles.items()
    )
    return [
        Table(
            f"Where a training step of {training.BATCH} sentences goes", header, rows, f"{tokens}."
        )
    ]


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        process.quiet_libraries()
        print(json.dumps(profile(json.loads(sys.argv[1]))))
    else:
        cli.run(main)
