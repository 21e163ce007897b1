"""Memory and rate of many LoRA adapters on one base, and of as many models of their own.

python -m benchmarks.tenants --model-dir artifacts/models/quickstart

The tenants are copies of one bundle whose adapter and head differ by noise. For each number of
tenants a fresh process loads the base and all of them, and answers sentences of tenants in turn, so
that every batch is mixed; once with the base in torch, once with an exported one. Beside it: one
model of its own in torch, in ONNX Runtime, and in the fastest format that the bundle has verified;
and two and four such models in one process, whose further memory is that of any further one. Writes
a table and a JSON file.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from safetensors.numpy import load_file, save_file

from bankintent import cli, console, files, process
from bankintent.bundle import layout
from bankintent.inference import choice
from bankintent.inference.adapters.tenants import open_base
from bankintent.inference.runtime import Runtime
from bankintent.serving.memory import resident, trim
from benchmarks import machine, tables
from benchmarks.machine import Job
from benchmarks.serving import read_texts
from benchmarks.tables import Record, Table

COUNTS = (1, 4, 16, 64, 256)

MODELS = (1, 2, 4)
"""Models of their own in one process."""

RUNTIMES = ("torch", "onnx", "auto")
"""What computes them."""

BASES = {"shared": "torch", "exported": "ONNX Runtime"}
"""Kind of a shared base -> what computes it."""

EXPORTED = "base"
"""Folder of the exported base, beside the tenants."""

BATCH = 8
"""Texts of a batch: `batching.max_texts` of a server, by default."""

NOISE = 0.01
"""Spread of what is added to the weights of a tenant, as a share of theirs."""

WEIGHTS = "adapter_model.safetensors"


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A LoRA bundle.")],
    sentences: Annotated[int, typer.Option(help="Sentences that are answered.")] = 1600,
    tenants: Annotated[
        list[int] | None, typer.Option(help="Repeatable.", show_default="1 4 16 64 256")
    ] = None,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/tenants.json"
    ),
) -> None:
    """Measure all numbers of tenants, print a table and write the figures."""
    # Late: it imports torch, which would count for the processes that are measured.
    from bankintent.export import shared_base

    counts = tenants or list(COUNTS)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        console.say(f"{max(counts)} tenants are written ...")
        write_tenants(model_dir, Path(folder), max(counts))
        shared_base.export(model_dir, Path(folder) / EXPORTED)
        job = {"folder": folder, "sentences": sentences}
        for runtime in RUNTIMES:
            for count in MODELS:
                runs.append(_run({**job, "kind": runtime, "count": count}))
        for kind in BASES:
            for count in counts:
                runs.append(_run({**job, "kind": kind, "count": count}))

    record = {"machine": machine.describe(), "model": model_dir.name, "runs": runs}
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def _run(job: Job) -> Record:
    console.say(f"{job['count']} x {job['kind']} ...")
    measured = machine.run_apart("benchmarks.tenants", job)
    return {"kind": job["kind"], "count": job["count"], **measured}


def write_tenants(source: Path, folder: Path, count: int) -> None:
    """Bundles that differ in adapter and head; what they share takes no more disk."""
    rng = np.random.default_rng(0)
    tensors = load_file(source / layout.ADAPTER / WEIGHTS)
    own = f"{layout.ADAPTER}/{WEIGHTS}"
    for number in range(count):
        root = folder / f"tenant-{number:03d}"
        shutil.copytree(source, root, copy_function=_link)

        noisy = {}
        for name, tensor in tensors.items():
            noise = rng.normal(size=tensor.shape).astype(tensor.dtype)
            noisy[name] = tensor + NOISE * tensor.std() * noise
        # Not through the link, which would change the source.
        (root / own).unlink()
        save_file(noisy, root / own)

        # Sealed anew but for what is shared, which is too much to hash for each.
        manifest = json.loads((root / layout.MANIFEST).read_text(encoding="utf-8"))
        entry = {"size": (root / own).stat().st_size, "sha256": files.sha256(root / own)}
        manifest["files"][own] = entry
        (root / layout.MANIFEST).unlink()
        files.write_text(root / layout.MANIFEST, files.json_text(manifest))


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def measure(job: Job) -> Record:
    """Memory of the process with its models, and sentences a second with mixed batches."""
    process.keep_products_on_one_thread()
    roots = sorted(Path(job["folder"]).glob("tenant-*"))[: job["count"]]
    before = resident()
    models = load_models(job["kind"], roots)
    trim()  # as a server does
    texts = read_texts()[: job["sentences"]]

    # Of all tenants, in turn: neighbours in a batch are of different ones.
    items = []
    for number, tokens in enumerate(models[0].tokenize(texts)):
        items.append((models[number % len(models)], tokens))
    items.sort(key=lambda item: len(item[1]))
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]

    with ThreadPoolExecutor(models[0].workers) as pool:
        list(pool.map(answer, batches[::10]))  # warm-up
        started = time.perf_counter()
        list(pool.map(answer, batches))
        seconds = time.perf_counter() - started
    return {
        "memory_bytes": resident(),
        "models_bytes": resident() - before,
        "sentences_per_second": len(texts) / seconds,
        "runtime": models[0].facts.runtime,
    }


def load_models(kind: str, roots: Sequence[Path]) -> list[Runtime]:
    """The models of the bundles: on one base, or each of its own in a runtime."""
    if kind in BASES:
        is_exported = kind == "exported"
        base = open_base(roots[0].with_name(EXPORTED) if is_exported else roots[0])
        return [base.load(root) for root in roots]
    return [choice.find(root, kind).load() for root in roots]  # type: ignore[arg-type]


def answer(batch: list[tuple[Runtime, object]]) -> None:
    """Compute one batch: on a shared base together, otherwise each model its own texts."""
    first = batch[0][0]
    base = getattr(first, "base", None)
    if base is not None:
        base.mixed_outputs(batch)
        return

    by_model: dict[int, tuple[Runtime, list[object]]] = {}
    for model, tokens in batch:
        by_model.setdefault(id(model), (model, []))[1].append(tokens)
    for model, own in by_model.values():
        model.outputs(own)  # type: ignore[arg-type]


def make_tables(record: Record) -> list[Table]:
    """One row for each kind and number of models."""
    header = ["models", "as", "memory, MB", "x one", "sentences/s", "x one"]
    firsts: dict[str, Record] = {}
    rows = []
    for run in record["runs"]:
        first = firsts.setdefault(run["kind"], run)
        memory = run["memory_bytes"] / first["memory_bytes"]
        rate = run["sentences_per_second"] / first["sentences_per_second"]
        rows.append(
            [
                str(run["count"]),
                _describe(run),
                f"{run['memory_bytes'] / 1e6:,.0f}",
                f"{memory:.2f}",
                f"{run['sentences_per_second']:,.0f}",
                f"{rate:.2f}",
            ]
        )
    note = (
        f"Batches of {BATCH} texts of different tenants; memory of a fresh process with everything"
        " loaded and used."
    )
    return [Table(f"Tenants of {record['model']}", header, rows, note)]


def _describe(run: Record) -> str:
    if run["kind"] in BASES:
        return f"adapters on one base ({BASES[run['kind']]})"
    return f"models ({run['runtime']})"


if __name__ == "__main__":
    if machine.has_job():
        machine.answer_job(measure)
    else:
        cli.run(main)
