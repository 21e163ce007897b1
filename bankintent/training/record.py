"""What a run says of itself: the facts behind a bundle's metrics.json, its manifest and its cards."""

import dataclasses
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import bankintent
from bankintent.bundle.attribution import HUB_NAMES
from bankintent.corpus.dataset import SplitData
from bankintent.measures import metrics
from bankintent.tracking import Tracker

if TYPE_CHECKING:
    from bankintent.export.publish import Exported
    from bankintent.training.job import Fitted, Job

RESAMPLES = 2000
"""Of the validation rows, behind the intervals."""


def gather(
    job: "Job", wanted: dict[str, Any], done: "Fitted", exported: "Exported"
) -> dict[str, Any]:
    """Everything as plain JSON values; `wanted` is the run's identity."""
    name, fit = done.backbone.name, done.fit
    teacher = {"distilled_from": done.teacher} if done.teacher else {}
    return teacher | {
        "name": job.config.output_dir.name,
        "base_model": HUB_NAMES.get(name, name),
        "base_model_id": hub_id(name),
        "labels": list(job.data.labels.names),
        "config": job.config.model_dump(mode="json"),
        "settings": wanted["settings"],
        "data": {
            "name": job.data.name,
            "source": {
                key: value
                for key, value in job.data.manifest["source"].items()
                if key != "unlabelled" or job.config.pseudo_labels
            },
            "hash": job.data.hash,
            "train_rows": len(job.train),
            "val_rows": len(job.val),
            "unlabelled_rows": len(job.unlabelled),
        },
        "metrics": {"val": metrics.summary(exported.val_logits, np.asarray(job.val.labels))},
        "validation": validation(
            exported.val_logits, job.val, job.data.labels.names, job.config.seed
        ),
        "training": {
            "trainable_parameters": done.parameters.trainable,
            "total_parameters": done.parameters.total,
            "seconds": round(fit.seconds, 1),
            "epochs": fit.epochs,
            "sentences_per_second": round(fit.sentences_per_second, 1),
            "peak_memory_bytes": fit.peak_memory_bytes,
            "precision": fit.precision,
            "hardware": fit.hardware,
            "history": fit.history,
        },
        "parity": dataclasses.asdict(exported.parity),
        "versions": versions(),
        "tracked": tracked(job.tracker, job.config.tracking.uri),
    }


def validation(
    logits: np.ndarray, rows: SplitData, names: tuple[str, ...], seed: int
) -> dict[str, Any]:
    """How sure the validation figures are and what is confused; without sentences, which may not be for all eyes.

    `logits` are (rows, labels).
    """
    true, predicted = np.asarray(rows.labels), logits.argmax(axis=1)
    pairs = metrics.confused_pairs(true, predicted, rows.texts, names, examples=0)
    return {
        "rows": len(true),
        "intervals": metrics.bootstrap_intervals(true, predicted, len(names), RESAMPLES, seed),
        "bootstrap": {"resamples": RESAMPLES, "seed": seed},
        "confused_pairs": [
            {key: pair[key] for key in ("true", "predicted", "count")} for pair in pairs
        ],
    }


def hub_id(backbone: str) -> str | None:
    """The Hub id of a backbone; None for a folder, also for one that is no longer there."""
    name = HUB_NAMES.get(backbone, backbone)
    is_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None
    return name if is_id and not Path(name).is_dir() else None


def tracked(tracker: Tracker, uri: str) -> dict[str, Any] | None:
    """The MLflow run that is to hold the bundle; the address of a server, which may hold a password, is left out."""
    if not tracker.keeps_files:
        return None
    return {"run_id": tracker.run_id, "uri": uri if uri.startswith("sqlite:///") else None}


def versions() -> dict[str, str]:
    """What the model was made with."""
    from importlib.metadata import version

    packages = ("torch", "transformers", "peft", "tokenizers", "safetensors")
    return {"bankintent": bankintent.__version__, "python": platform.python_version()} | {
        package: version(package) for package in packages
    }
