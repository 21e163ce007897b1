"""One run of a comparison, by itself in a fresh process: train, evaluate, time, and keep one record.

    python -m bankintent.studies.worker JOB

JOB is the JSON file that `python -m bankintent compare` writes for the run.
"""

import json
import platform
import shutil
import statistics
import time
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bankintent import cli, files, process, tracking
from bankintent.bundle import layout
from bankintent.config import TrainConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import Dataset
from bankintent.measures import metrics
from bankintent.studies.record import Latency, Record, RunRecord, rows_hash
from bankintent.training import run as training
from bankintent.training.job import TABLES

if TYPE_CHECKING:
    from bankintent.inference.predictor import Predictor

TIMED = 256
"""Sentences timed for latency."""
WARM_UP = 32
"""Sentences answered before the clock starts."""
BATCH = 32


class Job(Record):
    """What a worker is told."""

    settings: TrainConfig
    split: Literal["val", "test"]
    key: str
    record: Path
    """The file to write."""
    keep_model: bool


def execute(job: Job) -> None:
    """Train (or go on training), evaluate the merged model, write the record, and remove the bundle."""
    from bankintent.inference.predictor import Predictor

    # A cache of its own: no run may profit from what another has computed, or its time would not be its own.
    cache = job.settings.output_dir.with_name(f"{job.settings.output_dir.name}.cache")
    settings = job.settings.model_copy(update={"cache_dir": cache})
    assert settings.regime is not None
    data = dataset.load(settings.data_dir)
    continued = settings.output_dir.exists() or files.work_dir(settings.output_dir).exists()
    started = time.perf_counter()
    bundle = training.train(settings, settings.regime, data)
    seconds = None if continued else round(time.perf_counter() - started, 1)

    checkpoint, rows = layout.open_checkpoint(bundle), data.read(job.split)
    assert checkpoint.manifest is not None
    predictor = Predictor.load(checkpoint)
    logits = predictor.logits(rows.texts, settings.eval_batch_size)
    figures = metrics.summary(logits, np.asarray(rows.labels))
    _log(job, figures)
    RunRecord(
        key=job.key,
        split=job.split,
        data_hash=data.hash,
        labels_hash=data.labels.hash,
        rows_hash=rows_hash(rows),
        train_rows=_train_rows(settings, data),
        run_seconds=seconds,
        latency=measure_latency(predictor, rows.texts),
        finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        predicted=logits.argmax(axis=1).tolist(),
        **_facts(bundle, checkpoint.manifest, {job.split: figures}, continued),
    ).save(job.record)
    shutil.rmtree(cache, ignore_errors=True)
    if not job.keep_model:
        shutil.rmtree(bundle)
        for name in TABLES:
            bundle.with_name(f"{bundle.name}.{name}").unlink(missing_ok=True)


def _facts(
    bundle: Path, manifest: dict[str, Any], figures: dict[str, dict[str, float]], continued: bool
) -> Any:
    """What the bundle records of its training, as the fields of a RunRecord."""
    facts = json.loads((bundle / layout.METRICS).read_text(encoding="utf-8"))
    settings, cost = manifest["identity"]["settings"], facts["training"]
    sizes = {
        part: sum(
            entry["size"]
            for name, entry in manifest["files"].items()
            if name.startswith(f"{part}/")
        )
        for part in (layout.MERGED, layout.ADAPTER)
    }
    return {
        "regime": settings["regime"],
        "backbone": manifest["base_model"],
        "seed": settings["seed"],
        "settings": settings,
        "trainable_parameters": cost["trainable_parameters"],
        "total_parameters": cost["total_parameters"],
        "train_seconds": None if continued else cost["seconds"],
        "peak_memory_bytes": cost["peak_memory_bytes"],
        "bytes": {part: size for part, size in sizes.items() if size},
        "precision": cost["precision"],
        "hardware": f"{_processor()}; {cost['hardware']}",
        "versions": manifest["versions"],
        "history": cost["history"],
        "metrics": facts["metrics"] | figures,
    }


def _train_rows(settings: TrainConfig, data: Dataset) -> int:
    rows = data.read("train")
    return len(
        rows if settings.few_shot is None else rows.few_shot(settings.few_shot, settings.seed)
    )


def _log(job: Job, figures: dict[str, float]) -> None:
    """The final figures to MLflow, as `python -m eval` logs them."""
    name = job.settings.output_dir.name
    tags = {"checkpoint": name, "split": job.split}
    with tracking.run(job.settings.tracking, f"{name}-eval-{job.split}", tags) as tracker:
        tracker.metrics({f"{job.split}_{key}": value for key, value in figures.items()})


def _processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure_latency(predictor: "Predictor", texts: list[str]) -> Latency:
    """Time `predictor` on a fixed number of sentences, the first ones, repeated where there are too few."""
    sample = list(islice(cycle(texts), TIMED))
    for text in sample[:WARM_UP]:
        predictor.logits([text], 1)
    single = [_seconds(predictor, [text]) for text in sample]
    predictor.logits(sample[:WARM_UP], BATCH)
    return Latency(
        single_ms=round(1000 * statistics.median(single), 3),
        batched_per_second=round(TIMED / _seconds(predictor, sample), 1),
        sentences=TIMED,
    )


def _seconds(predictor: "Predictor", texts: list[str]) -> float:
    started = time.perf_counter()
    predictor.logits(texts, BATCH)
    return time.perf_counter() - started


def main(job: Path) -> None:
    """Execute the job that a JSON file describes; end with the process that wrote it."""
    process.end_with_parent()
    execute(Job.load(job))


if __name__ == "__main__":
    cli.run(main)
