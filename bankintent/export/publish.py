"""Save a trained model in every form, and check the forms in a fresh process before publication."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.numpy import save_file
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent import files, process
from bankintent.bundle import layout
from bankintent.bundle.attribution import public_name
from bankintent.bundle.record import Parity
from bankintent.bundle.work import WorkFolder
from bankintent.config import TrainConfig
from bankintent.corpus.dataset import SplitData
from bankintent.errors import ModelError
from bankintent.export import fresh_check, steps
from bankintent.export.fresh_check import CheckRequest
from bankintent.export.gate import PARITY_ROWS
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema

CALIBRATION_ROWS = 256
"""Training sentences from which int8 takes its scales, spread over the split. It needs no labels,
and the observed values of all of them are in memory together."""
ADAPTER_CONFIG = "adapter_config.json"
NAMES_OF_MODULES = ("target_modules", "modules_to_save", "exclude_modules")
"""Its keys that PEFT holds as sets."""

TOLERANCE = 1e-4
"""Largest difference of a logit between the trained model, the adapter on its base, and the merged
model: the merging of float32 weights and the order of additions make less."""


@dataclass(frozen=True)
class Exported:
    """The answers of the saved model and the comparison of its forms."""

    val_logits: np.ndarray
    """(rows, labels) logits of the validation split."""
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
    """Save every form of the trained model into `work.bundle` and check them.

    Raises ModelError where they disagree. The formats of `onnx/` that fail are left out; int8 takes
    its scales from sentences of `train`.
    """
    steps.begin("saving the model")
    tokenizer = trained.tokenizer
    labels = trained.labels
    # Before merging, which changes the trained model: on the CPU, as the fresh process computes.
    model = trained.model.to("cpu")
    reference = compute_logits(model, tokenizer, labels, val.texts[:PARITY_ROWS], 32)

    merged = save_models(trained, work)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    merged = merged.to(device)
    steps.begin("answering the validation split")
    val_logits = compute_logits(merged, tokenizer, labels, val.texts, config.eval_batch_size)

    request = CheckRequest(
        texts=list(val.texts),
        label_ids=val.labels,
        calibration=_spread_texts(train.texts, CALIBRATION_ROWS),
        backbone=public_name(trained.backbone),
        export=config.export,
    )
    parity = check_parity(reference, val_logits, request, work)
    files.share_identical(work.bundle)
    return Exported(val_logits, parity)


def _spread_texts(texts: Sequence[str], most: int) -> list[str]:
    """At most so many texts, at even distances."""
    step = max(1, len(texts) // most)
    return list(texts[::step][:most])


def save_base(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Save the model that an adapter is trained on: pretrained weights with an untrained head."""
    # A run that was killed has left one.
    if folder.exists():
        shutil.rmtree(folder)
    model.save_pretrained(folder)
    _save_tokenizer(tokenizer, folder)


def save_models(trained: Trained, work: WorkFolder) -> PreTrainedModel:
    """Write merged/ and, for a LoRA model, adapter/ and base_<n>/ into `work.bundle`.

    Returns the merged model.
    """
    model = trained.model
    if isinstance(model, PeftModel):
        _save_adapter(model, trained, work)
        # safe_merge raises where a merged weight is not finite.
        merged = model.merge_and_unload(safe_merge=True)
    else:
        merged = model

    assert isinstance(merged, PreTrainedModel)
    # Without it transformers guesses the loss from the first labels that it gets.
    merged.config.problem_type = "single_label_classification"
    folder = work.bundle / layout.MERGED
    merged.save_pretrained(folder)
    _save_tokenizer(trained.tokenizer, folder)
    return merged


def _save_adapter(model: PeftModel, trained: Trained, work: WorkFolder) -> None:
    """Write adapter/ and base_<n>/."""
    # The folder of one machine would be useless elsewhere: record the public name of the base.
    for config in model.peft_config.values():
        config.base_model_name_or_path = public_name(trained.backbone)
        config.inference_mode = True

    folder = work.bundle / layout.ADAPTER
    # The vocabulary never grows here; looking for a change would ask the Hub for the base's config.
    model.save_pretrained(folder, save_embedding_layers=False)
    # PEFT's own template of a card.
    (folder / layout.CARD).unlink(missing_ok=True)
    _sort_names(folder / ADAPTER_CONFIG)
    _save_tokenizer(trained.tokenizer, folder)
    files.link_tree(work.base, work.bundle / layout.base_folder(trained.labels))


def _sort_names(config: Path) -> None:
    """Write an adapter's lists of modules in order: PEFT's sets have none."""
    values = json.loads(config.read_text(encoding="utf-8"))
    for key in NAMES_OF_MODULES:
        if isinstance(values.get(key), list):
            values[key] = sorted(set(values[key]))
    files.write_text(config, json.dumps(values, indent=2, sort_keys=True))


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    # tokenizer.json would keep the padding and truncation of the last call as its own.
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()
    tokenizer.save_pretrained(folder)


def check_parity(
    reference: np.ndarray, val_logits: np.ndarray, request: CheckRequest, work: WorkFolder
) -> Parity:
    """Compare every saved form with the trained model in a fresh process, and make `onnx/` there.

    Raises ModelError, which stops publication, where a form cannot be loaded or is above TOLERANCE.
    """
    staging = work.bundle
    check = _new_check(work)
    request.save(check)
    save_file({"reference": reference, "validation": val_logits}, check / fresh_check.LOGITS)

    steps.begin("loading it in a fresh process")
    with steps.followed(check / fresh_check.STEPS):
        failure = process.run_module(
            "bankintent.export.fresh_check",
            [staging.absolute(), check.absolute()],
            log=check / "output.log",
        )
    # A process can end well without its results only by a fault of ours.
    reason = failure or "the check left no result"

    differences = _read_answer(check / fresh_check.DIFFERENCES)
    if differences is None:
        raise ModelError(
            f"the exported model could not be loaded again: {reason}", f"Look at {staging}"
        )
    _require_equal(differences)

    formats = _read_answer(check / fresh_check.FORMATS)
    if formats is None:
        # An exporter can take its process with it; the model is published without `onnx/`.
        shutil.rmtree(staging / layout.ONNX, ignore_errors=True)
        formats = {"formats": {}, "left_out": {"onnx": f"its export was cut off: {reason}"}}
    return Parity(
        rows=len(reference),
        tolerance=TOLERANCE,
        largest_logit_difference=differences,
        **formats,
    )


def _new_check(work: WorkFolder) -> Path:
    """A folder for one check alone: that of a run that was killed may still write into its own."""
    files.make_empty(work.check)
    return Path(tempfile.mkdtemp(dir=work.check))


def _require_equal(differences: dict[str, float]) -> None:
    """Raise ModelError where a saved form differs by more than TOLERANCE."""
    worst = max(differences.values())
    # Not `worst > TOLERANCE`: that is false for NaN, which must fail too.
    if not worst <= TOLERANCE:
        figures = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        raise ModelError(
            "the exported model answers otherwise than the trained one"
            f" (largest logit difference: {figures}; allowed {TOLERANCE:.0e})",
            "Nothing was published; train in another precision, or report this",
        )


def _read_answer(path: Path) -> files.JsonObject | None:
    if not path.exists():
        return None
    return dict(json.loads(path.read_text(encoding="utf-8")))


def compute_logits(
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    labels: LabelSchema,
    texts: Sequence[str],
    batch: int,
) -> np.ndarray:
    """(texts, labels) logits of a model in float32, with autocast and dropout off."""
    return Predictor(model.float(), tokenizer, labels).logits(texts, batch)
