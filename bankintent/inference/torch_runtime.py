"""The predictor as a runtime: float32 torch on the CPU, or on a GPU where there is one."""

import numpy as np
import torch

from bankintent.bundle.layout import Checkpoint
from bankintent.inference.predictor import Predictor
from bankintent.inference.runtime import Logits, ModelFacts, Tokens, version


class TorchRuntime:
    """A checkpoint of any kind, in float32 on a fixed number of threads."""

    def __init__(self, checkpoint: Checkpoint, threads: int, workers: int = 1) -> None:
        self._predictor = Predictor.load(checkpoint)
        self.workers = 1 if self._predictor.device.type == "cuda" else min(workers, threads)
        torch.set_num_threads(max(1, threads // self.workers))
        self._max_length = int(self._predictor.tokenizer.model_max_length)
        model = self._predictor.model
        device = self._predictor.device.type
        self.facts = ModelFacts(
            name=checkpoint.name,
            version=version(checkpoint.root, checkpoint.manifest),
            labels=checkpoint.labels.names,
            labels_hash=checkpoint.labels.hash,
            backbone=(checkpoint.manifest or {}).get("base_model") or str(model.config.model_type),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            max_length=self._max_length,
            runtime=f"torch {torch.__version__}, float32, {device}, {threads} thread{'s' * (threads > 1)}",
            folder=checkpoint.root,
        )

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text, cut to the model's longest input."""
        batch = self._predictor.tokenizer(texts, truncation=True)
        rows = [
            dict(zip(batch.keys(), row, strict=True)) for row in zip(*batch.values(), strict=True)
        ]
        return [
            Tokens(row, self._overflows(text, row)) for text, row in zip(texts, rows, strict=True)
        ]

    def _overflows(self, text: str, row: dict[str, list[int]]) -> bool:
        full = len(row["input_ids"]) >= self._max_length
        return (
            full
            and len(self._predictor.tokenizer(text, verbose=False)["input_ids"]) > self._max_length
        )

    def logits(self, items: list[Tokens]) -> Logits:
        """(items, labels) float32, padded to the longest and masked."""
        predictor = self._predictor
        with torch.inference_mode():
            batch = predictor.tokenizer.pad([item.features for item in items], return_tensors="pt")
            return np.asarray(
                predictor.model(**batch.to(predictor.device)).logits.float().cpu().numpy()
            )
