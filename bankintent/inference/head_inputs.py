"""What a model's last layer reads of each text, seen from outside, whatever its class."""

import threading
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from bankintent.errors import ModelError


def output_layer(model: nn.Module, num_labels: int) -> nn.Linear:
    """The last linear layer of the model, which gives the logits; ModelError without one."""
    layer = find_output_layer(model, num_labels)
    if layer is None:
        raise ModelError(
            f"{type(model).__name__} has no last layer with an output for each label",
            "Name an encoder such as BERT, DeBERTa or ModernBERT",
        )
    return layer


def find_output_layer(model: nn.Module, num_labels: int) -> nn.Linear | None:
    """The last linear layer of the model with an output for each label; None without one."""
    layers = []
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == num_labels:
            layers.append(module)

    # The last one: an encoder may have layers of that size too, and under PEFT the trained copy
    # comes after the frozen original.
    return layers[-1] if layers else None


class _Passes(threading.local):
    """What a layer read and gave in the passes of one thread, oldest first."""

    def __init__(self) -> None:
        self.recorded: list[tuple[torch.Tensor, torch.Tensor]] = []


class HeadInputs:
    """Records, within a `with` block, the vectors that `layer` reads in each forward pass.

    Several threads may run the model at once: each takes what its own pass recorded. Without a
    layer nothing is recorded.
    """

    def __init__(self, layer: nn.Linear | None) -> None:
        self._layer = layer
        self._passes = _Passes()

    def attach(self) -> Self:
        """Record from here on, for as long as the model."""
        if self._layer is not None:
            self._handle = self._layer.register_forward_hook(self._record)
        return self

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._layer is not None:
            self._handle.remove()

    def _record(self, _: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        self._passes.recorded.append((inputs[0], output))

    def take(self, logits: torch.Tensor) -> torch.Tensor:
        """(batch, layer.in_features): what the layer read of each text in the last forward pass.

        `logits` (batch, labels) are the model's answer in that pass. Raises ModelError where they
        are not what the layer gave.
        """
        read, given = self._last_pass()
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

    def take_features(self, logits: torch.Tensor) -> torch.Tensor | None:
        """`take` where the layer reads one vector of each text; None for every other model.

        A head that runs on every token has no one vector that an exported graph could give too.
        """
        try:
            read, given = self._last_pass()
        except ModelError:
            return None

        is_answer = given.shape == logits.shape and torch.equal(given, logits)
        return read if is_answer and read.dim() == 2 else None

    def _last_pass(self) -> tuple[torch.Tensor, torch.Tensor]:
        passes = self._passes.recorded
        self._passes.recorded = []
        if len(passes) != 1:
            raise ModelError(f"its last layer runs {len(passes)} times for one answer")
        return passes[0]
