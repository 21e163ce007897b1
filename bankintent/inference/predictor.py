"""Texts to logits with a checkpoint from disk, in float32, whatever the batch size and the order."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from bankintent.bundle.layout import Checkpoint, open_checkpoint
from bankintent.errors import ModelError
from bankintent.labels import LabelSchema


class Predictor:
    """A loaded classifier. Its answer for a text does not depend on the texts beside it."""

    def __init__(self, model: torch.nn.Module, tokenizer: Any, labels: LabelSchema) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.labels = labels
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, path: Path | Checkpoint) -> "Predictor":
        """Open, verify and load a bundle or checkpoint; its tokenizer says how long an input may be."""
        checkpoint = open_checkpoint(path) if isinstance(path, Path) else path
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(checkpoint.adapter or checkpoint.model), **options
            )
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                str(checkpoint.model),
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
            if checkpoint.adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, str(checkpoint.adapter))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"{checkpoint.root} cannot be loaded: {str(error).strip().splitlines()[0]}",
                "Copy or train it again",
            ) from None
        if loading["missing_keys"]:  # transformers would fill them with random numbers
            raise ModelError(
                f"{checkpoint.root} lacks weights of the classifier ({', '.join(sorted(loading['missing_keys'])[:3])})",
                "Name a trained classifier, or the bundle that an adapter came with",
            )
        tokenizer.model_max_length = min(
            tokenizer.model_max_length, positions(model) or tokenizer.model_max_length
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), tokenizer, checkpoint.labels)

    def encode(self, texts: list[str]) -> list[dict[str, list[int]]]:
        """Token ids of each text, truncated to the model's length, not padded."""
        encoded = self.tokenizer(texts, truncation=True) if texts else {}
        return [{key: encoded[key][i] for key in encoded} for i in range(len(texts))]

    @torch.inference_mode()
    def logits(
        self, texts: list[str], batch_size: int = 64, progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float32]:
        """(len(texts), labels) float32, in the order of `texts`; batches hold texts of like length.

        `progress` is called with the number of texts done after each batch.
        """
        out = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        for rows, batch in self.batches(texts, batch_size):
            out[rows] = self.model(**batch).logits.float().cpu().numpy()
            if progress is not None:
                progress(len(rows))
        return out

    def batches(self, texts: list[str], batch_size: int) -> Iterator[tuple[list[int], Any]]:
        """Padded tensors on the model's device with the indices of their texts, shortest texts first."""
        encoded = self.encode(texts)
        order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]["input_ids"]), i))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield (
                rows,
                self.tokenizer.pad([encoded[i] for i in rows], return_tensors="pt").to(self.device),
            )


def positions(model: torch.nn.Module) -> int:
    """How many tokens a model can number; 0 where it has no limit of its own."""
    limit = int(getattr(model.config, "max_position_embeddings", 0) or 0)
    embeddings = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)
    return (
        limit if padding is None else limit - padding - 1
    )  # RoBERTa counts from behind the padding index
