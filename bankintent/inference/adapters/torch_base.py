"""A shared base in torch: one trunk, and the rows of each batch pass through their own adapters."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bankintent.bundle import layout
from bankintent.errors import ModelError
from bankintent.inference.adapters.reading import Adapter, Matrix, Unsuited, read_adapter
from bankintent.inference.adapters.trunk import Hashes, read_trunk, require_same_base
from bankintent.inference.runtime import Outputs, Tokens
from bankintent.inference.torch_runtime import TorchRuntime
from bankintent.labels import LabelSchema

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Module -> its matrices down (rank, in) and up (out, rank)."""


@dataclass(frozen=True, eq=False)
class TorchAdapter:
    """An adapter with its head, ready for batches. Batches that run keep it alive."""

    factors: Factors
    weight: Matrix
    """(labels, width) float32 of the last layer."""
    bias: Matrix
    """(labels,) float32 of the last layer."""


Group = tuple[TorchAdapter, torch.Tensor]
"""An adapter and the indices of its rows in the batch."""


class _Batch(threading.local):
    """The adapters of the batch that this thread computes."""

    def __init__(self) -> None:
        self.groups: list[Group] = []


class TorchBase(TorchRuntime):
    """The trunk of a LoRA bundle, loaded once for every adapter that was trained on it.

    Adapters are plain objects: batches that run keep theirs alive, whatever is added or dropped.
    """

    def __init__(self, root: Path, threads: int, workers: int = 1) -> None:
        self._hashes: Hashes = {}
        self.trunk = read_trunk(root, self._hashes)
        labels = LabelSchema.load(root / layout.LABELS)
        folder = root / layout.base_folder(labels)
        # Without its manifest: the policy in it is that of the bundle's own adapter.
        super().__init__(layout.Checkpoint(root, labels, folder, None, None), threads, workers)

        self._modules = dict(self._predictor.model.named_modules())
        self._batch = _Batch()
        for name, module in self._modules.items():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(self._hook(name))

    def read(self, root: Path) -> TorchAdapter:
        """The adapter of a bundle; Unsuited where it belongs to another base, or is of a kind that
        is not computed here."""
        adapter = read_adapter(root)
        require_same_base(root, self.trunk, self._hashes)
        factors = self._factors(root, adapter)
        weight, bias = _last_layer(root, adapter)
        return TorchAdapter(factors, weight, bias)

    def compute(self, items: Sequence[tuple[TorchAdapter, Tokens]]) -> list[Outputs]:
        """One single-row output per item, in order; each by its own adapter and head."""
        with self._adapted([adapter for adapter, _ in items]):
            features = self.outputs([tokens for _, tokens in items]).features
        if features is None:
            raise ModelError("the shared base gives no features", "Serve each bundle by itself")

        results = []
        for (adapter, _), row in zip(items, features, strict=True):
            logits = (adapter.weight @ row + adapter.bias)[np.newaxis]
            results.append(Outputs(logits.astype(np.float32), row[np.newaxis].copy()))
        return results

    @contextmanager
    def _adapted(self, adapters: list[TorchAdapter]) -> Iterator[None]:
        rows: dict[TorchAdapter, list[int]] = {}
        for row, adapter in enumerate(adapters):
            rows.setdefault(adapter, []).append(row)

        device = self._predictor.device
        self._batch.groups = [
            (adapter, torch.tensor(own, device=device)) for adapter, own in rows.items()
        ]
        try:
            yield
        finally:
            self._batch.groups = []

    def _hook(self, name: str) -> Any:
        def add(_: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            for adapter, rows in self._batch.groups:
                if name in adapter.factors:
                    down, up = adapter.factors[name]
                    output.index_add_(0, rows, inputs[0][rows] @ down.T @ up.T)
            return output

        return add

    def _factors(self, root: Path, adapter: Adapter) -> Factors:
        factors = {}
        for name, pair in adapter.pairs.items():
            if not isinstance(self._modules.get(name), torch.nn.Linear):
                raise Unsuited(f"{root} adapts {name}, no linear layer", "Serve it by itself")
            device = self._predictor.device
            down = torch.from_numpy(pair.down).to(device)
            factors[name] = (down, torch.from_numpy(pair.up).to(device))
        return factors


def _last_layer(root: Path, adapter: Adapter) -> tuple[Matrix, Matrix]:
    """Weight and bias of a head of one layer; Unsuited for a head of several."""
    weights = [name for name in adapter.head if name.endswith(".weight")]
    if len(weights) != 1:
        raise Unsuited(
            f"{root} has a head of {len(weights)} layers, and a shared base serves one",
            "Serve this bundle as a model of its own",
        )
    weight = adapter.head[weights[0]]
    bias = adapter.head.get(weights[0].removesuffix("weight") + "bias")
    return weight, np.zeros(len(weight), np.float32) if bias is None else bias
