"""Where the time of a training step goes, by kind of operation, in full fine-tuning and LoRA.

python -m benchmarks.steps --data-dir data/quickstart

A profile by torch.profiler of whole steps (collating, forward, backward, optimizer) on one
process's warm Trainer. The steps before it are timed without the profiler, which costs some per
cent itself. The time that no operation accounts for is Python and the framework. The floor is the
arithmetic of the steps' real tokens at the measured rate of matrix products. CPU only. Writes a
table and a JSON file.
"""

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files
from bankintent.corpus import dataset
from benchmarks import machine, tables, training
from benchmarks.machine import Job
from benchmarks.tables import Record, Table, share

REGIMES = ("full-ft", "lora")

WARM_STEPS = 3
"""First steps, which are slower and not counted."""

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

OTHER = "other operations"
HOST = "Python and framework"


def main(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path(
        "data/quickstart"
    ),
    steps: Annotated[
        int,
        typer.Option(help="Steps that are profiled, and as many timed before."),
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
    """Within the block, call `hook` before each step of the Trainer with its number and batch.

    Numbers count from 0.
    """
    from bankintent.training.trainer import IntentTrainer

    original = IntentTrainer.training_step
    number = 0

    def step(self: Any, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        nonlocal number
        hook(number, inputs)
        number += 1
        return original(self, model, inputs, *args, **options)

    IntentTrainer.training_step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        IntentTrainer.training_step = original  # type: ignore[method-assign]


def profile(job: Job) -> Record:
    """Seconds of a step by kind of operation, and of a step without the profiler."""
    import torch
    from torch.profiler import ProfilerActivity

    steps = job["steps"]
    first_plain = WARM_STEPS
    first_profiled = first_plain + steps
    end = first_profiled + steps

    profiler = torch.profiler.profile(activities=[ProfilerActivity.CPU])
    marks: dict[int, float] = {}
    tokens = 0

    def hook(number: int, inputs: Any) -> None:
        nonlocal tokens
        marks[number] = time.perf_counter()
        if number == first_profiled:
            profiler.start()
            # Again, since starting the profiler takes time.
            marks[number] = time.perf_counter()
        elif number == end:
            profiler.stop()
        if first_plain <= number < first_profiled:
            tokens += int(inputs["attention_mask"].sum())

    # One step more than is measured: the hook before it marks the end of the last.
    sentences = (end + 1) * training.BATCH
    with tempfile.TemporaryDirectory() as work, before_steps(hook):
        setting = training.prepare(job["regime"], Path(job["data_dir"]), sentences, 1)
        precision = training.fit_ours(setting, Path(work))

    plain = (marks[first_profiled] - marks[first_plain]) / steps
    profiled = (marks[end] - marks[first_profiled]) / steps
    kinds = _seconds_by_kind(profiler.key_averages(), steps)
    kinds[HOST] = max(0.0, profiled - kinds.total())
    return {
        "precision": precision,
        "seconds": plain,
        "profiled_seconds": profiled,
        "kinds": dict(kinds.most_common()),
        "flops": setting.flops_per_token * tokens / steps,
        "tokens": tokens / steps,
    }


def _seconds_by_kind(events: Any, steps: int) -> Counter[str]:
    """Seconds of each kind of operation in a step, without the operations that it calls."""
    kinds: Counter[str] = Counter()
    for event in events:
        # Other events are the framework's own marks, such as "Optimizer.step".
        is_operation = "::" in event.key and not event.key.startswith("autograd")
        if is_operation:
            kinds[kind_of(event.key)] += event.self_cpu_time_total / 1e6 / steps
    return kinds


def kind_of(operation: str) -> str:
    """The kind of an operation such as `aten::addmm`."""
    for kind, parts in KINDS.items():
        if any(part in operation for part in parts):
            return kind
    return OTHER


def make_tables(record: Record) -> list[Table]:
    """Kinds of operations in rows, regimes in columns."""
    profiles: dict[str, Record] = record["profiles"]
    header = ["kind of operation"]
    tokens = []
    for name, profile in profiles.items():
        header += [f"{name}, ms", "share"]
        tokens.append(f"{profile['tokens']:.0f} tokens a step in {name}")

    rows = []
    for kind in _kinds_by_time(profiles):
        rows.append(_row(kind, profiles, partial(_kind_seconds, kind)))

    def floor(profile: Record) -> float:
        return profile["flops"] / record["peak"][training.PEAKS[profile["precision"]]]

    rows += [
        _row("a step, profiled", profiles, lambda profile: profile["profiled_seconds"]),
        _row("a step without the profiler", profiles, lambda profile: profile["seconds"]),
        _row("the floor", profiles, floor),
    ]
    title = f"Where a training step of {training.BATCH} sentences goes"
    return [Table(title, header, rows, f"{', '.join(tokens)}.")]


def _kinds_by_time(profiles: dict[str, Record]) -> list[str]:
    """All kinds of operations, the one that takes most time first."""
    seconds: Counter[str] = Counter()
    for profile in profiles.values():
        seconds.update(profile["kinds"])
    return [kind for kind, _ in seconds.most_common()]


def _kind_seconds(kind: str, profile: Record) -> float:
    return profile["kinds"].get(kind, 0)


def _row(name: str, profiles: dict[str, Record], seconds: Callable[[Record], float]) -> list[str]:
    """Milliseconds of each profile and their share of its step."""
    row = [name]
    for profile in profiles.values():
        value = seconds(profile)
        row += [f"{1000 * value:.1f}", share(value, profile["profiled_seconds"])]
    return row


if __name__ == "__main__":
    if machine.has_job():
        machine.answer_job(profile)
    else:
        cli.run(main)
