"""A shared base without torch: an exported trunk whose graph takes the adapters' matrices."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bankintent import files, typed_json
from bankintent.bundle import inside
from bankintent.errors import ModelError
from bankintent.inference import engines
from bankintent.inference.adapters.heads import Placed, compute_heads, read_head
from bankintent.inference.adapters.reading import ALONE, Unsuited, read_adapter
from bankintent.inference.adapters.stacks import NO_ADAPTER, SLOTS, Layer, Stacks, number_slots
from bankintent.inference.adapters.trunk import Hashes, Trunk, require_same_base
from bankintent.inference.exported_inputs import (
    FEATURES,
    PROBES,
    SETTINGS,
    TOKENIZER,
    ExportedInputs,
)
from bankintent.inference.exported_runtime import FLOAT_TOLERANCE
from bankintent.inference.runtime import (
    VERSION_DIGITS,
    Features,
    ModelFacts,
    Outputs,
    Tokens,
    describe_runtime,
)

RECORD = "base.json"
"""It makes a folder an exported base."""

GRAPH = "model.onnx"

CONTENT = (GRAPH, TOKENIZER, SETTINGS)
"""The files beside the record."""

ADVICE = "Export the base again"

LARGEST = 1 << 16
"""Largest width and rank that a record is believed: memory is made for them."""


@dataclass(frozen=True, slots=True)
class BaseRecord:
    """base.json: which adapters the base takes, and what its files are."""

    trunk: Trunk
    layers: list[Layer]
    """Those that adapters change."""
    head: list[Layer]
    """Those of the heads, without the last one."""
    rank: int
    """Largest rank of an adapter."""
    probes: list[list[float]]
    """Its features of PROBES without any adapter."""
    files: dict[str, str]
    """File -> its sha256."""

    @property
    def is_sane(self) -> bool:
        """Whether its numbers can be sizes."""
        sizes = [self.rank]
        for layer in (*self.layers, *self.head):
            sizes += [layer.inputs, layer.outputs]
        return all(0 < size <= LARGEST for size in sizes)

    @classmethod
    def load(cls, root: Path) -> "BaseRecord":
        """The record in a folder, its files verified; ModelError where one is not as written."""
        try:
            record = typed_json.parse(cls, inside.read_text(root, RECORD))
        except ValueError:
            record = None
        if record is None or not record.is_sane:
            raise ModelError(f"{root}/{RECORD} is not the record of a base", ADVICE)

        for name in CONTENT:
            path = inside.regular_file(root, name)
            if files.sha256(path) != record.files.get(name):
                raise ModelError(f"{root}: {name} was changed since it was exported", ADVICE)
        return record


@dataclass(frozen=True, eq=False)
class SlotAdapter(Placed):
    """An adapter in a slot of the stacks, which is free again when nothing uses the adapter."""

    slot: int


def is_exported(root: Path) -> bool:
    """Whether a folder is an exported base."""
    return (root / RECORD).is_file()


class ExportedBase(ExportedInputs):
    """An exported trunk, loaded once for every adapter that was trained on it.

    ModelError where a file was changed, Unfit where this machine computes other features than those
    that were recorded.
    """

    def __init__(self, root: Path, threads: int, workers: int = 1) -> None:
        self._record = BaseRecord.load(root)
        super().__init__(root)
        self.workers = min(workers, threads)
        self._hashes: Hashes = {}
        record = self._record
        self._stacks = Stacks(record.layers, record.head, record.rank)
        self._engine = engines.start_onnxruntime(root / GRAPH, [FEATURES], threads, self.workers)
        self._check_probes(root)

        engine = f"onnxruntime {engines.import_onnxruntime().__version__}"
        self.facts = ModelFacts(
            name=root.resolve().name,
            version=self._record.files[GRAPH][:VERSION_DIGITS],
            labels=(),
            labels_hash="",
            backbone=self.settings.backbone,
            parameters=self.settings.parameters,
            max_length=self.settings.max_length,
            runtime=describe_runtime(engine, "float32", "cpu", threads),
            folder=root,
        )

    def read(self, root: Path) -> SlotAdapter:
        """The adapter of a bundle, in a slot; Unsuited where it belongs to another base, or is of a
        kind that is not computed here."""
        adapter = read_adapter(root)
        require_same_base(root, self._record.trunk, self._hashes)
        head = read_head(root, adapter)
        fault = self._stacks.find_fault(adapter, head)
        if fault is not None:
            raise Unsuited(f"{root} {fault}", ALONE)

        slot = self._stacks.add(adapter, head)
        placed = SlotAdapter(head.last, slot)
        weakref.finalize(placed, self._stacks.drop, slot)
        return placed

    def compute(self, items: Sequence[tuple[SlotAdapter, Tokens]]) -> list[Outputs]:
        """One single-row output per item, in order; each by its own adapter and head."""
        adapters = [adapter for adapter, _ in items]
        slots = [adapter.slot for adapter in adapters]
        features = self._features(slots, [tokens for _, tokens in items])
        return compute_heads(adapters, features)

    def _features(self, slots: list[int], items: list[Tokens]) -> Features:
        feeds = {**self._stacks.feeds, **self.feeds(items), SLOTS: number_slots(slots)}
        [features] = self._engine(feeds)
        return features

    def _check_probes(self, root: Path) -> None:
        items = self.tokenize(list(PROBES))
        features = self._features([NO_ADAPTER] * len(items), items)
        expected = np.array(self._record.probes, dtype=np.float32)

        # Another shape counts as infinitely far: it cannot be subtracted.
        worst = float("inf")
        if features.shape == expected.shape:
            worst = float(np.abs(features - expected).max())
        # Not `worst > FLOAT_TOLERANCE`: that is false for NaN, which must fail too.
        if not worst <= FLOAT_TOLERANCE:
            raise engines.Unfit(
                f"{root} gives other answers on this machine than where it was exported",
                "Name the bundle itself as the base, which torch computes",
            )
