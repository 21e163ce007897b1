"""The rows of a run as the Trainer takes them: token ids, cached features, a teacher's logits."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent.bundle.index import choose
from bankintent.corpus.dataset import SplitData
from bankintent.texts import fold
from bankintent.training.encoded_file import encode_to_file
from bankintent.training.features import EncodedRows, Features
from bankintent.training.methods.distillation import Floats


@dataclass(frozen=True)
class TrainingRows:
    """What a model is trained and validated on."""

    train: SplitData
    val: SplitData
    features: Features | None = None
    """The frozen encoder's vectors of these rows: with them the encoder is not run."""
    teacher_logits: Floats | None = None
    """(training rows, labels): a teacher's answers, which `config.distill` weighs in the loss."""

    def without_features(self) -> "TrainingRows":
        """The same rows, to be run through the encoder."""
        return replace(self, features=None)

    def for_probe(self) -> "TrainingRows":
        """The rows that a linear probe is fitted on: all, or of those on disk some of each intent.

        A probe is fitted in memory, and more sentences hardly change it.
        """
        if not self.train.is_mapped:
            return self

        chosen = choose(self.train.labels)
        vectors = self.features
        if vectors is not None:
            table = torch.cat([vectors.train[chosen], vectors.val])
            vectors = Features(table, len(chosen))
        return replace(self, train=self.train.take(chosen), features=vectors)

    def encode_train(self, tokenizer: Tokenizer, folder: Path) -> EncodedRows:
        """The training rows, each with its teacher's logits if there is a teacher.

        Of sentences that are on disk the tokens are too, in a file of `folder`.
        """
        if self.features is not None:
            return self.features.encode_train(self.train.labels)
        if self.train.is_mapped:
            return encode_to_file(self.train, tokenizer, folder)

        rows = encode(self.train, tokenizer)
        if self.teacher_logits is not None:
            for row, logits in zip(rows, self.teacher_logits, strict=True):
                row["teacher"] = logits
        return rows

    def encode_val(self, tokenizer: Tokenizer) -> EncodedRows:
        """The validation rows; their loss is that on the labels alone."""
        if self.features is not None:
            return self.features.encode_val(self.val.labels)
        return encode(self.val, tokenizer)


def encode(data: SplitData, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Token ids of the folded texts, without padding: a batch is padded to its longest text."""
    if not len(data):
        # The tokenizer fails on an empty list.
        return []
    encoded = tokenizer(list(map(fold, data.texts)), truncation=True)
    keys = [key for key in tokenizer.model_input_names if key in encoded]

    rows = []
    for index, label_id in enumerate(data.labels):
        row = {key: encoded[key][index] for key in keys}
        row["labels"] = label_id
        rows.append(row)

    return rows
