"""A trained model to a published bundle: saved, loaded again in a fresh process, compared, sealed, renamed."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.numpy import save_file
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent import files, process
from bankintent.bundle import layout
from bankintent.bundle.attribution import HUB_NAMES
from bankintent.bundle.record import Parity
from bankintent.bundle.work import WorkFolder
from bankintent.config import TrainConfig
from bankintent.corpus.dataset import SplitData
from bankintent.errors import ModelError
from bankintent.export import fresh_check as parity
from bankintent.export.gate import PARITY_ROWS
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema

CALIBRATION_ROWS = 256
TOLERANCE = 1e-4
"""Largest difference of a logit between the trained model, the adapter on its base, and the merged model."""


@dataclass(frozen=True)
class Exported:
    """What the saved model says: its logits on the validation split, and how far its forms differ."""

    val_logits: np.ndarray
    parity: Parity


@dataclass(frozen=True)
class Trained:
    """A trained model, not yet saved."""

    model: torch.nn.Module
    tokenizer: Tokenizer
    backbone: str
    """The name that the run's config gives the pretrained model."""
    labels: LabelSchema


def export(
    trained: Trained, train: SplitData, val: SplitData, config: TrainConfig, work: WorkFolder
) -> Exported:
    """Save every form of the trained model into `work.bundle` and check them; ModelError where they disagree.

    The formats of `onnx/` that fail are left out; int8 takes its scales from sentences of `train`.
    """
    tokenizer, labels = trained.tokenizer, trained.labels
    reference = logits(trained.model.to("cpu"), tokenizer, labels, val.texts[:PARITY_ROWS], 32)
    merged = save_models(trained, work)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    val_logits = logits(merged.to(device), tokenizer, labels, val.texts, config.eval_batch_size)
    order = {
        "texts": val.texts,
        "labels": val.labels,
        "calibration": train.texts[:: max(1, len(train) // CALIBRATION_ROWS)][:CALIBRATION_ROWS],
        "backbone": HUB_NAMES.get(trained.backbone, trained.backbone),
        "export": config.export.model_dump(),
    }
    return Exported(val_logits, check_parity(reference, val_logits, order, work))


def save_base(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Save what an adapter is trained on, before training: the pretrained weights with their untrained head."""
    if folder.exists():
        shutil.rmtree(folder)
    model.save_pretrained(folder)
    _save_tokenizer(tokenizer, folder)


def save_models(trained: Trained, work: WorkFolder) -> PreTrainedModel:
    """Write merged/ and, for a LoRA model, adapter/ and base_<n>/ into `work.bundle`; returns the merged model."""
    model, tokenizer, staging = trained.model, trained.tokenizer, work.bundle
    name = trained.backbone
    if isinstance(model, PeftModel):
        # The folder of one machine would be useless elsewhere: record the public name of the base.
        for config in model.peft_config.values():
            config.base_model_name_or_path = HUB_NAMES.get(name, name)
            config.inference_mode = True
        # The vocabulary never grows here; looking for a change would ask the Hub for the base's config.
        model.save_pretrained(staging / layout.ADAPTER, save_embedding_layers=False)
        (staging / layout.ADAPTER / layout.CARD).unlink(
            missing_ok=True
        )  # PEFT's own template of a card
        _save_tokenizer(tokenizer, staging / layout.ADAPTER)
        shutil.copytree(work.base, staging / layout.base_folder(trained.labels))
        merged = model.merge_and_unload(safe_merge=True)
    else:
        merged = model
    assert isinstance(merged, PreTrainedModel)
    merged.config.problem_type = "single_label_classification"
    merged.save_pretrained(staging / layout.MERGED)
    _save_tokenizer(tokenizer, staging / layout.MERGED)
    return merged


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Save without the padding and truncation of the last call, which `tokenizer.json` would keep as its own."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()
    tokenizer.save_pretrained(folder)


def check_parity(
    reference: np.ndarray, val_logits: np.ndarray, order: dict[str, Any], work: WorkFolder
) -> Parity:
    """Load every saved form in a fresh process, compare it with the trained model, and make the formats of `onnx/`.

    Returns the largest differences, and the formats that passed and failed; raises ModelError, and so stops
    publication, where a form is above TOLERANCE.
    """
    staging = work.bundle
    check = files.make_empty(work.check)
    (check / parity.ORDER).write_text(json.dumps(order), encoding="utf-8")
    save_file({"reference": reference, "validation": val_logits}, check / parity.LOGITS)
    cause = process.run_module(
        "bankintent.export.fresh_check",
        [staging.absolute(), check.absolute()],
        log=check / "output.log",
    )
    differences = _read(check / parity.DIFFERENCES)
    if differences is None:
        raise ModelError(
            f"the exported model could not be loaded again: {cause}", f"Look at {staging}"
        )
    worst = max(differences.values())
    if not worst <= TOLERANCE:
        listed = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        raise ModelError(
            f"the exported model answers otherwise than the trained one (largest logit difference: {listed};"
            f" allowed {TOLERANCE:.0e})",
            "Nothing was published; train in another precision, or report this",
        )
    formats = _read(check / parity.FORMATS)
    if formats is None:  # an exporter can take its process with it; the model stands without
        shutil.rmtree(staging / layout.ONNX, ignore_errors=True)
        formats = {"formats": {}, "left_out": {"onnx": f"its export was cut off: {cause}"}}
    return Parity(
        rows=len(reference),
        tolerance=TOLERANCE,
        largest_logit_difference=differences,
        **formats,
    )


def _read(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def logits(
    model: torch.nn.Module, tokenizer: Tokenizer, labels: LabelSchema, texts: list[str], batch: int
) -> np.ndarray:
    """The model's float32 logits, autocast off, dropout off."""
    return Predictor(model.float(), tokenizer, labels).logits(texts, batch)
