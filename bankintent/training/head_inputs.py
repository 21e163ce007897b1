"""What a model's last layer reads of each text, seen from outside, whatever its class."""

from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from bankintent.errors import ModelError


class HeadInputs:
    """Records, within a `with` block, the vectors that `layer` reads in each forward pass."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._passes: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __enter__(self) -> Self:
        self._handle = self._layer.register_forward_hook(self._record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.remove()

    def _record(self, _: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        self._passes.append((inputs[0], output))

    def take(self, logits: torch.Tensor) -> torch.Tensor:
        """(batch, layer.in_features): what the layer read of each text in the last forward pass.

        `logits` (batch, labels) are the model's answer in that pass. Raises ModelError where they
        are not what the layer gave.
        """
        if len(self._passes) != 1:
            raise ModelError(f"its last layer runs {len(self._passes)} times for one answer")
        read, given = self._passes.pop()

        if given.shape == logits.shape:
            if not torch.equal(given, logits):
                raise ModelError("its answer is not what its last layer gives")
            return read
        if given.dim() != 3 or given.shape[::2] != logits.shape:
            raise ModelError("its last layer gives another shape than its answer has")

        # A decoder's head runs on every token, and its answer is that of one of them.
        is_answer = (given == logits.unsqueeze(1)).all(dim=-1)
        if not is_answer.any(dim=1).all():
            raise ModelError("its answer is not what its last layer gives of one token")
        texts = torch.arange(len(logits), device=logits.device)
        return read[texts, is_answer.int().argmax(dim=1)]
