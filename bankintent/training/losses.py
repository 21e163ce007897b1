"""The loss on the labels: cross-entropy with label smoothing and class weights."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

NO_ROW = -100
"""The label of a row that counts for nothing, in PyTorch's cross-entropy and in the Trainer."""


class IntentLoss:
    """Cross-entropy, normalised over the whole accumulated batch."""

    def __init__(self, smoothing: float, weights: torch.Tensor | None) -> None:
        self.smoothing = smoothing
        self.weights = weights

    def __call__(
        self, outputs: Any, label_ids: torch.Tensor, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of one forward pass; `label_ids` are (batch,).

        `num_items_in_batch` counts the rows of all passes of an optimizer step: the losses of its
        passes add up to the loss of the whole batch.
        """
        logits = outputs.logits.float()  # autocast gives bf16 or fp16
        weights = self.weights
        if weights is not None:
            weights = weights.to(logits.device)

        total = functional.cross_entropy(
            logits, label_ids, weight=weights, label_smoothing=self.smoothing, reduction="sum"
        )

        if num_items_in_batch is None:
            return total / len(label_ids)
        return total / num_items_in_batch


def class_weights(label_ids: list[int], num_labels: int) -> torch.Tensor:
    """(num_labels,): rows / (labels * rows of the label); the mean over the rows is one."""
    counts = np.bincount(label_ids, minlength=num_labels)
    # A label without rows has no weight of its own; one row avoids a division by zero.
    weights = len(label_ids) / (num_labels * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32)
