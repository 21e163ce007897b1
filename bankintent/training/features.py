"""What a frozen encoder says of each text, computed once, kept on disk, and put in the encoder's place."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from bankintent import files
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema
from bankintent.training.backbones import Backbone


@dataclass(frozen=True)
class Features:
    """(texts, hidden) float32: the vector that the head modules read of each text, dropout off."""

    table: torch.Tensor
    cached: bool
    """Read from disk rather than computed."""


def frozen(
    backbone: Backbone, labels: LabelSchema, texts: list[str], batch_size: int, cache: Path
) -> Features:
    """The encoder's vectors for `texts`, from `cache` where the same encoder has read the same texts before."""
    path = cache / "features" / f"{_key(backbone, texts)}.safetensors"
    try:
        return Features(load_file(path)["features"], cached=True)
    except (OSError, SafetensorError, KeyError):
        pass  # not there, or not whole: computed anew
    table = compute(backbone, labels, texts, batch_size)
    with files.staged(path) as staging:
        save_file({"features": table}, staging)
    return Features(table, cached=False)


class CachedEncoder(nn.Module):
    """Stands in for a frozen encoder: `input_ids` are (batch, 1) row numbers, the answer is what it said of the rows.

    A pooler that belongs to the encoder is run, as it is part of what learns.
    """

    def __init__(self, table: torch.Tensor, pooler: nn.Module | None) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.pooler = pooler

    def forward(
        self, input_ids: torch.Tensor, **_: Any
    ) -> BaseModelOutput | BaseModelOutputWithPooling:
        hidden = self.table[input_ids]
        if self.pooler is None:
            return BaseModelOutput(last_hidden_state=hidden)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=self.pooler(hidden)
        )


class replaced_encoder:  # noqa: N801 (read as a function, like contextlib's own)
    """Within the block, `model` runs on cached features; afterwards on its own encoder again."""

    def __init__(self, model: PreTrainedModel, table: torch.Tensor) -> None:
        self._model, self._encoder = model, model.base_model
        pooler = getattr(self._encoder, "pooler", None)
        self._stand_in = CachedEncoder(
            table.to(model.device), pooler if isinstance(pooler, nn.Module) else None
        )

    def __enter__(self) -> None:
        setattr(self._model, self._model.base_model_prefix, self._stand_in)

    def __exit__(self, *_: object) -> None:
        setattr(self._model, self._model.base_model_prefix, self._encoder)


def rows(start: int, labels: list[int]) -> list[dict[str, Any]]:
    """Training rows of a model on cached features: the row's number in the table instead of token ids."""
    return [
        {"input_ids": [start + i], "attention_mask": [1], "labels": label}
        for i, label in enumerate(labels)
    ]


def compute(
    backbone: Backbone, labels: LabelSchema, texts: list[str], batch_size: int
) -> torch.Tensor:
    """(texts, hidden) float32 from one forward pass, keeping the position that the head modules read."""
    model = backbone.model
    mean = getattr(model.config, "classifier_pooling", "cls") == "mean"
    predictor = Predictor(model, backbone.tokenizer, labels)
    out = torch.empty(len(texts), model.config.hidden_size)
    with torch.inference_mode():
        for chosen, batch in predictor.batches(texts, batch_size):
            hidden = model.base_model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            out[chosen] = (
                ((hidden * mask).sum(1) / mask.sum(1) if mean else hidden[:, 0]).float().cpu()
            )
    return out


def _key(backbone: Backbone, texts: list[str]) -> str:
    """sha256 over the texts, the encoder's weights and settings, and the tokenizer with its longest input."""
    digest = sha256(json.dumps(texts).encode())
    tokenizer = backbone.tokenizer
    fast = getattr(tokenizer, "backend_tokenizer", None)
    words = (
        json.dumps(tokenizer.get_vocab(), sort_keys=True)
        if fast is None
        else _without_call_settings(fast.to_str())
    )
    settings = backbone.model.config.to_dict()
    for key in ("id2label", "label2id", "num_labels", "_name_or_path"):
        settings.pop(key, None)
    digest.update(
        f"{words} {tokenizer.model_max_length} {json.dumps(settings, sort_keys=True, default=str)}".encode()
    )
    for name, tensor in sorted(backbone.model.base_model.state_dict().items()):
        if not name.startswith("pooler."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _without_call_settings(tokenizer: str) -> str:
    """The padding and truncation of the last call are no part of what the tokenizer is."""
    return json.dumps(json.loads(tokenizer) | {"padding": None, "truncation": None}, sort_keys=True)
