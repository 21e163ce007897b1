"""A shared base in torch: one trunk, and the rows of each batch pass through their own adapters."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from bankintent.bundle import layout
from bankintent.errors import ModelError
from bankintent.inference.adapters.heads import Head, Placed, compute_heads, read_head
from bankintent.inference.adapters.reading import (
    ALONE,
    Adapter,
    Matrix,
    Unsuited,
    read_adapter,
)
from bankintent.inference.adapters.trunk import Hashes, read_trunk, require_same_base
from bankintent.inference.exported_inputs import PROBES
from bankintent.inference.runtime import Outputs, Tokens
from bankintent.inference.torch_runtime import TorchRuntime
from bankintent.labels import LabelSchema

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Module -> its matrices down (rank, in) and up (out, rank)."""

Inner = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Inner module of a head -> its weight (out, in) and bias (out,)."""


@dataclass(frozen=True, eq=False)
class TorchAdapter(Placed):
    """An adapter with its head, ready for batches."""

    factors: Factors
    inner: Inner


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
        self._row_layers = self._find_row_layers()
        self._batch = _Batch()
        for name, module in self._modules.items():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(self._hook(name))

    def read(self, root: Path) -> TorchAdapter:
        """The adapter of a bundle; Unsuited where it belongs to another base, or is of a kind that
        is not computed here."""
        adapter = read_adapter(root)
        require_same_base(root, self.trunk, self._hashes)
        head = read_head(root, adapter)
        self._require_layers(root, [*adapter.pairs, *head.inner])
        return TorchAdapter(head.last, self._factors(adapter), self._inner(head))

    def compute(self, items: Sequence[tuple[TorchAdapter, Tokens]]) -> list[Outputs]:
        """One single-row output per item, in order; each by its own adapter and head."""
        adapters = [adapter for adapter, _ in items]
        with self._adapted(adapters):
            features = self.outputs([tokens for _, tokens in items]).features
        if features is None:
            raise ModelError("the shared base gives no features", ALONE)
        return compute_heads(adapters, features)

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
        def change(
            _: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor
        ) -> torch.Tensor:
            for adapter, rows in self._batch.groups:
                if name in adapter.factors:
                    down, up = adapter.factors[name]
                    output.index_add_(0, rows, inputs[0][rows] @ down.T @ up.T)
                if name in adapter.inner:
                    weight, bias = adapter.inner[name]
                    output.index_copy_(0, rows, linear(inputs[0][rows], weight, bias))
            return output

        return change

    def _find_row_layers(self) -> set[str]:
        """The linear layers that compute each text of a batch by itself.

        DeBERTa's projections of positions are computed once for all texts, so that no text can have
        an adapter of its own there.
        """
        seen: dict[str, bool] = {}

        def record(name: str) -> Any:
            def note(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
                seen[name] = seen.get(name, True) and len(inputs[0]) == len(PROBES)

            return note

        handles = []
        for name, module in self._modules.items():
            if isinstance(module, torch.nn.Linear):
                handles.append(module.register_forward_pre_hook(record(name)))
        self.outputs(self.tokenize(list(PROBES)))
        for handle in handles:
            handle.remove()
        return {name for name, is_by_row in seen.items() if is_by_row}

    def _require_layers(self, root: Path, names: list[str]) -> None:
        for name in names:
            if not isinstance(self._modules.get(name), torch.nn.Linear):
                raise Unsuited(f"{root} adapts {name}, no linear layer", ALONE)
            if name not in self._row_layers:
                raise Unsuited(
                    f"{root} adapts {name}, which is computed once for all texts of a batch", ALONE
                )

    def _factors(self, adapter: Adapter) -> Factors:
        pairs = adapter.pairs.items()
        return {name: (self._tensor(pair.down), self._tensor(pair.up)) for name, pair in pairs}

    def _inner(self, head: Head) -> Inner:
        layers = head.inner.items()
        return {name: (self._tensor(one.weight), self._tensor(one.bias)) for name, one in layers}

    def _tensor(self, matrix: Matrix) -> torch.Tensor:
        return torch.from_numpy(matrix).to(self._predictor.device)
