"""Masked mean pooling in a plain transformers class, by one more layer or the class's own option.

BertForSequenceClassification and its relatives read the first token. A sentence encoder was trained
to be read by the mean over its tokens, which is a better start. A transformer layer can compute
that mean: with zero keys every token attends to all tokens alike, with identity values and a large
output weight the mean outweighs the residual, and with a zero feed-forward the rest of the layer is
the identity. The exported model stays of the plain class.
"""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from bankintent.errors import ModelError

WEIGHT = 20.0
"""Weight of the mean against the residual: the layer's output is LayerNorm(20 mean + token)."""

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
"""Post-normalised encoders whose head is dense, tanh, linear on the first token."""


MARKER = "bankintent_pooling"
"""Key of a model's config that says `mean` where its classifier reads the mean."""


def takes_mean(model: PreTrainedModel) -> bool:
    """Whether the model's classifier reads the mean already, by the layer that is appended here.

    A model without the key is told by its last layer, which training moves but little: no
    pretrained encoder has an output of attention near a multiple of the identity.
    """
    family = str(model.config.model_type)
    if family == "modernbert":
        return str(model.config.classifier_pooling) == "mean"
    if getattr(model.config, MARKER, None) == "mean":
        return True
    if family not in FAMILIES:
        return False

    weight = model.base_model.encoder.layer[-1].attention.output.dense.weight
    return weight.diagonal().mean().item() > WEIGHT / 2


def pool_by_mean(model: PreTrainedModel) -> None:
    """Make the model classify the masked mean of its tokens, in place.

    The new last layer and the identity in front of the tanh are ordinary weights of the model: a
    frozen encoder keeps them, full fine-tuning and LoRA may change them. Raises ModelError for an
    architecture without a way to do it.
    """
    family = str(model.config.model_type)
    if family == "modernbert":
        model.config.classifier_pooling = "mean"
        return
    if family not in FAMILIES:
        raise ModelError(
            f"pooling: mean is not known for {family} models",
            f"Set pooling: first, or name a model of {', '.join((*FAMILIES, 'modernbert'))}",
        )

    layers = model.base_model.encoder.layer
    layers.append(mean_layer(layers[-1]))
    model.config.num_hidden_layers = len(layers)
    # Saved with the model: who goes on from it must not append a second such layer.
    setattr(model.config, MARKER, "mean")
    _set_to_identity(_first_head_layer(model))


def _first_head_layer(model: PreTrainedModel) -> nn.Linear:
    """The dense layer behind the encoder: BERT has it in a pooler, RoBERTa in the classifier."""
    pooler = getattr(model.base_model, "pooler", None)
    if pooler is not None:
        return pooler.dense
    return model.classifier.dense


def mean_layer(like: nn.Module) -> nn.Module:
    """A layer of the kind of `like` that gives every position the mean of its input tokens.

    The output is layer-normalised.
    """
    layer = copy.deepcopy(like)
    attention = layer.attention
    output = layer.output

    # Queries and the feed-forward's first half stay as copied: between zeros on both sides nothing
    # would learn.
    _set_to_zero(attention.self.key)
    _set_to_identity(attention.self.value)
    _set_to_identity(attention.output.dense, scale=WEIGHT)
    _set_to_zero(output.dense)
    for norm in (attention.output.LayerNorm, output.LayerNorm):
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    return layer


@torch.no_grad()
def _set_to_identity(layer: nn.Linear, scale: float = 1.0) -> None:
    nn.init.eye_(layer.weight).mul_(scale)
    nn.init.zeros_(layer.bias)


def _set_to_zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
