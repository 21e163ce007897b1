"""The exported base of many adapters: a trunk whose graph takes their matrices as inputs.

Each adapted layer gives `W x + b + up[s] (down[s] x)`, where `s` is the slot of the row's adapter,
and an inner layer of the head `W[s] x + b[s]`. The matrices are gathered from stacks, so that one
pass computes rows of different adapters.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn

from bankintent import files
from bankintent.bundle import layout
from bankintent.errors import ModelError, UserError
from bankintent.export.features_output import add_features
from bankintent.export.first_token import narrow_to_first_token
from bankintent.export.onnx_export import (
    encode_example,
    trace,
    use_plain_attention,
    write_inputs,
)
from bankintent.inference.adapters.exported_base import (
    CONTENT,
    GRAPH,
    RECORD,
    BaseRecord,
    ExportedBase,
    SlotAdapter,
)
from bankintent.inference.adapters.heads import read_head
from bankintent.inference.adapters.reading import ALONE, Adapter, read_adapter
from bankintent.inference.adapters.stacks import NO_ADAPTER, SLOTS, Layer, Stacks, pass_on
from bankintent.inference.adapters.torch_base import TorchAdapter, TorchBase
from bankintent.inference.exported_inputs import PROBES
from bankintent.inference.predictor import Predictor
from bankintent.inference.runtime import Features, Outputs, Tokens
from bankintent.labels import LabelSchema

FOLDER = files.ResultFolder("exported base", (RECORD, *CONTENT), setting="OUTPUT")

TOLERANCE = 1e-4
"""Largest difference of a logit or feature between the exported base and the one in torch."""

INPUTS = "inputs"
"""An argument of `SlotModel`, as are the next two: the exporter's names of inputs begin with it."""

FIRST = "first"

SECOND = "second"


@dataclass(frozen=True, slots=True)
class Exported:
    """The folder that was written."""

    record: BaseRecord
    difference: float
    """Largest difference of a logit or feature from torch."""


def export(bundle: Path, output: Path, rank: int | None = None) -> Exported:
    """Export the base of a LoRA bundle for adapters on the same layers, up to a rank.

    `rank` is by default that of the bundle's adapter. Raises ModelError where the bundle holds no
    adapter of plain LoRA, the base cannot be exported, or the exported one answers otherwise.
    """
    # Before anything is loaded.
    FOLDER.require_replaceable(output)
    adapter = read_adapter(bundle)
    limit = _find_limit(bundle, adapter, rank)
    reference = TorchBase(bundle, torch.get_num_threads())
    own = reference.read(bundle)
    plan = Plan(_adapted_layers(adapter), _inner_layers(bundle, adapter), limit)
    none = _without_adapter(own, plan)

    with files.replacing(output, FOLDER) as staging:
        with _explained(bundle):
            _write_graph(bundle, plan, staging)
        record = _write_record(staging, reference, none, plan)
        exported = ExportedBase(staging, torch.get_num_threads())
        difference = _compare(reference, [own, none], exported, bundle)
        # Not `difference > TOLERANCE`: that is false for NaN, which must fail too.
        if not difference <= TOLERANCE:
            raise ModelError(
                f"the exported base of {bundle} differs by {difference:.1e} from the one in torch,"
                f" and at most {TOLERANCE:g} is allowed",
                _name_itself(bundle),
            )
    return Exported(record, difference)


def _find_limit(bundle: Path, adapter: Adapter, rank: int | None) -> int:
    """The largest rank that the base is to take."""
    own = max((len(pair.down) for pair in adapter.pairs.values()), default=0)
    if own == 0:
        raise ModelError(f"the adapter of {bundle} changes no layer", "Name another bundle")
    if rank is not None and rank < own:
        raise ModelError(
            f"the adapter of {bundle} has rank {own}, more than {rank}",
            "Name a rank that it fits in, or none",
        )
    return rank or own


@contextlib.contextmanager
def _explained(bundle: Path) -> Iterator[None]:
    """Turn what the exporter raises for a model into one ModelError."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    # A boundary: exporters fail in many ways, none of them ours.
    except Exception as error:  # noqa: BLE001
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"the base of {bundle} cannot be exported: {lines[0][:300]}", _name_itself(bundle)
        ) from None


def _name_itself(bundle: Path) -> str:
    return f"Name {bundle} itself as the base, which torch computes"


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a model takes the matrices of adapters."""

    layers: list[Layer]
    """Those that adapters change."""
    head: list[Layer]
    """The inner ones of the head."""
    rank: int


def _adapted_layers(adapter: Adapter) -> list[Layer]:
    layers = []
    for name, pair in adapter.pairs.items():
        layers.append(Layer(name, inputs=pair.down.shape[1], outputs=len(pair.up)))
    return layers


def _inner_layers(bundle: Path, adapter: Adapter) -> list[Layer]:
    layers = []
    for name, layer in read_head(bundle, adapter).inner.items():
        outputs, inputs = layer.weight.shape
        layers.append(Layer(name, inputs, outputs))
    return layers


def _without_adapter(own: TorchAdapter, plan: Plan) -> TorchAdapter:
    """What the slot without an adapter computes."""
    inner = {}
    for layer in plan.head:
        weight, bias = own.inner[layer.name]
        inner[layer.name] = (torch.from_numpy(pass_on(layer)).to(weight), torch.zeros_like(bias))
    return TorchAdapter(own.last, factors={}, inner=inner)


class SlotLayer(nn.Module):
    """A linear layer with a pair of matrices for each row of the batch.

    Of a layer of the trunk they are (rows, inputs, rank) and (rows, rank, outputs) of LoRA, which
    add to what it gives. A layer of the head is replaced, by (rows, inputs, outputs) and
    (rows, 1, outputs).
    """

    def __init__(self, layer: nn.Linear, is_replaced: bool) -> None:
        super().__init__()
        self.layer = layer
        self.is_replaced = is_replaced
        self.pair: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(rows, length, outputs) of (rows, length, inputs), also without the axis of length."""
        assert self.pair is not None
        first, second = self.pair
        # The products with a matrix of each row need the axis.
        has_length = inputs.dim() == 3
        read = inputs if has_length else inputs.unsqueeze(1)

        output: torch.Tensor
        if self.is_replaced:
            output = read @ first + second
        else:
            output = self.layer(read) + read @ first @ second
        return output if has_length else output.squeeze(1)


class SlotModel(nn.Module):
    """A classifier that takes the stacks of adapters, and the slot of each row."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.model = model
        self._layers: list[SlotLayer] = []
        for layer in plan.layers:
            self._layers.append(_put_slots(model, layer.name, is_replaced=False))
        for layer in plan.head:
            self._layers.append(_put_slots(model, layer.name, is_replaced=True))

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        slots: torch.Tensor,
        first: list[torch.Tensor],
        second: list[torch.Tensor],
    ) -> torch.Tensor:
        """The (rows, labels) logits of the base's own last layer."""
        for layer, firsts, seconds in zip(self._layers, first, second, strict=True):
            layer.pair = (firsts.index_select(0, slots), seconds.index_select(0, slots))
        logits: torch.Tensor = self.model(**inputs).logits
        return logits


def _put_slots(model: nn.Module, name: str, is_replaced: bool) -> SlotLayer:
    """Put a layer with slots in the place of a linear layer."""
    place, _, own = name.rpartition(".")
    parent = model.get_submodule(place)
    layer = SlotLayer(getattr(parent, own), is_replaced)
    setattr(parent, own, layer)
    return layer


def _write_graph(bundle: Path, plan: Plan, folder: Path) -> None:
    """Write the graph, the tokenizer and the settings of an exported base."""
    labels = LabelSchema.load(bundle / layout.LABELS)
    base = bundle / layout.base_folder(labels)
    predictor = Predictor.load(layout.Checkpoint(bundle, labels, base, None, None))
    example = encode_example(predictor.tokenizer)

    graph, width = _trace(predictor.model.cpu(), plan, example)
    backbone = layout.read_manifest(bundle).base_model or ""
    write_inputs(predictor, backbone, folder, list(example), width)
    ir.save(graph, folder / GRAPH)


def _trace(model: nn.Module, plan: Plan, example: dict[str, torch.Tensor]) -> tuple[ir.Model, int]:
    """The graph that gives the features, and their width."""
    # Two slots: the exporter takes a size of 1 for a constant.
    shapes = Stacks(plan.layers, plan.head, plan.rank).feeds
    stacks = [torch.zeros(2, *shape.shape[1:]) for shape in shapes.values()]
    slots = torch.zeros(len(example["input_ids"]), dtype=torch.int64)
    arguments = {INPUTS: example, SLOTS: slots, FIRST: stacks[::2], SECOND: stacks[1::2]}
    of_slots = [{0: "slots"} for _ in stacks[::2]]
    open_axes = {
        INPUTS: {name: {0: "batch", 1: "seq"} for name in example},
        SLOTS: {0: "batch"},
        FIRST: of_slots,
        SECOND: of_slots,
    }
    use_plain_attention(model)
    graph = trace(SlotModel(model, plan), arguments, open_axes)

    width = add_features(graph.graph)
    if width == 0:
        raise ModelError("the exported graph gives no features", ALONE)
    # Heads are computed apart, each with its own number of labels.
    del graph.graph.outputs[0]
    RemoveUnusedNodesPass()(graph)
    narrow_to_first_token(graph)
    _name_inputs(graph.graph, list(example), list(shapes))
    return graph, width


def _name_inputs(graph: ir.Graph, texts: list[str], stacks: list[str]) -> None:
    """Name the inputs as they are fed; the exporter names them by their place in the arguments."""
    names = {f"{INPUTS}_{name}": name for name in texts}
    pairs = zip(stacks[::2], stacks[1::2], strict=True)
    for number, (first, second) in enumerate(pairs):
        names[f"{FIRST}_{number}"] = first
        names[f"{SECOND}_{number}"] = second
    for value in graph.inputs:
        assert value.name is not None
        value.name = names.get(value.name, value.name)


def _write_record(folder: Path, reference: TorchBase, none: TorchAdapter, plan: Plan) -> BaseRecord:
    answers = reference.compute([(none, item) for item in reference.tokenize(list(PROBES))])
    probes = [_features(answer)[0].tolist() for answer in answers]
    hashes = {name: files.sha256(folder / name) for name in CONTENT}
    record = BaseRecord(reference.trunk, plan.layers, plan.head, plan.rank, probes, hashes)
    files.write_text(folder / RECORD, files.json_text(dataclasses.asdict(record)))
    return record


def _compare(
    reference: TorchBase, adapters: list[TorchAdapter], exported: ExportedBase, bundle: Path
) -> float:
    """The largest difference of a logit or feature between the two bases.

    In one batch are texts with the bundle's adapter and without one; `adapters` are these in torch.
    """
    own = exported.read(bundle)
    placed = [own, SlotAdapter(own.last, NO_ADAPTER)]

    # Neighbours in the batch differ in length and in their adapters.
    texts = [*PROBES, *PROBES]
    expected = reference.compute(_in_turn(adapters, reference.tokenize(texts)))
    found = exported.compute(_in_turn(placed, exported.tokenize(texts)))
    return max(map(_difference, expected, found))


def _in_turn(adapters: list[Any], items: list[Tokens]) -> list[tuple[Any, Tokens]]:
    return list(zip(itertools.cycle(adapters), items, strict=False))


def _difference(expected: Outputs, found: Outputs) -> float:
    logits = np.abs(expected.logits - found.logits).max()
    features = np.abs(_features(expected) - _features(found)).max()
    return float(max(logits, features))


def _features(outputs: Outputs) -> Features:
    if outputs.features is None:
        raise ModelError("its last layer does not read one vector of each text", ALONE)
    return outputs.features
