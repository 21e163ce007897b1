"""Masked mean pooling in a plain transformers class, by one more layer or the class's own option.

BertForSequenceClassification and its relatives read the first token. A sentence encoder was trained
to be read by the mean over its tokens, which is a better start. A transformer layer can compute
that mean: with zero keys every token attends to all tokens alike, with identity values and a large
output weight the mean outweighs the residual, and with a zero feed-forward the rest of the layer is
the identity. The exported model stays of the plain class.

In front of the classifier stands a dense layer with an activation. It starts as the identity: tanh
bends large numbers only. ReLU and GELU pass positive numbers alone, and get the mean shifted.
"""

import copy
from fnmatch import fnmatchcase

import torch
from torch import nn
from transformers import PreTrainedModel

from bankintent.errors import ModelError
from bankintent.inference.head_inputs import output_layer
from bankintent.training.pooling_families import (
    APPENDED,
    BY_OPTION,
    IMPOSSIBLE,
    OPTION,
    Family,
)

WEIGHT = 20.0
"""Weight of the mean against the residual: the layer's output is LayerNorm(20 mean + token)."""

MARKER = "bankintent_pooling"
"""Key of a model's config that says `mean` where its classifier reads the mean."""


def takes_mean(model: PreTrainedModel) -> bool:
    """Whether the model's classifier reads the mean already, by the layer that is appended here.

    A model without the key is told by its last layer, which training moves but little: no
    pretrained encoder has an output of attention near a multiple of the identity.
    """
    model_type = str(model.config.model_type)
    if model_type in BY_OPTION:
        return str(getattr(model.config, OPTION)) == "mean"
    if getattr(model.config, MARKER, None) == "mean":
        return True
    if model_type not in APPENDED:
        return False

    family = APPENDED[model_type]
    weight = _layers(model, family)[-1].get_submodule(family.output).weight
    assert isinstance(weight, torch.Tensor)
    return weight.diagonal().mean().item() > WEIGHT / 2


def pool_by_mean(model: PreTrainedModel) -> str | None:
    """Make the model classify the masked mean of its tokens, in place.

    The new last layer and the identity in front of the activation are ordinary weights of the
    model: a frozen encoder keeps them, full fine-tuning and LoRA may change them. Returns the
    top-level module that is the identity now, where no adapter has to save it. Raises ModelError
    for an architecture without a way to do it.
    """
    model_type = str(model.config.model_type)
    if model_type in BY_OPTION:
        _set_option(model)
        return None

    family = _require_family(model)
    layers = _layers(model, family)
    layers.append(mean_layer(layers[-1], family, model.config.num_attention_heads))
    model.config.num_hidden_layers = len(layers)
    # Saved with the model: who goes on from it must not append a second such layer.
    setattr(model.config, MARKER, "mean")
    for key, value in family.sets.items():
        setattr(model.config, key, value)
    _start_head(model, family)

    parent = family.head.removeprefix("base_model.").partition(".")[0]
    # PEFT compares the ends of names: with `classifier` it trains and saves `pre_classifier` too.
    return None if parent.endswith("classifier") else parent


def _set_option(model: PreTrainedModel) -> None:
    setattr(model.config, OPTION, "mean")
    # EuroBERT reads its config once, when it is made.
    if hasattr(model, OPTION):
        setattr(model, OPTION, "mean")


def _require_family(model: PreTrainedModel) -> Family:
    """The family of the model; ModelError where its layers cannot take the mean."""
    model_type = str(model.config.model_type)
    if model_type in IMPOSSIBLE:
        raise _refuse(f"not possible for {model_type} models: {IMPOSSIBLE[model_type]}")
    if model_type not in APPENDED:
        raise _refuse(f"not known for {model_type} models")

    family = APPENDED[model_type]
    for key, value in family.needs.items():
        if getattr(model.config, key, value) != value:
            raise _refuse(f"not possible for {model_type} models without {key}: {value}")
    return family


def _refuse(reason: str) -> ModelError:
    known = ", ".join(sorted((*APPENDED, *BY_OPTION)))
    return ModelError(
        f"pooling: mean is {reason}", f"Set pooling: first, or name a model of {known}"
    )


def _layers(model: PreTrainedModel, family: Family) -> nn.ModuleList:
    layers = model.base_model.get_submodule(family.layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def mean_layer(like: nn.Module, family: Family, num_heads: int) -> nn.Module:
    """A layer of the kind of `like` that gives every position the mean of its input tokens.

    The output is layer-normalised.
    """
    layer = copy.deepcopy(like)
    # Queries and the feed-forward's first half stay as copied: between zeros on both sides nothing
    # would learn.
    if family.fused is None:
        _set_to_identity(_linear(layer, family.value))
    else:
        _set_fused(layer, family.fused, num_heads)
    for key in family.keys:
        _set_to_zero(layer, key)
    _set_to_identity(_linear(layer, family.output), scale=WEIGHT)
    for last in family.feed_forward:
        _set_to_zero(layer, last)

    for module in layer.modules():
        # DeBERTa has a class of its own.
        if type(module).__name__.endswith("LayerNorm"):
            nn.init.ones_(module.get_parameter("weight"))
            nn.init.zeros_(module.get_parameter("bias"))
    return layer


def _linear(module: nn.Module, path: str) -> nn.Linear:
    linear = module.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    return linear


@torch.no_grad()
def _set_to_identity(linear: nn.Linear, scale: float = 1.0, shift: float = 0.0) -> None:
    if linear.in_features != linear.out_features:
        raise _refuse("not possible for a model whose heads together have another width than it")
    nn.init.eye_(linear.weight).mul_(scale)
    if linear.bias is not None:
        nn.init.constant_(linear.bias, shift)


def _set_to_zero(layer: nn.Module, pattern: str) -> None:
    """Set to zero the linear layers of that name; a model without positions has none of theirs."""
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear) and fnmatchcase(name, pattern):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)


@torch.no_grad()
def _set_fused(layer: nn.Module, path: str, num_heads: int) -> None:
    """Zero keys and identity values in a layer of DeBERTa that makes all three, head by head."""
    weight = _linear(layer, path).weight
    width = weight.shape[1]
    # Views: (heads, queries or keys or values, width of a head, width)
    rows = weight.view(num_heads, 3, -1, width)
    rows[:, 1] = 0
    rows[:, 2] = torch.eye(width, device=weight.device).view(num_heads, -1, width)

    attention = layer.get_submodule(path.rpartition(".")[0])
    nn.init.zeros_(attention.get_parameter("v_bias"))


@torch.no_grad()
def _start_head(model: PreTrainedModel, family: Family) -> None:
    """Pass the mean on through the head's dense layer; a new classifier sees it without shift."""
    _set_to_identity(_linear(model, family.head), shift=family.shift)
    last = output_layer(model, model.config.num_labels)
    if family.shift and last.bias is not None:
        last.bias -= family.shift * last.weight.sum(dim=1)
