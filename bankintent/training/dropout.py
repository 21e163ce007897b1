"""Dropout on a CPU with masks that NumPy draws: PyTorch's own take a sixth of a training step.

Every mask is seeded with one number from PyTorch's generator, so that what is seeded, saved and restored there governs
the masks too.
"""

import contextlib
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

LEVELS = 2**16
"""Steps in which a probability is realised: 16 random bits for each element."""


@contextlib.contextmanager
def fast_dropout(model: nn.Module) -> Iterator[None]:
    """Within the block the dropout layers of `model` work this way wherever their input is on a CPU."""
    layers = [
        module for module in model.modules() if type(module) is nn.Dropout and 0 < module.p < 1
    ]
    for layer in layers:
        layer.forward = partial(_drop, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _drop(layer: nn.Dropout, values: torch.Tensor) -> torch.Tensor:
    """`values` with a share of `layer.p` set to zero and the others scaled up, while the layer is in training mode."""
    if not layer.training or values.device.type != "cpu":
        return functional.dropout(values, layer.p, layer.training)
    kept = round((1 - layer.p) * LEVELS)
    seed = int(torch.randint(2**62, ()))
    words = (
        np.random.SFC64(seed).random_raw(values.numel() // 4 + 1).view(np.int16)
    )  # four from each 64 bits
    mask = torch.from_numpy(words[: values.numel()]).view(values.shape) < kept - LEVELS // 2
    return values * mask.to(values.dtype).mul_(LEVELS / kept)
