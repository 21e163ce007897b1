"""The vectors of a frozen encoder: computed once, kept on disk, put in the encoder's place."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from bankintent import console, progress
from bankintent.inference.head_inputs import HeadInputs, output_layer
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema
from bankintent.training import kept, processes
from bankintent.training.architectures import READS_FIRST_TOKEN
from bankintent.training.backbones import Backbone
from bankintent.training.pooling import MARKER

TEXTS_AT_ONCE = 50_000
"""Texts whose tokens are in memory where their vectors go to a file."""

FEATURES = "features"
"""Name of the table in the file of a cache."""

NOT_THE_ENCODER = ("id2label", "label2id", "num_labels", "_name_or_path", MARKER)
"""Keys of a model's config that change nothing in its encoder."""


class EncodedRows(Protocol):
    """Rows as the Trainer's collator takes them: a list, or what is made or read when needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> dict[str, Any]: ...

    def __iter__(self) -> Iterator[dict[str, Any]]: ...


@dataclass(frozen=True)
class FrozenVectors:
    """What a frozen encoder computes of some texts."""

    table: torch.Tensor
    """(texts, hidden) float32: the vector of each text that the head modules read, dropout off."""
    is_cached: bool
    """Read from disk and not computed."""


@dataclass(frozen=True)
class Features:
    """A frozen encoder's vectors of a run's training and validation rows."""

    table: torch.Tensor
    """(training rows + validation rows, hidden) float32, the training rows first."""
    train_rows: int

    @property
    def train(self) -> torch.Tensor:
        """(training rows, hidden), without a copy."""
        return self.table[: self.train_rows]

    @property
    def val(self) -> torch.Tensor:
        """(validation rows, hidden), without a copy."""
        return self.table[self.train_rows :]

    def encode_train(self, label_ids: list[int]) -> EncodedRows:
        """The training rows for a model on cached features."""
        return NumberedRows(label_ids, first=0)

    def encode_val(self, label_ids: list[int]) -> EncodedRows:
        """The validation rows for a model on cached features."""
        return NumberedRows(label_ids, first=self.train_rows)


@dataclass(frozen=True)
class KnownVectors:
    """A frozen encoder's vectors of some texts, from which several trainings take theirs."""

    table: torch.Tensor
    """(texts, hidden) float32."""
    row_of_text: dict[str, int]

    def covers(self, texts: Sequence[str]) -> bool:
        """Whether the vector of every text is known."""
        return all(text in self.row_of_text for text in texts)

    def take(self, texts: Sequence[str]) -> torch.Tensor:
        """(texts, hidden), a copy."""
        return self.table[[self.row_of_text[text] for text in texts]]


class NumberedRows:
    """Rows for the Trainer that have a row number of the table in the place of token ids."""

    def __init__(self, label_ids: list[int], first: int) -> None:
        self._label_ids = label_ids
        self._first = first

    def __len__(self) -> int:
        return len(self._label_ids)

    def __getitem__(self, place: int) -> dict[str, Any]:
        label_id = self._label_ids[place]
        return {"input_ids": [self._first + place], "attention_mask": [1], "labels": label_id}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for place in range(len(self)):
            yield self[place]


class CachedEncoder(nn.Module):
    """Takes the place of a frozen encoder: its inputs are (batch, 1) row numbers of a table.

    The pooler of the encoder is run, if it has one: it is part of what learns.
    """

    def __init__(self, table: torch.Tensor, pooler: nn.Module | None) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.pooler = pooler

    def forward(
        self, input_ids: torch.Tensor, **_: Any
    ) -> BaseModelOutput | BaseModelOutputWithPooling:
        # (batch, 1, hidden): a text of one token, the one that the head reads.
        hidden = self.table[input_ids]
        if self.pooler is None:
            return BaseModelOutput(last_hidden_state=hidden)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=self.pooler(hidden)
        )


@contextlib.contextmanager
def replaced_encoder(model: PreTrainedModel, table: torch.Tensor) -> Iterator[None]:
    """Within the block `model` runs on cached features; afterwards on its own encoder again."""
    encoder = model.base_model
    pooler = getattr(encoder, "pooler", None)
    if not isinstance(pooler, nn.Module):
        pooler = None

    setattr(model, model.base_model_prefix, CachedEncoder(table.to(model.device), pooler))
    try:
        yield
    finally:
        setattr(model, model.base_model_prefix, encoder)


def frozen(
    backbone: Backbone, labels: LabelSchema, texts: list[str], batch_size: int, cache: Path
) -> FrozenVectors:
    """The encoder's vectors of `texts`.

    They are read from `cache` if the same encoder has read the same texts before, and written there
    otherwise. A file that is not what was written is not believed, and a cache that cannot be
    written is gone without.
    """
    is_cached = False

    def make() -> torch.Tensor:
        nonlocal is_cached
        vectors = _frozen(backbone, labels, texts, batch_size, cache)
        is_cached = vectors.is_cached
        return vectors.table

    # Read from disk or computed once, also where several processes train.
    table = processes.table_from_main(make)
    return FrozenVectors(table, is_cached)


def _frozen(
    backbone: Backbone, labels: LabelSchema, texts: list[str], batch_size: int, cache: Path
) -> FrozenVectors:
    path = cache / "features" / f"{_key(backbone, texts)}.safetensors"
    table = _read_kept(path, len(texts), backbone.model.config.hidden_size)
    if table is not None:
        return FrozenVectors(table, is_cached=True)

    table = compute(backbone, labels, texts, batch_size)
    try:
        kept.write(path, {FEATURES: table.numpy()})
    except kept.CannotKeep as error:
        console.say(f"note: the features cannot be kept in {console.show_path(cache)} ({error})")
    return FrozenVectors(table, is_cached=False)


def _read_kept(path: Path, texts: int, hidden: int) -> torch.Tensor | None:
    """(texts, hidden) float32 from a file of the cache; None where it has to be computed."""
    try:
        arrays = kept.read(path)
    except kept.Damaged:
        arrays = {}
    if arrays is None:
        return None

    table = arrays.get(FEATURES)
    if table is None or table.shape != (texts, hidden) or table.dtype.name != "float32":
        where = console.show_path(path)
        console.say(
            f"note: {where} is damaged or of an earlier version; features are computed anew"
        )
        return None
    return torch.from_numpy(table)


def runs_on_features(model: PreTrainedModel) -> bool:
    """Whether the model's head can be run on kept vectors, without its encoder."""
    return str(model.config.model_type) in READS_FIRST_TOKEN


def compute(
    backbone: Backbone, labels: LabelSchema, texts: list[str], batch_size: int
) -> torch.Tensor:
    """(texts, hidden) float32 from one forward pass: what the head modules read of each text.

    Of a model that does not run on features it is what its last layer reads.
    """
    # Made outside of inference mode: autograd refuses tensors that were made inside.
    table = torch.empty(len(texts), _width(backbone, len(labels)))
    with progress.row_progress("features", len(texts)) as advance:
        _fill(table, backbone, labels, texts, batch_size, advance)
    return table


def compute_mapped(
    backbone: Backbone,
    labels: LabelSchema,
    parts: list[Sequence[str]],
    batch_size: int,
    folder: Path,
) -> torch.Tensor:
    """`compute` of the texts of all parts, in a file of `folder` that is mapped.

    The file has no name: it is gone when the process ends. Few texts are in memory at once.
    """
    num_texts = sum(map(len, parts))
    table = _map_table(num_texts, _width(backbone, len(labels)), folder)

    start = 0
    with progress.row_progress("features", num_texts) as advance:
        for texts in parts:
            for first in range(0, len(texts), TEXTS_AT_ONCE):
                block = list(texts[first : first + TEXTS_AT_ONCE])
                rows = table[start : start + len(block)]
                _fill(rows, backbone, labels, block, batch_size, advance)
                start += len(block)
    return table


def _map_table(rows: int, width: int, folder: Path) -> torch.Tensor:
    """(rows, width) float32 zeros in a file without a name."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        # The mapping keeps the file, whose name goes at the end of the block.
        numbers = torch.from_file(file.name, shared=True, size=rows * width, dtype=torch.float32)
    return numbers.view(rows, width)


def _width(backbone: Backbone, num_labels: int) -> int:
    """The length of a text's vector."""
    model = backbone.model
    if runs_on_features(model):
        return int(model.config.hidden_size)
    return output_layer(model, num_labels).in_features


@torch.inference_mode()
def _fill(
    table: torch.Tensor,
    backbone: Backbone,
    labels: LabelSchema,
    texts: list[str],
    batch_size: int,
    advance: progress.Advance,
) -> None:
    """Write the vectors of the texts into the rows of the table."""
    model = backbone.model
    predictor = Predictor(model, backbone.tokenizer, labels)
    layer = output_layer(model, len(labels))
    is_replaceable = runs_on_features(model)

    for rows, batch in predictor.batches(texts, batch_size):
        vectors = _encode(model, batch) if is_replaceable else _read(model, layer, batch)
        table[rows] = vectors.float().cpu()
        advance(len(rows))


def _encode(model: PreTrainedModel, batch: Any) -> torch.Tensor:
    """(batch, hidden): the encoder's first token of each text, or its mean."""
    hidden = model.base_model(**batch).last_hidden_state
    if getattr(model.config, "classifier_pooling", "cls") == "mean":
        return _masked_mean(hidden, batch["attention_mask"])
    return hidden[:, 0]


def _read(model: PreTrainedModel, layer: nn.Linear, batch: Any) -> torch.Tensor:
    """(batch, layer.in_features): what the last layer reads of each text."""
    with HeadInputs(layer) as head:
        return head.take(model(**batch).logits)


def _masked_mean(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """(batch, hidden): the mean over the tokens of each text, without its padding."""
    mask = attention_mask.unsqueeze(-1)
    return (hidden * mask).sum(1) / mask.sum(1)


def _key(backbone: Backbone, texts: list[str]) -> str:
    """Hash of the texts, the encoder's weights and settings, and the tokenizer with its limit."""
    tokenizer = backbone.tokenizer
    settings = backbone.model.config.to_dict()
    for key in NOT_THE_ENCODER:
        settings.pop(key, None)

    settings_text = json.dumps(settings, sort_keys=True, default=str)

    digest = sha256(json.dumps(texts).encode())
    digest.update(
        f"{_tokenizer_text(tokenizer)} {tokenizer.model_max_length} {settings_text}".encode()
    )

    # The vectors that the last layer reads are behind the other layers of the head.
    model = backbone.model
    runs_alone = runs_on_features(model)
    encoder = model.base_model if runs_alone else model
    last = {id(weight) for weight in output_layer(model, model.config.num_labels).parameters()}
    for name, tensor in sorted(encoder.state_dict(keep_vars=True).items()):
        # The pooler is behind the vectors.
        if id(tensor) not in last and not (runs_alone and name.startswith("pooler.")):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())

    return digest.hexdigest()[:32]


def _tokenizer_text(tokenizer: Tokenizer) -> str:
    """A text that two tokenizers share only if they split texts alike."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)

    # The padding and truncation of the last call are no part of what the tokenizer is.
    settings = json.loads(fast.to_str()) | {"padding": None, "truncation": None}
    return json.dumps(settings, sort_keys=True)
