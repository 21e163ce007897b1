"""A trained model to a published bundle: saved, loaded again in a fresh process, compared, sealed, renamed."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.numpy import save_file
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

import bankintent
from bankintent.bundle import layout
from bankintent.corpus.dataset import SplitData
from bankintent.errors import ModelError
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema
from bankintent.training.backbones import HUB_NAMES, Backbone

PARITY_ROWS = 64
TOLERANCE = 1e-4
"""Largest difference of a logit between the trained model, the adapter on its base, and the merged model."""


@dataclass(frozen=True)
class Exported:
    """What the saved model says: its logits on the validation split, and how far its forms differ."""

    val_logits: np.ndarray
    parity: dict[str, Any]


def export(
    model: torch.nn.Module,
    backbone: Backbone,
    labels: LabelSchema,
    val: SplitData,
    batch_size: int,
    work: Path,
    staging: Path,
) -> Exported:
    """Save every form of the trained model into `staging` and check them; ModelError where they disagree."""
    texts = val.texts[:PARITY_ROWS]
    reference = logits(model.to("cpu"), backbone.tokenizer, labels, texts, 32)
    merged = save_models(model, backbone.tokenizer, backbone.name, labels, work / "base", staging)
    parity = check_parity(reference, texts, staging, work)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Exported(logits(merged.to(device), backbone.tokenizer, labels, val.texts, batch_size), parity)


def save_base(backbone: Backbone, folder: Path) -> None:
    """Save what an adapter is trained on, before training: the pretrained weights with their untrained head."""
    if folder.exists():
        shutil.rmtree(folder)
    backbone.model.save_pretrained(folder)
    _save_tokenizer(backbone.tokenizer, folder)


def save_models(
    model: torch.nn.Module, tokenizer: Tokenizer, name: str, labels: LabelSchema, base: Path, staging: Path
) -> PreTrainedModel:
    """Write merged/ and, for a LoRA model, adapter/ and base_<n>/ into `staging`; returns the merged model."""
    if isinstance(model, PeftModel):
        # The folder of one machine would be useless elsewhere: record the public name of the base.
        for config in model.peft_config.values():
            config.base_model_name_or_path = HUB_NAMES.get(name, name)
            config.inference_mode = True
        # The vocabulary never grows here; looking for a change would ask the Hub for the base's config.
        model.save_pretrained(staging / layout.ADAPTER, save_embedding_layers=False)
        (staging / layout.ADAPTER / layout.CARD).unlink(missing_ok=True)  # PEFT's own template of a card
        _save_tokenizer(tokenizer, staging / layout.ADAPTER)
        shutil.copytree(base, staging / layout.base_folder(labels))
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


def check_parity(reference: np.ndarray, texts: list[str], staging: Path, work: Path) -> dict[str, Any]:
    """Load every saved form in a fresh process and compare its logits with the trained model's.

    Returns the largest differences; raises ModelError, and so stops publication, above TOLERANCE.
    """
    (work / "parity.json").write_text(json.dumps(texts), encoding="utf-8")
    save_file({"logits": reference}, work / "parity.safetensors")
    command = [sys.executable, "-m", "bankintent.training.parity", str(staging.absolute()), str(work.absolute())]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(bankintent.__file__).parents[1])
    if result.returncode != 0:
        cause = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelError(f"the exported model could not be loaded again: {cause}", f"Look at {staging}")
    differences = json.loads(result.stdout.strip().splitlines()[-1])
    worst = max(differences.values())
    if not worst <= TOLERANCE:
        listed = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        raise ModelError(
            f"the exported model answers otherwise than the trained one (largest logit difference: {listed};"
            f" allowed {TOLERANCE:.0e})",
            "Nothing was published; train in another precision, or report this",
        )
    return {"rows": len(texts), "tolerance": TOLERANCE, "largest_logit_difference": differences}


def logits(
    model: torch.nn.Module, tokenizer: Tokenizer, labels: LabelSchema, texts: list[str], batch: int
) -> np.ndarray:
    """The model's float32 logits, autocast off, dropout off."""
    return Predictor(model.float(), tokenizer, labels).logits(texts, batch)
