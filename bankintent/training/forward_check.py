"""A cheap trial of a built model before anything is computed: some forward passes, one backward.

It is the gate for architectures: whatever transformers offers is trained where its model answers
sentences, does so whatever their batch, and lets through the gradients that the regime needs.
"""

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent.config import TrainConfig
from bankintent.errors import ModelError, UserError
from bankintent.inference.head_inputs import HeadInputs, output_layer
from bankintent.training import regimes
from bankintent.training.architectures import refusal, require_known_regime
from bankintent.training.backbones import Backbone

SHORT = "where is my card"
LONGEST = 1024
"""Most tokens of the long text: positions beyond them are known from the model's config."""

SAME = 1e-4
"""Largest difference between the answers to a text alone and in a batch, as a share of the largest
logit: float32 rounding makes less, padding that is read far more."""


def require_trainable(backbone: Backbone, config: TrainConfig) -> None:
    """Raise ModelError, in one line, where a run of these settings would fail on this model."""
    model_type = str(backbone.model.config.model_type)
    require_known_regime(model_type, config.regime, backbone.name)
    require_answers(backbone, config.max_length)
    # What follows must not depend on numbers that are drawn here.
    with torch.random.fork_rng(devices=[]):
        _require_regime(backbone, config)


def _require_regime(backbone: Backbone, config: TrainConfig) -> None:
    if config.head_init == "probe" or config.contrastive or config.pseudo_labels:
        require_vectors(backbone)
    if config.regime == "head-only":
        _require_own_head(backbone)
    if config.regime == "lora":
        regimes.require_adapter(backbone, config.lora)
    _require_gradients(backbone, config)


def require_answers(backbone: Backbone, max_length: int) -> None:
    """Raise ModelError where the model cannot answer sentences alone and in batches, all alike."""
    long_text = " ".join(["card"] * min(max_length, LONGEST))
    texts = [SHORT, long_text]

    alone = _try_texts(backbone, [SHORT], "a sentence")
    together = _try_texts(backbone, texts, f"a batch with a text of {max_length} tokens")
    if not torch.isfinite(together).all():
        raise _refuse(backbone, "its answers are not finite")
    if not _is_alike(alone, together):
        raise _refuse(backbone, "its answer to a sentence changes with the padding of the batch")


def _is_alike(alone: torch.Tensor, together: torch.Tensor) -> bool:
    """Whether the first answer of a batch is that to its text alone."""
    difference = (alone[0] - together[0]).abs().max()
    return bool(difference <= SAME * together.abs().max())


@torch.inference_mode()
def _try_texts(backbone: Backbone, texts: list[str], what: str) -> torch.Tensor:
    """(texts, labels) logits in evaluation mode; ModelError where there are none."""
    model = backbone.model.eval()
    try:
        # What follows must not depend on numbers that are drawn here.
        with torch.random.fork_rng(devices=[]):
            logits = model(**_encode(backbone, texts)).logits
    # A boundary: the classes of an open list of architectures fail in many ways.
    except Exception as error:  # noqa: BLE001
        raise _refuse(backbone, f"it fails on {what} ({_cause(error)})") from None

    expected = (len(texts), model.config.num_labels)
    if tuple(logits.shape) != expected:
        raise _refuse(
            backbone, f"its answers are of shape {tuple(logits.shape)}, expected {expected}"
        )
    return logits


def _encode(backbone: Backbone, texts: list[str]) -> dict[str, torch.Tensor]:
    encoded = backbone.tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    device = backbone.model.device
    return {key: values.to(device) for key, values in encoded.items()}


def require_vectors(backbone: Backbone) -> None:
    """Raise ModelError where it cannot be seen what the last layer reads of each text."""
    model = backbone.model
    try:
        with torch.inference_mode(), HeadInputs(_last_layer(backbone)) as head:
            head.take(model(**_encode(backbone, [SHORT, f"{SHORT} {SHORT}"])).logits)
    except UserError as error:
        raise _refuse(backbone, error.found) from None


def _last_layer(backbone: Backbone) -> torch.nn.Linear:
    return output_layer(backbone.model, backbone.model.config.num_labels)


def _require_own_head(backbone: Backbone) -> None:
    """Raise ModelError where the last layer is not behind the encoder."""
    head = set()
    for module in regimes.head_modules(backbone.model):
        head |= set(module.modules())
    if _last_layer(backbone) not in head or backbone.model.base_model is backbone.model:
        raise _refuse(backbone, "its last layer cannot be told from its encoder")


def _require_gradients(backbone: Backbone, config: TrainConfig) -> None:
    """Raise ModelError where no gradient reaches the last layer, or the encoder where it learns."""
    model = backbone.model
    targets = [_last_layer(backbone).weight]
    if config.regime != "head-only":
        targets.append(_first_weights(backbone))

    try:
        logits = model(**_encode(backbone, [SHORT])).logits
        loss = functional.cross_entropy(logits, torch.zeros(1, dtype=torch.long))
        gradients = torch.autograd.grad(loss, targets, allow_unused=True)
    # A boundary, as above.
    except Exception as error:  # noqa: BLE001
        raise _refuse(backbone, f"it cannot learn ({_cause(error)})") from None

    for gradient in gradients:
        if gradient is None or not torch.isfinite(gradient).all() or not gradient.any():
            raise _refuse(backbone, "no gradient reaches the weights that are to learn")


def has_idle_weights(model: torch.nn.Module, tokenizer: Tokenizer) -> bool:
    """Whether a weight that is to learn gets no gradient from an answer."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    encoded = tokenizer([SHORT], return_tensors="pt").to(trainable[0].device)
    with torch.random.fork_rng(devices=[]):
        total = model.eval()(**encoded).logits.sum()
    gradients = torch.autograd.grad(total, trainable, allow_unused=True)
    return any(gradient is None for gradient in gradients)


def _first_weights(backbone: Backbone) -> torch.Tensor:
    """Word embeddings, at the encoder's far end: a gradient of theirs has passed all layers."""
    model = backbone.model
    try:
        embeddings = model.get_input_embeddings()
    except NotImplementedError:
        embeddings = None
    weights = getattr(embeddings, "weight", None)
    return weights if isinstance(weights, torch.Tensor) else next(model.base_model.parameters())


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def _refuse(backbone: Backbone, reason: str) -> ModelError:
    return refusal(str(backbone.model.config.model_type), backbone.name, reason)
