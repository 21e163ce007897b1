"""The interface of a loaded model: texts to tokens, tokens to logits, and the facts about it.

Nothing here imports torch, transformers or pandas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bankintent import files
from bankintent.bundle.layout import MERGED
from bankintent.bundle.record import Manifest
from bankintent.decision.policy import Policy
from bankintent.errors import ModelError

Logits = NDArray[np.float32]

Features = NDArray[np.float32]
"""(items, width): what the last linear layer of a classifier reads of each text."""

VERSION_DIGITS = 12
"""Hex digits of a model's version: 48 bits, too many for two models to share one by chance."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts about a model that `/info` shows."""

    name: str
    version: str
    labels: tuple[str, ...]
    labels_hash: str
    backbone: str
    parameters: int
    max_length: int
    """Longest input in tokens; longer texts are cut."""
    runtime: str
    folder: Path
    """The folder that holds the model card; not shown."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokenizer's output for one text; its length is in tokens."""

    features: dict[str, list[int]]
    truncated: bool

    def __len__(self) -> int:
        return len(self.features["input_ids"])


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one pass of a model gives of some texts."""

    logits: Logits
    """(items, labels) float32."""
    features: Features | None
    """(items, width) float32; None where the model or its exported format gives none.

    With the weights of the last layer they make the logits: `features @ weight.T + bias`.
    """

    def __len__(self) -> int:
        return len(self.logits)

    def row(self, index: int) -> "Outputs":
        """The outputs of one text, (labels,) and (width,): without the axis of items."""
        # Copies: who keeps the answer to one text should not keep its whole batch.
        features = None if self.features is None else self.features[index].copy()
        return Outputs(self.logits[index].copy(), features)


class OutputTable:
    """The outputs of many items, which come batch by batch, in any order."""

    def __init__(self, items: int, labels: int) -> None:
        self._logits = np.empty((items, labels), dtype=np.float32)
        self._features: Features | None = None

    def fill(self, rows: list[int], batch: Outputs) -> None:
        """Put the outputs of a batch into the rows of its items."""
        self._logits[rows] = batch.logits
        # A model gives features of every batch or of none.
        if batch.features is None:
            return

        if self._features is None:
            width = batch.features.shape[1]
            self._features = np.empty((len(self._logits), width), dtype=np.float32)
        self._features[rows] = batch.features

    def outputs(self) -> Outputs:
        """What was filled in. Without any item there are no features."""
        return Outputs(self._logits, self._features)


def never_empty(features: dict[str, list[int]], padding: int) -> dict[str, list[int]]:
    """The features of a text, or where it has no tokens those of one token of padding.

    A model cannot compute nothing, and what it makes of padding alone depends on its batch; with
    a token that counts as text, every batch gives the same answer.
    """
    if features["input_ids"]:
        return features

    numbers = {"input_ids": padding, "attention_mask": 1}
    return {name: [numbers.get(name, 0)] for name in features}


class Runtime(Protocol):
    """A loaded model. The logits of a text depend on its batch only by rounding."""

    facts: ModelFacts
    policy: Policy | None
    """The bundle's policy, for `decision.deciding.decide`; None where it has none."""
    workers: int
    """How many calls of `outputs` may run at once."""

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text, folded (`texts.fold`) and cut to the model's longest input."""
        ...

    def outputs(self, items: list[Tokens]) -> Outputs:
        """Logits and features of at least one item, padded to the longest and masked."""
        ...

    def logits(self, items: list[Tokens]) -> Logits:
        """The (items, labels) logits alone."""
        ...


class TenantRuntime(Runtime, Protocol):
    """A loaded adapter with its head, on a base that it shares with others: a tenant of the base.

    What it computes alone is what the base computes for it in a batch with others.
    """

    base: "SharedBase"
    """The base that computes it."""


class SharedBase(Protocol):
    """A base model that is loaded once for many adapters."""

    workers: int
    """How many calls of `mixed_outputs` may run at once."""

    def mixed_outputs(self, items: Sequence[tuple[TenantRuntime, Tokens]]) -> list[Outputs]:
        """The outputs of one batch with texts of different tenants.

        For each of at least one item, in order, outputs with one row: logits (1, labels) and
        features (1, width). The number of labels is that of the item's tenant.
        """
        ...


def require_finite(logits: Logits, model: str) -> Logits:
    """The logits of a model; ModelError where one is not finite: no intent can be chosen by it."""
    broken = int(np.sum(~np.isfinite(logits).all(axis=1)))
    if broken:
        raise ModelError(
            f"{model} gives scores that are not finite for {broken:,} of {len(logits):,} sentences",
            "Its weights are damaged, or its arithmetic overflows; train it again in float32",
        )
    return logits


def describe_runtime(engine: str, precision: str, device: str, threads: int) -> str:
    """The text of `ModelFacts.runtime`: `onnxruntime 1.32.0, int8, cpu, 2 threads`."""
    unit = "thread" if threads == 1 else "threads"
    return f"{engine}, {precision}, {device}, {threads} {unit}"


def version(root: Path, manifest: Manifest | None) -> str:
    """Twelve hex digits that change with the model.

    They are the same for a bundle, for its merged/ and for every runtime, because they depend only
    on the hashes of merged/. Without a manifest, every file of the folder `root` counts.
    """
    if manifest is None:
        hashes = {name: files.sha256(root / name) for name in files.list_files(root)}
    else:
        recorded = manifest.folder(MERGED)
        hashes = {name: entry.sha256 for name, entry in recorded.items()}

    # File names without their folders: merged/ on its own is the same model.
    lines = [f"{Path(name).name} {digest}" for name, digest in hashes.items()]
    return files.sha256_text("\n".join(lines))[:VERSION_DIGITS]
