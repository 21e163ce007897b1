"""What is known of architectures: whose head runs on kept vectors, and which are refused.

docs/explanation/recipes.md has the table of what was tried. An architecture that is named nowhere
here is tried by `forward_check`, which is the gate for all of them.
"""

from bankintent.config import Regime
from bankintent.errors import ModelError

NEXT_STEP = "Name an encoder such as BERT, DeBERTa or ModernBERT"

REGIMES: tuple[Regime, ...] = ("head-only", "lora", "full-ft")

READS_FIRST_TOKEN = frozenset(
    {
        "bert",
        "big_bird",
        "camembert",
        "convbert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "esm",
        "gte",
        "ibert",
        "jina_embeddings_v3",
        "layoutlm",
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roformer",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Classes whose head reads the encoder's first token, or its mean, and nothing else of it.

They run on an encoder's kept vectors. The heads of others are trained behind their encoder, which
is frozen and runs in each step.
"""

READS_PADDING = "its answer to a sentence changes with the padding of the batch"
READS_IMAGES = "it reads images or boxes beside the text"

REFUSED = {
    "canine": f"{READS_PADDING} (its convolutions read it)",
    "fnet": f"{READS_PADDING} (its Fourier layers mix it in)",
    "layoutlmv2": READS_IMAGES,
    "layoutlmv3": READS_IMAGES,
    "nystromformer": f"{READS_PADDING} (its landmarks are means over it)",
    "reformer": f"{READS_PADDING} (its hashing attention sorts it in)",
    "yoso": f"{READS_PADDING} (its sampled attention counts it)",
}
"""Architectures that no regime can train, each with the reason."""

REFUSED_REGIMES: dict[tuple[str, Regime], str] = {
    ("ibert", "lora"): "PEFT has no adapter for its quantised layers",
    ("perceiver", "head-only"): "its last layer is a part of its encoder",
    ("squeezebert", "lora"): "PEFT has no adapter for its layers, which are convolutions",
}
"""Regimes that cannot train an architecture which others can, each with the reason."""


def require_known(model_type: str, name: str) -> None:
    """Raise ModelError for an architecture that no regime can train."""
    reason = REFUSED.get(model_type)
    if reason is not None:
        raise refusal(model_type, name, reason)


def require_known_regime(model_type: str, regime: Regime, name: str) -> None:
    """Raise ModelError for a regime that is known not to train an architecture."""
    reason = REFUSED_REGIMES.get((model_type, regime))
    if reason is not None:
        others = [other for other in REGIMES if (model_type, other) not in REFUSED_REGIMES]
        raise ModelError(
            f"{name} ({model_type}) cannot be trained with {regime}: {reason}",
            f"Use regime {' or '.join(others)}, or name another encoder",
        )


def refusal(model_type: str, name: str, reason: str) -> ModelError:
    """The error for a model that cannot be trained here."""
    return ModelError(f"{name} ({model_type}) cannot be trained here: {reason}", NEXT_STEP)
