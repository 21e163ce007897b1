"""Texts to logits with a checkpoint from disk, in float32, in any order and batch size."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from bankintent.bundle.layout import Checkpoint, open_checkpoint
from bankintent.errors import ModelError
from bankintent.inference import loaded
from bankintent.inference.head_inputs import HeadInputs, find_output_layer
from bankintent.inference.runtime import Logits, Outputs, OutputTable, never_empty
from bankintent.labels import LabelSchema
from bankintent.texts import fold

LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""Loading never runs code from a checkpoint and never connects to the Hub."""


class Predictor:
    """A loaded classifier. Its answer for a text does not depend on the other texts of a batch."""

    def __init__(self, model: torch.nn.Module, tokenizer: Any, labels: LabelSchema) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.labels = labels
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, path: Path | Checkpoint) -> "Predictor":
        """Open, verify and load a bundle or checkpoint; ModelError where that cannot be done."""
        checkpoint = open_checkpoint(path) if isinstance(path, Path) else path

        logging.disable_progress_bar()
        with loaded.explained(str(checkpoint.root)):
            tokenizer = _load_tokenizer(checkpoint)
            model, missing = _load_model(checkpoint)

        # transformers would fill missing weights with random numbers.
        if missing:
            names = ", ".join(sorted(missing)[:3])
            raise ModelError(
                f"{checkpoint.root} lacks weights of the classifier ({names})",
                "Name a trained classifier, or the bundle that an adapter came with",
            )

        loaded.limit_length(tokenizer, max_positions(model), str(checkpoint.root))
        loaded.fit(model, tokenizer, str(checkpoint.root))

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), tokenizer, checkpoint.labels)

    def encode(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """Token ids of each folded text, truncated to the model's length, not padded."""
        if not texts:
            return []  # a tokenizer takes no empty list

        folded = list(map(fold, texts))
        columns = self.tokenizer(folded, truncation=True)
        rows = []
        for index in range(len(texts)):
            rows.append({key: columns[key][index] for key in columns})
        return rows

    def outputs(
        self,
        texts: Sequence[str],
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> Outputs:
        """Logits and features in the order of `texts`.

        A batch has texts of similar length; after it `progress` is called with their number.
        """
        table = OutputTable(len(texts), len(self.labels))
        with self.head() as head:
            for rows, batch in self.batches(texts, batch_size):
                table.fill(rows, self.compute(batch, head))
                if progress is not None:
                    progress(len(rows))
        return table.outputs()

    def logits(
        self,
        texts: Sequence[str],
        batch_size: int = 64,
        progress: Callable[[int], None] | None = None,
    ) -> Logits:
        """The (len(texts), labels) logits of `outputs` alone."""
        return self.outputs(texts, batch_size, progress).logits

    def head(self) -> HeadInputs:
        """What records the features of each pass once it is attached, for `compute`."""
        return HeadInputs(find_output_layer(self.model, len(self.labels)))

    @torch.inference_mode()
    def compute(self, batch: Any, head: HeadInputs) -> Outputs:
        """Logits and features of padded tensors; `head` is attached to the model."""
        logits = self.model(**batch).logits
        features = head.take_features(logits)
        if features is not None:
            features = features.float().cpu().numpy()
        return Outputs(logits.float().cpu().numpy(), features)

    def batches(self, texts: Sequence[str], batch_size: int) -> Iterator[tuple[list[int], Any]]:
        """Indices of the texts of each batch, shortest first, and their padded tensors."""
        for rows, batch in padded_batches(self.tokenizer, self.encode(texts), batch_size):
            yield rows, batch.to(self.device)


def padded_batches(
    tokenizer: Any, encoded: Sequence[dict[str, Any]], batch_size: int
) -> Iterator[tuple[list[int], Any]]:
    """Indices of the encoded texts of each batch, shortest first, and their padded tensors."""
    lengths = [len(features["input_ids"]) for features in encoded]
    # A stable sort: texts of one length keep their order.
    order = sorted(range(len(encoded)), key=lambda row: lengths[row])

    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        features = [encoded[row] for row in rows]
        yield rows, pad(tokenizer, features)


def pad(tokenizer: Any, features: list[dict[str, Any]]) -> Any:
    """The encoded texts as tensors, padded to the longest; one without tokens is one of padding."""
    rows = [never_empty(row, tokenizer.pad_token_id) for row in features]
    return tokenizer.pad(rows, return_tensors="pt")


def _load_tokenizer(checkpoint: Checkpoint) -> Any:
    # An adapter brings the tokenizer that it was trained with.
    folder = checkpoint.adapter or checkpoint.model
    return AutoTokenizer.from_pretrained(str(folder), **LOCAL)


def _load_model(checkpoint: Checkpoint) -> tuple[torch.nn.Module, set[str]]:
    """The model in float32 and the names of the weights that its files lack."""
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        str(checkpoint.model),
        # By default a checkpoint that is stored in half precision would also compute in it.
        dtype=torch.float32,
        # Weights in a pickle file could run code.
        use_safetensors=True,
        output_loading_info=True,
        **LOCAL,
    )

    if checkpoint.adapter is not None:
        # Only a model with an adapter pays for this import.
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(checkpoint.adapter))

    return model, set(loading["missing_keys"])


def max_positions(model: torch.nn.Module) -> int:
    """The longest input in tokens for which a model has positions; 0 where it sets no limit."""
    limit = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith(".position_embeddings") and padding is not None:
            # RoBERTa's first token has the position after the padding index.
            limit -= padding + 1
            break

    # An architecture with relative positions alone may say -1.
    return max(limit, 0)
