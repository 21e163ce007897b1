"""Tenants of a shared base: bundles whose adapters and heads are computed on one trunk."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bankintent import process
from bankintent.bundle import layout
from bankintent.distribution import command, require
from bankintent.errors import ModelError
from bankintent.inference.adapters import exported_base
from bankintent.inference.adapters.heads import Placed
from bankintent.inference.adapters.reading import require_there
from bankintent.inference.policies import advice, find_misfit, read_policy
from bankintent.inference.runtime import (
    Logits,
    ModelFacts,
    Outputs,
    TenantRuntime,
    Tokens,
    version,
)
from bankintent.labels import LabelSchema


class LoadedTrunk(Protocol):
    """A loaded trunk that computes batches of rows with different adapters."""

    facts: ModelFacts
    """About the trunk itself, without labels."""
    workers: int
    """How many calls of `compute` may run at once."""

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each folded text, cut to the longest input."""
        ...

    def read(self, root: Path) -> Any:
        """The adapter of a bundle, as this trunk holds it; Unsuited where it cannot be computed."""
        ...

    def compute(self, items: Sequence[tuple[Any, Tokens]]) -> list[Outputs]:
        """One single-row output per item, in order, by the adapter that `read` has given."""
        ...


class AdapterBase:
    """A trunk that is loaded once, as the base of tenants; see `runtime.SharedBase`."""

    def __init__(self, trunk: LoadedTrunk) -> None:
        self._trunk = trunk
        self.workers = trunk.workers

    def mixed_outputs(self, items: Sequence[tuple[TenantRuntime, Tokens]]) -> list[Outputs]:
        """The outputs of one batch with texts of different tenants, of one row each."""
        pairs: list[tuple[Placed, Tokens]] = []
        for tenant, tokens in items:
            assert isinstance(tenant, AdapterRuntime)
            pairs.append((tenant.adapter, tokens))
        return self._trunk.compute(pairs)

    def load(self, root: Path) -> "AdapterRuntime":
        """The tenant of a bundle.

        Raises Unsuited where it cannot be computed on this base, and ModelError where its files
        were changed, or its policy does not go with it.
        """
        return AdapterRuntime(self, self._trunk, root)


class AdapterRuntime:
    """An adapter with its head and its policy, on a base that it shares with others."""

    def __init__(self, base: AdapterBase, trunk: LoadedTrunk, root: Path) -> None:
        self.base = base
        self.adapter: Placed = trunk.read(root)
        self.workers = base.workers
        self._trunk = trunk

        manifest = layout.read_manifest(root)
        labels = LabelSchema.load(root / layout.LABELS)
        self.facts = replace(
            trunk.facts,
            name=root.resolve().name,
            version=version(root, manifest),
            labels=labels.names,
            labels_hash=labels.hash,
            backbone=manifest.base_model or trunk.facts.backbone,
            runtime=f"{trunk.facts.runtime}, on a shared base",
            folder=root,
        )

        self.policy = read_policy(root, manifest, labels)
        if self.policy is not None and self.policy.needs_features:
            misfit = find_misfit(self.policy, self.outputs(self.tokenize(["a text"])))
            if misfit is not None:
                raise ModelError(f"{root}: {misfit}", advice())

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each folded text, cut to the base's longest input."""
        return self._trunk.tokenize(texts)

    def outputs(self, items: list[Tokens]) -> Outputs:
        """Logits and features of items of this tenant alone."""
        rows = self._trunk.compute([(self.adapter, item) for item in items])
        logits = np.concatenate([row.logits for row in rows])
        features = [row.features for row in rows if row.features is not None]
        return Outputs(logits, np.concatenate(features))

    def logits(self, items: list[Tokens]) -> Logits:
        """The (items, labels) logits alone."""
        return self.outputs(items).logits


def open_base(root: Path, threads: int | None = None) -> AdapterBase:
    """Load a shared base: an exported one, or in torch the base of a LoRA bundle.

    Raises ModelError where there is neither or a file was changed, MissingPackage without torch.
    """
    require_there(root)
    cores = threads or process.cores()
    if exported_base.is_exported(root):
        return AdapterBase(exported_base.ExportedBase(root, cores, workers=cores))

    if not (root / layout.ADAPTER).is_dir():
        raise ModelError(
            f"{root} holds no {layout.ADAPTER}/ and no base of one",
            f"Name a bundle that was trained with LoRA, or what {command('share')} has written",
        )
    require("torch", "transformers", what="a shared base that is not exported")
    process.quiet_libraries()
    # Late: an exported base needs no torch.
    from bankintent.inference.adapters.torch_base import TorchBase

    return AdapterBase(TorchBase(root, cores, workers=cores))
