"""What only a loaded model shows: whether its weights, tokenizer and padding fit together."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bankintent.errors import ModelError, UserError

LEFT_PADDED = ("xlnet",)
"""Architectures whose classifier reads the last position of a batch, whatever stands there."""

SPARE_ROWS = 256
"""Rows of an embedding table that may lie beyond every vocabulary, however small: tables are
filled up to multiples of 8 to 256 for fast hardware."""

PROBES = ("a text", "another text of more words than the first one has, so that one is padded")
"""Texts of different lengths, whose answers are computed alone and in one batch."""

TOLERANCE = 1e-3
"""Share of the largest logit by which an answer may differ in a batch. Rounding is below 1e-5."""


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what libraries raise for a model's files into one ModelError.

    Its message is the first line of the cause.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    # A boundary: files of somebody else fail in a library in every way there is.
    except Exception as error:  # noqa: BLE001
        raise ModelError(
            f"{name} cannot be loaded: {_first_words(error)}", "Copy or train it again"
        ) from None


def _first_words(error: Exception) -> str:
    """The first line of an error's text, with the second where the first only announces it."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    announces = lines[0].endswith(":") and len(lines) > 1
    return f"{lines[0]} {lines[1]}" if announces else lines[0]


def limit_length(tokenizer: Any, positions: int, name: str) -> None:
    """Cut texts at `positions` tokens, or earlier where the tokenizer says so; 0 is no limit.

    Raises ModelError where the tokenizer's own limit leaves no token of a text.
    """
    recorded = tokenizer.model_max_length
    is_number = isinstance(recorded, (int, float)) and not isinstance(recorded, bool)
    if not is_number or not recorded > tokenizer.num_special_tokens_to_add():
        raise ModelError(
            f"the tokenizer of {name} cuts texts at {recorded!r} tokens (model_max_length)",
            "Correct its tokenizer_config.json",
        )
    # A tokenizer without a recorded limit has one of 10**30.
    limit = min(int(recorded), positions) if positions > 0 else int(recorded)
    tokenizer.model_max_length = limit


def fit(model: Any, tokenizer: Any, name: str) -> None:
    """Make a loaded model and its tokenizer pad so that no answer depends on others of its batch.

    Raises ModelError where a weight is not finite, the tokenizer is not the model's, texts cannot
    be padded, or an answer depends on its neighbours all the same.
    """
    _require_finite(model, name)
    _require_vocabulary(model, tokenizer, name)
    _set_padding(model, tokenizer, name)
    _require_independent(model, tokenizer, name)


def _require_finite(model: nn.Module, name: str) -> None:
    for key, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ModelError(
                f"{name} holds a weight that is no finite number ({key})", "Copy or train it again"
            )


def _require_vocabulary(model: Any, tokenizer: Any, name: str) -> None:
    """Raise ModelError where the tokenizer is empty, or of another size than the model's table.

    Without its files transformers makes a tokenizer of special tokens alone. A model has at least
    a row for each token. It has some rows more where its table was filled up, but not as many
    again: such a tokenizer is that of another model.
    """
    vocabulary = tokenizer.get_vocab()
    if not vocabulary.keys() - set(tokenizer.all_special_tokens):
        raise ModelError(
            f"the tokenizer of {name} knows no token but its {len(vocabulary)} special ones",
            "Save the model's own tokenizer in its folder",
        )

    table = token_table(model)
    if table is None:
        return
    rows = table.num_embeddings
    largest = max(vocabulary.values())
    unused = rows - len(vocabulary)
    if largest >= rows or unused > max(SPARE_ROWS, rows // 2):
        raise ModelError(
            f"the tokenizer of {name} has {len(vocabulary):,} tokens up to id {largest:,}, and its"
            f" model {rows:,} rows for them",
            "Save the model's own tokenizer in its folder",
        )


def token_table(model: Any) -> nn.Embedding | None:
    """The table with a row for each token; None where there is none, as in CANINE, which hashes."""
    try:
        table = model.get_input_embeddings()
    # What transformers raises differs from architecture to architecture.
    except (NotImplementedError, AttributeError):
        return None
    return table if isinstance(table, nn.Embedding) else None


def _set_padding(model: Any, tokenizer: Any, name: str) -> None:
    """Pad behind the text, whatever the tokenizer's files say; ModelError without a padding token.

    An encoder counts positions from the left and reads the first token, which padding on the left
    would move. A causal decoder looks for the last token that is no padding, and no token sees what
    comes behind it. XLNet alone reads the last position; its positions are relative, so that
    padding on the left moves nothing.
    """
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {name} has no padding token",
            "Name an encoder such as BERT or DeBERTa",
        )
    is_left = model.config.model_type in LEFT_PADDED
    tokenizer.padding_side = "left" if is_left else "right"

    # Where both have one, the model's was there in training: it may count positions from it.
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = tokenizer.pad_token_id


@torch.no_grad()
def _require_independent(model: Any, tokenizer: Any, name: str) -> None:
    """Raise ModelError where the answer to a text differs in a batch with a longer one.

    Some architectures mix all positions, padding included, and a decoder that knows another
    padding token than its tokenizer takes padding for text.
    """
    was_training = model.training
    model.eval()
    with explained(name):
        encoded = [dict(tokenizer(text, truncation=True)) for text in PROBES]
        alone = torch.cat([_logits(model, tokenizer, [features]) for features in encoded])
        together = _logits(model, tokenizer, encoded)
    model.train(was_training)

    allowed = TOLERANCE * float(alone.abs().max())
    difference = float((alone - together).abs().max())
    # Not `difference > allowed`: that is false for NaN, which must fail too.
    if not difference <= allowed:
        config_id = model.config.pad_token_id
        raise ModelError(
            f"the answers of {name} depend on the other texts of a batch (the padding token is"
            f" {config_id} to its config and {tokenizer.pad_token_id} to its tokenizer)",
            "Correct the padding token if they differ, or name another model",
        )


def _logits(model: Any, tokenizer: Any, features: list[dict[str, Any]]) -> torch.Tensor:
    batch = tokenizer.pad(features, return_tensors="pt")
    logits: torch.Tensor = model(**batch.to(model.device)).logits
    return logits.float()
