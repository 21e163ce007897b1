"""Masked mean pooling inside a plain transformers class, by one more layer or by the class's own option.

BertForSequenceClassification and its relatives read the first token. A sentence encoder was trained to be read by the
mean over its tokens, which is a better start. A transformer layer can compute that mean: with zero keys every
token attends to all tokens alike, with identity values and a large output weight the mean outweighs the residual,
and with a zero feed-forward the rest of the layer is the identity. The exported model stays of the plain class.
"""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from bankintent.errors import ModelError

WEIGHT = 20.0
"""Weight of the mean beside the residual: the layer's output is LayerNorm(20 mean + token)."""

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
"""Post-normalised encoders whose head is dense, tanh, linear on the first token."""


def pool_by_mean(model: PreTrainedModel) -> None:
    """Make the model classify the masked mean of its tokens.

    The new last layer and the identity in front of the tanh are ordinary weights of the model: a frozen encoder keeps
    them, full fine-tuning and LoRA may change them. Raises ModelError for an architecture without a way to do it.
    """
    kind = str(model.config.model_type)
    if kind == "modernbert":
        model.config.classifier_pooling = "mean"
        return
    if kind not in FAMILIES:
        raise ModelError(
            f"pooling: mean is not known for {kind} models",
            f"Set pooling: first, or name a model of {', '.join((*FAMILIES, 'modernbert'))}",
        )
    layers = model.base_model.encoder.layer
    layers.append(mean_layer(layers[-1]))
    model.config.num_hidden_layers = len(layers)
    pooler = getattr(model.base_model, "pooler", None)
    dense = pooler.dense if pooler is not None else model.classifier.dense
    with torch.no_grad():
        nn.init.eye_(dense.weight)
        nn.init.zeros_(dense.bias)


def mean_layer(like: nn.Module) -> nn.Module:
    """A layer of the kind of `like` whose output at every position is the layer-normalised mean of its input tokens."""
    layer = copy.deepcopy(like)
    attention, output = layer.attention, layer.output
    with torch.no_grad():
        for linear in (attention.self.key, attention.self.value, attention.output.dense):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.eye_(attention.self.value.weight)
        nn.init.eye_(attention.output.dense.weight).mul_(WEIGHT)
        # Queries and the feed-forward's first half stay as copied: beside zeros on both sides nothing would learn.
        nn.init.zeros_(output.dense.weight)
        nn.init.zeros_(output.dense.bias)
        for norm in (attention.output.LayerNorm, output.LayerNorm):
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)
    return layer
