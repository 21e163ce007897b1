"""An adapter read from its bundle without torch: its LoRA matrices and its head.

LoRA adds `scaling * B @ A` to a weight: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large
Language Models", arXiv 2106.09685. The scaling is alpha / r, with rslora alpha / sqrt(r):
Kalajdzievski 2023, arXiv 2312.03732.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bankintent.bundle import inside, layout
from bankintent.errors import ModelError

Matrix = NDArray[np.float32]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

ALONE = "Serve each bundle as a model of its own"
"""What to do where a shared base does not compute an adapter."""

PREFIX = "base_model.model."
"""What PEFT writes before the name of each module."""

DOWN = ".lora_A.weight"
UP = ".lora_B.weight"

UNREAD = ("alpha_pattern", "rank_pattern", "use_dora", "lora_bias", "fan_in_fan_out")
"""Settings of PEFT that change the arithmetic in ways that are not computed here."""


class Unsuited(ModelError):
    """An adapter that is sound, and of a kind that a shared base does not compute."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of one module. The scaling is in `up` already."""

    down: Matrix
    """(rank, in) float32."""
    up: Matrix
    """(out, rank) float32."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a tenant brings to a shared base."""

    pairs: dict[str, Pair]
    """Module of the trunk -> its matrices."""
    head: dict[str, Matrix]
    """Tensor of the head -> its values, such as `classifier.weight` (labels, width)."""


def read_adapter(root: Path) -> Adapter:
    """The adapter of a bundle, its files verified against the manifest.

    ModelError where a file was changed, Unsuited where the bundle holds no adapter, or one of a
    kind whose arithmetic is not that of plain LoRA.
    """
    require_there(root)
    if not (root / layout.ADAPTER).is_dir():
        raise Unsuited(
            f"{root} holds no {layout.ADAPTER}/", "Name a bundle that was trained with LoRA"
        )

    layout.verify(root, layout.read_manifest(root), layout.ADAPTER)
    config = _read_config(root)
    tensors = _read_tensors(root)

    pairs = _pairs(root, tensors, _scaling(config))
    head = _head(root, tensors, head_modules(config))
    return Adapter(pairs, head)


def require_there(root: Path) -> None:
    """Raise ModelError where there is no such folder."""
    if not root.exists():
        raise ModelError(f"{root} does not exist", "Name a bundle that was trained with LoRA")


def read_head_modules(root: Path) -> tuple[str, ...]:
    """The modules that the bundle's adapter replaces as a whole: its head."""
    return head_modules(_read_config(root))


def head_modules(config: dict[str, Any]) -> tuple[str, ...]:
    """The modules that PEFT saves as a whole: those of the head."""
    return tuple(config.get("modules_to_save") or ())


def _read_config(root: Path) -> dict[str, Any]:
    name = f"{layout.ADAPTER}/{CONFIG}"
    try:
        config: dict[str, Any] = json.loads(inside.read_text(root, name))
        is_lora = config["peft_type"] == "LORA" and int(config["r"]) > 0
        float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError):
        is_lora = False
    if not is_lora:
        raise ModelError(f"{root}/{name} describes no LoRA adapter", "Name another bundle")

    changed = [setting for setting in UNREAD if config.get(setting)]
    if config.get("bias", "none") != "none":
        changed.append("bias")
    if changed:
        raise Unsuited(
            f"{root}/{name} sets {', '.join(changed)}, and a shared base computes plain LoRA only",
            ALONE,
        )
    return config


def _scaling(config: dict[str, Any]) -> float:
    rank = int(config["r"])
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return float(config["lora_alpha"]) / divisor


def _read_tensors(root: Path) -> dict[str, Matrix]:
    path = root / layout.ADAPTER / WEIGHTS
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        raise ModelError(f"{path} cannot be read", "Copy or train the bundle again") from None
    return {
        name.removeprefix(PREFIX): tensor.astype(np.float32) for name, tensor in tensors.items()
    }


def _pairs(root: Path, tensors: dict[str, Matrix], scaling: float) -> dict[str, Pair]:
    pairs = {}
    for name in sorted(tensors):
        if not name.endswith(DOWN):
            continue
        module = name.removesuffix(DOWN)
        up = tensors.get(module + UP)
        if up is None or up.shape[1] != tensors[name].shape[0]:
            raise ModelError(f"{root}: the adapter's {module} is not whole", "Train it again")
        pairs[module] = Pair(tensors[name], up * np.float32(scaling))
    return pairs


def _head(root: Path, tensors: dict[str, Matrix], modules: tuple[str, ...]) -> dict[str, Matrix]:
    head = {}
    for name, tensor in tensors.items():
        if name.endswith((DOWN, UP)):
            continue
        if name.split(".")[0] not in modules:
            raise Unsuited(
                f"{root}: the adapter trains {name} as a whole, which is no part of its head",
                ALONE,
            )
        head[name] = tensor
    return head
