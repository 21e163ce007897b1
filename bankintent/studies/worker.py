"""One run of a comparison in a process of its own: train, evaluate, time, and write one record.

    python -m bankintent.studies.worker JOB

JOB is the JSON file that `python -m bankintent compare` writes for the run.
"""

import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bankintent import cli, files, tracking
from bankintent.bundle import layout
from bankintent.bundle.record import Manifest
from bankintent.corpus import dataset
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.measures import metrics
from bankintent.studies.jobs import RunJob
from bankintent.studies.record import PARTS, BundlePart, Latency, RunRecord, rows_hash
from bankintent.training.rows import draw

if TYPE_CHECKING:
    from bankintent.inference.predictor import Predictor

TIMED_SENTENCES = 256
"""Sentences timed for latency: as many on any data, so that speeds of studies compare."""

WARM_UP_SENTENCES = 32
"""Sentences answered before the clock starts."""

LATENCY_BATCH = 32
"""Batch size of the throughput; the notes of the report name it."""

CPU_INFO = Path("/proc/cpuinfo")
"""Linux's description of the processor: `platform` knows no more than its architecture there."""


@dataclass(frozen=True)
class Measured:
    """A trained bundle's answers to the study's rows."""

    predicted: list[int]
    """Label id for each row."""
    metrics: dict[str, float]
    latency: Latency


def execute_run(job: RunJob) -> None:
    """Train or continue training, evaluate the merged model, write the record."""
    # Late: the libraries read the settings of `process.quiet_libraries` when they are imported.
    from bankintent.training import run as training

    # A cache of its own: with what another run has computed, its time would be too short.
    output_dir = job.settings.output_dir
    settings = job.settings.model_copy(update={"cache_dir": job.cache})
    data = dataset.load(settings.data_dir)

    # A run that was killed left its bundle or its work folder; its first part was not timed.
    is_continued = output_dir.exists() or files.work_dir(output_dir).exists()
    started = time.perf_counter()
    bundle = training.train(settings, data)
    seconds = None if is_continued else round(time.perf_counter() - started, 1)

    rows = data.read(job.split)
    measured = _measure(bundle, rows, settings.eval_batch_size)
    _log_metrics(job, data, measured.metrics)
    record = _make_record(job, data, rows, bundle, measured, seconds)
    # Before anything is removed: a run that is killed from here on is a finished one.
    record.save(job.record)

    job.remove_rest()


def _measure(bundle: Path, rows: SplitData, batch_size: int) -> Measured:
    """Evaluate and time the merged model."""
    from bankintent.inference.predictor import Predictor
    from bankintent.inference.runtime import require_finite

    predictor = Predictor.load(bundle)
    logits = require_finite(predictor.logits(rows.texts, batch_size), bundle.name)
    return Measured(
        predicted=logits.argmax(axis=1).tolist(),
        metrics=metrics.summary(logits, np.asarray(rows.labels)),
        latency=measure_latency(predictor, rows.texts),
    )


def _make_record(
    job: RunJob,
    data: Dataset,
    rows: SplitData,
    bundle: Path,
    measured: Measured,
    run_seconds: float | None,
) -> RunRecord:
    """The record of the run; `run_seconds` is None where an interrupted run was continued."""
    manifest = layout.read_manifest(bundle)
    # Training names the base model in every manifest that it writes.
    assert manifest.base_model is not None
    settings = manifest.settings
    metrics_text = (bundle / layout.METRICS).read_text(encoding="utf-8")
    bundle_record = json.loads(metrics_text)
    training = bundle_record["training"]

    return RunRecord(
        key=job.key,
        regime=settings["regime"],
        backbone=manifest.base_model,
        seed=settings["seed"],
        split=job.split,
        settings=settings,
        data_hash=data.hash,
        labels_hash=data.labels.hash,
        rows_hash=rows_hash(rows),
        # Drawn again with the run's seed: no file of the bundle holds the number.
        train_rows=len(draw(job.settings, data.read("train"))),
        trainable_parameters=training["trainable_parameters"],
        total_parameters=training["total_parameters"],
        # Of a continued run, what was lost between a checkpoint and the kill is not in it.
        train_seconds=None if run_seconds is None else training["seconds"],
        run_seconds=run_seconds,
        peak_memory_bytes=training["peak_memory_bytes"],
        bytes=_part_sizes(manifest),
        latency=measured.latency,
        precision=training["precision"],
        hardware=f"{_processor_name()}; {training['hardware']}",
        versions=manifest.versions,
        finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        history=training["history"],
        metrics=bundle_record["metrics"] | {job.split: measured.metrics},
        predicted=measured.predicted,
    )


def _part_sizes(manifest: Manifest) -> dict[BundlePart, int]:
    """Bytes of each part that the bundle has."""
    sizes: dict[BundlePart, int] = {}
    for part in PARTS:
        entries = manifest.folder(part).values()
        if entries:
            sizes[part] = sum(entry.size for entry in entries)
    return sizes


def _log_metrics(job: RunJob, data: Dataset, values: dict[str, float]) -> None:
    """Log the final metrics to MLflow as `python -m eval` does."""
    checkpoint = job.settings.output_dir.name
    run_name = f"{checkpoint}-eval-{job.split}"
    tags = {
        tracking.KIND: tracking.STUDY,
        "dataset": data.name,
        "checkpoint": checkpoint,
        "split": job.split,
        "regime": job.settings.regime,
    }
    logged = tracking.headline(values)
    logged |= {f"{job.split}_{key}": value for key, value in values.items()}

    with tracking.run(job.settings.tracking, run_name, tags) as tracker:
        tracker.metrics(logged)


def _processor_name() -> str:
    """The processor's name, as the system gives it."""
    # A system other than Linux has no such file.
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure_latency(predictor: "Predictor", texts: Sequence[str]) -> Latency:
    """Time `predictor` on the first sentences, a fixed number, repeated where there are too few."""
    sample = list(islice(cycle(texts), TIMED_SENTENCES))

    # The first calls are slower, because memory is allocated and kernels are chosen.
    for text in sample[:WARM_UP_SENTENCES]:
        predictor.logits([text], 1)
    single_seconds = [_time_batches(predictor, [text]) for text in sample]

    predictor.logits(sample[:WARM_UP_SENTENCES], LATENCY_BATCH)
    batched_seconds = _time_batches(predictor, sample)
    return Latency(
        single_ms=round(1000 * statistics.median(single_seconds), 3),
        batched_per_second=round(TIMED_SENTENCES / batched_seconds, 1),
        sentences=TIMED_SENTENCES,
    )


def _time_batches(predictor: "Predictor", texts: Sequence[str]) -> float:
    started = time.perf_counter()
    predictor.logits(texts, LATENCY_BATCH)
    return time.perf_counter() - started


def main(job: Path) -> None:
    """Execute the job that a JSON file describes."""
    execute_run(RunJob.load(job))


if __name__ == "__main__":
    cli.run(main)
