"""The matrices of many adapters and heads, stacked: a slot for each adapter.

A graph takes the stacks as inputs and gathers from them the slot of each row.
"""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bankintent.inference.adapters.heads import Head
from bankintent.inference.adapters.reading import Adapter, Matrix

NO_ADAPTER = 0
"""The slot that adds nothing, and whose inner layers of the head pass on what they read."""

FEWEST_MORE = 4
"""Slots that are added at a time, at least."""

SLOTS = "slots"
"""The input with the slot of each row, (items,) int64."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer that adapters change, or that is part of their heads."""

    name: str
    inputs: int
    """Width of what it reads."""
    outputs: int
    """Width of what it gives."""

    @property
    def down(self) -> str:
        """The input with its first matrices, (slots, inputs, rank)."""
        return f"down.{self.name}"

    @property
    def up(self) -> str:
        """The input with its second ones, (slots, rank, outputs)."""
        return f"up.{self.name}"

    @property
    def weight(self) -> str:
        """The input with the weights of an inner layer of heads, (slots, inputs, outputs)."""
        return f"weight.{self.name}"

    @property
    def bias(self) -> str:
        """The input with its biases, (slots, 1, outputs)."""
        return f"bias.{self.name}"


class Stacks:
    """Slots for adapters up to a rank. Adapters come and go while batches run."""

    def __init__(self, layers: list[Layer], head: list[Layer], rank: int) -> None:
        self._layers = layers
        self._head = head
        self._rank = rank
        self._filling = threading.Lock()
        # A queue takes a slot back without the lock: an adapter can be dropped at any time, also
        # while this thread holds it.
        self._free: deque[int] = deque()

        self.feeds: dict[str, Matrix] = {}
        """Input of the graph -> its stack. A batch that has taken it can go on with it."""
        for layer in layers:
            self.feeds[layer.down] = np.zeros((1, layer.inputs, rank), np.float32)
            self.feeds[layer.up] = np.zeros((1, rank, layer.outputs), np.float32)
        for layer in head:
            self.feeds[layer.weight] = np.zeros((1, layer.inputs, layer.outputs), np.float32)
            self.feeds[layer.bias] = np.zeros((1, 1, layer.outputs), np.float32)
            self.feeds[layer.weight][NO_ADAPTER] = pass_on(layer).T

    def find_fault(self, adapter: Adapter, head: Head) -> str | None:
        """Why an adapter has no place here, in words; None where it has one."""
        inner = {layer.name: (layer.outputs, layer.inputs) for layer in self._head}
        if inner != {name: layer.weight.shape for name, layer in head.inner.items()}:
            return "has a head with other inner layers than the exported base"

        layers = {layer.name: layer for layer in self._layers}
        for name, pair in adapter.pairs.items():
            if name not in layers:
                return f"adapts {name}, which the exported base does not"
            layer = layers[name]
            rank, inputs = pair.down.shape
            if rank > self._rank:
                return f"has rank {rank}, and the exported base takes at most {self._rank}"
            if (inputs, len(pair.up)) != (layer.inputs, layer.outputs):
                return f"has matrices of another size for {name}"
        return None

    def add(self, adapter: Adapter, head: Head) -> int:
        """Put an adapter without a fault into a free slot, and return its number."""
        with self._filling:
            if not self._free:
                self._grow()
            slot = self._free.pop()
            for layer in self._layers:
                self._fill(layer, slot, adapter)
            for layer in self._head:
                self.feeds[layer.weight][slot] = head.inner[layer.name].weight.T
                self.feeds[layer.bias][slot] = head.inner[layer.name].bias
            return slot

    def drop(self, slot: int) -> None:
        """Leave a slot to another adapter; no batch may use it any more."""
        self._free.append(slot)

    def _fill(self, layer: Layer, slot: int, adapter: Adapter) -> None:
        down = self.feeds[layer.down][slot]
        up = self.feeds[layer.up][slot]
        # What an adapter does not fill must not be left from another one.
        down[:] = 0
        up[:] = 0
        pair = adapter.pairs.get(layer.name)
        if pair is not None:
            rank = len(pair.down)
            down[:, :rank] = pair.down.T
            up[:rank] = pair.up.T

    def _grow(self) -> None:
        """Some more slots: few, because pages of memory are larger than what is in use of them."""
        slots = len(next(iter(self.feeds.values())))
        more = max(FEWEST_MORE, slots // 4)
        grown = {}
        for name, stack in self.feeds.items():
            grown[name] = np.zeros((slots + more, *stack.shape[1:]), np.float32)
            grown[name][:slots] = stack
        self.feeds = grown
        self._free.extend(reversed(range(slots, slots + more)))


def pass_on(layer: Layer) -> Matrix:
    """(outputs, inputs): the weight of an inner layer where there is no adapter."""
    return np.eye(layer.outputs, layer.inputs, dtype=np.float32)


def number_slots(slots: list[int]) -> NDArray[np.int64]:
    """The input SLOTS."""
    return np.array(slots, dtype=np.int64)
