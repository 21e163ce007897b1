"""Figures of a model in training on the validation rows, computed as publishing computes them.

In float32 and without dropout, also where training runs in bf16 or fp16: a figure of an epoch is
the figure that a bundle of its weights gets.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from bankintent.errors import TrainingError
from bankintent.inference.predictor import padded_batches
from bankintent.measures import metrics
from bankintent.training import processes
from bankintent.training.features import EncodedRows


class Validator:
    """Measures a model on the same rows again and again."""

    def __init__(
        self,
        rows: EncodedRows,
        tokenizer: Tokenizer,
        batch_size: int,
        loss: Callable[..., torch.Tensor],
        precision: str,
        keeps_answers: bool = False,
    ) -> None:
        self.answers: list[NDArray[np.float32]] = []
        """(rows, labels) logits of each measurement, where they are kept."""

        self._keeps_answers = keeps_answers
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._loss = loss
        self._precision = precision

        self._label_ids = np.asarray([row["labels"] for row in rows])
        self._inputs: list[dict[str, Any]] = []
        for row in rows:
            self._inputs.append({key: value for key, value in row.items() if key != "labels"})

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._inputs)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """The loss and the metrics of all rows; the model is left in evaluation mode.

        Raises TrainingError where an answer is not finite.
        """
        logits = self._compute_logits(model)
        # With few steps in an epoch, the evaluation meets an overflow before the Trainer does.
        if not np.isfinite(logits).all():
            raise overflow("the model's answers overflowed", self._precision)

        if self._keeps_answers:
            self.answers.append(logits)

        outputs = SimpleNamespace(logits=torch.from_numpy(logits))
        loss = self._loss(outputs, torch.from_numpy(self._label_ids))
        return {"loss": loss.item(), **metrics.summary(logits, self._label_ids)}

    @torch.inference_mode()
    def _compute_logits(self, model: Any) -> NDArray[np.float32]:
        """(rows, labels), in the order of the rows."""
        model.eval()
        device = next(model.parameters()).device
        logits = np.zeros((len(self), model.config.num_labels), dtype=np.float32)
        batches = padded_batches(self._tokenizer, self._inputs, self._batch_size)

        with without_autocast(model):
            for number, (rows, batch) in enumerate(batches):
                # Each of several processes answers its share of the batches.
                if number % processes.count() == processes.rank():
                    output = model(**batch.to(device))
                    logits[rows] = output.logits.float().cpu().numpy()

        processes.added(logits)
        return logits


@contextlib.contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """Within the block `model` computes in float32.

    For mixed precision Accelerate puts a forward method that autocasts into the instance; without
    it the method of the class is seen again.
    """
    wrapped = model.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if wrapped is not None:
            model.__dict__["forward"] = wrapped


def overflow(what: str, precision: str) -> TrainingError:
    """The error for numbers that are not finite, with the settings to change."""
    # bf16 has the range of fp32.
    wider = "bf16 or fp32" if precision == "fp16" else "fp32"
    return TrainingError(
        f"{what} (precision {precision})", f"Set a lower lr, or precision: {wider}"
    )
