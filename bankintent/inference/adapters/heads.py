"""The head of an adapter: what is its own, and no sum with a layer of the base.

Its last layer is computed apart from the trunk, because its size differs with the labels. Inner
layers, such as the dense layer of RoBERTa's head, take the place of the base's untrained ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bankintent.bundle import layout
from bankintent.errors import ModelError
from bankintent.inference.adapters.reading import ALONE, Adapter, Matrix, Unsuited
from bankintent.inference.runtime import Features, Outputs
from bankintent.labels import LabelSchema


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer of a head."""

    weight: Matrix
    """(outputs, inputs) float32."""
    bias: Matrix
    """(outputs,) float32."""


@dataclass(frozen=True, slots=True)
class Head:
    """All layers of a head."""

    last: Linear
    inner: dict[str, Linear]
    """Module of the base -> what takes its place."""


@dataclass(frozen=True, eq=False)
class Placed:
    """An adapter that an engine holds, with its head. Batches that run keep it alive."""

    last: Linear


def read_head(root: Path, adapter: Adapter) -> Head:
    """The head of a bundle's adapter.

    Unsuited where it holds more than linear layers, or its last one cannot be told; ModelError
    where it has none for the bundle's labels.
    """
    labels = len(LabelSchema.load(root / layout.LABELS))
    layers = _read_layers(root, adapter)
    last = [name for name, layer in layers.items() if len(layer.weight) == labels]
    if not last:
        sizes = ", ".join(str(len(layer.weight)) for layer in layers.values())
        raise ModelError(
            f"{root} has {labels} labels, and its head {sizes or 'no layer'}",
            "Copy or train the bundle again",
        )
    if len(last) > 1:
        raise Unsuited(f"{root} has a head of several layers with {labels} outputs", ALONE)
    return Head(layers.pop(last[0]), layers)


def _read_layers(root: Path, adapter: Adapter) -> dict[str, Linear]:
    layers = {}
    for name, tensor in adapter.head.items():
        module, _, kind = name.rpartition(".")
        if kind == "bias" and f"{module}.weight" in adapter.head:
            continue
        if kind != "weight" or tensor.ndim != 2:
            raise Unsuited(f"{root} has a head with {name}, which is no linear layer", ALONE)
        without = np.zeros(len(tensor), np.float32)
        layers[module] = Linear(tensor, adapter.head.get(f"{module}.bias", without))
    return layers


def compute_heads(adapters: Sequence[Placed], features: Features) -> list[Outputs]:
    """One single-row output for each row of features, by its own adapter's last layer."""
    results = []
    for adapter, row in zip(adapters, features, strict=True):
        logits = (adapter.last.weight @ row + adapter.last.bias)[np.newaxis]
        results.append(Outputs(logits.astype(np.float32), row[np.newaxis].copy()))
    return results
