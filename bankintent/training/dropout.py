"""Dropout on a CPU with masks that NumPy draws: PyTorch's own take a sixth of a training step.

Every mask is seeded with one number from PyTorch's generator, so that what is seeded, saved and
restored there governs the masks too.
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
    """Within the block the dropout layers of `model` work this way if their input is on a CPU."""
    layers = [module for module in model.modules() if _is_active_dropout(module)]

    for layer in layers:
        layer.forward = partial(_drop, layer)

    try:
        yield
    finally:
        for layer in layers:
            # The attribute of the instance goes, and the method of the class is seen again.
            del layer.forward


def _is_active_dropout(module: nn.Module) -> bool:
    # Not isinstance: a subclass may do something else, as the dropout of whole channels.
    return type(module) is nn.Dropout and 0 < module.p < 1


def _drop(layer: nn.Dropout, values: torch.Tensor) -> torch.Tensor:
    """`values` with a share of `layer.p` zeroed and the rest scaled up; unchanged in evaluation."""
    if not layer.training or values.device.type != "cpu":
        return functional.dropout(values, layer.p, layer.training)

    seed = int(torch.randint(2**62, ()))
    words = np.random.SFC64(seed).random_raw(values.numel() // 4 + 1)
    # Four draws from each word of 64 bits.
    draws = words.view(np.int16)[: values.numel()]

    kept_levels = round((1 - layer.p) * LEVELS)
    # The draws are signed: the lowest level is -LEVELS / 2.
    mask = torch.from_numpy(draws).view(values.shape) < kept_levels - LEVELS // 2
    return values * mask.to(values.dtype).mul_(LEVELS / kept_levels)
