"""Where families of encoders keep what takes the mean: a family is added here and nowhere else.

`pooling` says what is made of it. Paths are names of modules; a `*` stands for any part of a name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

POOLER = "base_model.pooler.dense"
"""The dense layer of a head that is a part of the encoder, with tanh behind it."""

OWN_HEAD = "classifier.dense"
"""The dense layer of a head of its own."""

SHIFT = 3.0
"""Added to the mean in front of an activation that passes positive numbers alone.

Of a thousand numbers of the normalised mean one is below -3. A larger shift passes that too,
but is noise where dropout follows; docs/explanation/recipes.md has the figures.
"""


@dataclass(frozen=True)
class Family:
    """Names in post-normalised encoders of one kind, and what of their config matters."""

    layers: str = "encoder.layer"
    """The list of layers in the base model."""
    keys: tuple[str, ...] = ("attention.self.key",)
    """What makes keys in a layer: those of tokens, and those of positions where it has them."""
    value: str = "attention.self.value"
    """What makes values of tokens."""
    fused: str | None = None
    """What makes queries, keys and values in one, head by head, where no layer makes values
    alone."""
    output: str = "attention.output.dense"
    """What is behind the attention, in front of the residual."""
    feed_forward: tuple[str, ...] = ("output.dense",)
    """Last layers of what follows the attention, each in front of a residual."""
    head: str = POOLER
    """The dense layer in front of the head's activation, in the model."""
    shift: float = 0.0
    """Bias of that layer: 0 in front of tanh."""
    sets: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the config that are changed with the weights."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the config that must have this value where they are there."""


BERT = Family()
ROBERTA = replace(BERT, head=OWN_HEAD)
ELECTRA = replace(ROBERTA, shift=SHIFT)
ROTARY = Family(
    layers="layers",
    keys=("self_attn.k_proj",),
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    feed_forward=("mlp.down_proj",),
)
DEBERTA = Family(
    # Keys of positions are made by a layer of their own, or by that of the tokens' keys.
    keys=("attention.self.*key_proj",),
    value="attention.self.value_proj",
    head="pooler.dense",
    # In the place of GELU, which would bend the mean.
    sets={"pooler_hidden_act": "tanh"},
)

APPENDED: Mapping[str, Family] = {
    "bert": BERT,
    "big_bird": ELECTRA,
    "camembert": ROBERTA,
    "data2vec-text": ROBERTA,
    "deberta": replace(
        DEBERTA,
        keys=("attention.self.pos_proj",),
        fused="attention.self.in_proj",
        needs={"talking_head": False},
    ),
    "deberta-v2": DEBERTA,
    "distilbert": Family(
        layers="transformer.layer",
        keys=("attention.k_lin",),
        value="attention.v_lin",
        output="attention.out_lin",
        feed_forward=("ffn.lin2",),
        head="pre_classifier",
        shift=SHIFT,
    ),
    "electra": ELECTRA,
    "ernie": BERT,
    "gte": ROTARY,
    "jina_embeddings_v3": replace(ROTARY, feed_forward=("mlp.fc2",), head=OWN_HEAD),
    "nomic_bert": ROTARY,
    "rembert": BERT,
    "roberta": ROBERTA,
    "roformer": replace(ELECTRA, needs={"rotary_value": False}),
    "xlm-roberta": ROBERTA,
    "xmod": replace(
        ROBERTA,
        feed_forward=("output.dense", "output.adapter_modules.*.dense2"),
        needs={"pre_norm": False},
    ),
}
"""Model types that get one more layer, which takes the mean."""

OPTION = "classifier_pooling"
"""Key of the config of those that take the mean by themselves."""

BY_OPTION = ("eurobert", "modernbert", "ultrabert")
"""Model types whose own class takes the mean where OPTION says so."""

_PRE_NORM = "its residual is not normalised, so that it would outweigh the mean"

IMPOSSIBLE: Mapping[str, str] = {
    "convbert": "half of its attention is a convolution",
    "esm": _PRE_NORM,
    "megatron-bert": _PRE_NORM,
    "mpnet": "its attention weighs tokens by their positions, in all layers alike",
    "roberta-prelayernorm": _PRE_NORM,
    "xlm-roberta-xl": _PRE_NORM,
}
"""Model types whose layers cannot take a plain mean, each with the reason."""
