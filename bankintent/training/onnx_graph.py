"""An exact rewrite of an exported graph: what the classifier never reads is not computed.

A classifier of the BERT family reads position 0 of the last layer only. Nearly every operation in that layer works on
each position by itself, so the selection of position 0 can be made before it instead of behind it, up to the queries of
the attention; only keys and values still need all positions.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

UNARY = {"Cast", "Erf", "Gelu", "Identity", "IsNaN", "Neg", "Not", "Relu", "Sigmoid", "Sqrt", "Tanh"}
BROADCAST = {"Add", "And", "Div", "Mul", "Or", "Pow", "Sub", "Where"}
OVER_LAST_AXIS = {"LayerNormalization", "Softmax", "RMSNormalization"}


def narrow_to_first_token(model: ir.Model) -> int:
    """Rewrite in place; returns how many operations now work on one position instead of all.

    The results are the same to the last bit wherever an operation's kernel treats rows alike.
    """
    count = 0
    for node in list(model.graph):
        source = _first_position(node)
        if source is not None:
            narrowing = _Narrowing(model.graph, before=node)
            node.replace_input_with(0, narrowing.of(source, 1))
            count += narrowing.moved
    RemoveUnusedNodesPass()(model)
    return count


def _first_position(node: ir.Node) -> ir.Value | None:
    """The (batch, positions, hidden) input of a node that selects position 0."""
    if node.op_type != "Gather" or _axis(node, default=0) != 1:
        return None
    index = ir.convenience.get_const_tensor(node.inputs[1])
    hidden = node.inputs[0]
    if index is None or index.numpy().shape != () or index.numpy().item() != 0:
        return None
    return hidden if hidden.shape is not None and len(hidden.shape) == 3 else None


def _axis(node: ir.Node, default: int) -> int:
    """The `axis` attribute, counted from the front."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else default
    shape = node.inputs[0].shape
    return axis + len(shape) if axis < 0 and shape is not None else axis


class _Narrowing:
    """Builds the values `value[..., :1, ...]` on an axis, with new nodes in front of one node."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self.graph, self.before, self.moved = graph, before, 0
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}

    def of(self, value: ir.Value, axis: int) -> ir.Value:
        """The first slice of a value along an axis: its operation on narrowed inputs where that is the same."""
        if (value, axis) not in self._made:
            node = value.producer()
            rule = self._rule(node, axis) if node is not None and value.shape is not None else None
            inputs = rule() if rule is not None else None
            if node is None or inputs is None:
                self._made[value, axis] = self._slice(value, axis)
            else:
                self.moved += 1
                outputs = self._add(node.op_type, inputs, dict(node.attributes), node)
                self._made |= {(old, axis): new for old, new in zip(node.outputs, outputs, strict=True)}
        return self._made[value, axis]

    def _rule(self, node: ir.Node, axis: int) -> Callable[[], list[ir.Value | None] | None] | None:
        """How an operation's inputs must be narrowed so that its outputs are, or None where it is not known."""
        rank = len(node.outputs[0].shape or ())
        first, *others = node.inputs
        if node.domain:
            return None
        if node.op_type in UNARY:
            return lambda: [self.of(first, axis)]
        if node.op_type in BROADCAST:
            return lambda: [self._broadcast(value, axis - rank) for value in node.inputs]
        if node.op_type in OVER_LAST_AXIS and _axis(node, default=-1) == rank - 1 != axis:
            return lambda: [self.of(first, axis), *others]
        if node.op_type == "Split" and _axis(node, default=0) != axis:
            return lambda: [self.of(first, axis), *others]
        if node.op_type == "MatMul" and axis == rank - 2 and len(first.shape or ()) == rank:
            return lambda: [self.of(first, axis), *others]
        if node.op_type == "Transpose":
            return lambda: [self.of(first, node.attributes["perm"].as_ints()[axis])]
        if node.op_type == "Reshape":
            return lambda: self._reshape(node, axis)
        return None

    def _broadcast(self, value: ir.Value | None, from_end: int) -> ir.Value | None:
        """An input of a broadcasting operation; one without the axis, or of length 1 on it, is the same for all."""
        shape = None if value is None else value.shape
        if value is None or shape is None or len(shape) < -from_end or shape[from_end] == 1:
            return value
        return self.of(value, len(shape) + from_end)

    def _reshape(self, node: ir.Node, axis: int) -> list[ir.Value | None] | None:
        """A reshape that leaves the axis whole: what stands before it, or behind it, is the same on both sides."""
        value, target = node.inputs
        old, new = (None if v.shape is None else [str(dim) for dim in v.shape] for v in (value, node.outputs[0]))
        if old is None or new is None or "None" in old + new or "allowzero" not in node.attributes:
            return None
        if old[: axis + 1] == new[: axis + 1]:
            source = axis
        elif old[axis - len(new) :] == new[axis:]:
            source = axis + len(old) - len(new)
        else:
            return None
        one, edge = self._constant([1]), [self._constant([bound]) for bound in (0, axis, axis + 1, len(new))]
        (front,), (back,) = (self._add("Slice", [target, *edge[i : i + 2]], {}) for i in (0, 2))
        return [self.of(value, source), *self._add("Concat", [front, one, back], {"axis": ir.AttrInt64("axis", 0)})]

    def _slice(self, value: ir.Value, axis: int) -> ir.Value:
        return self._add("Slice", [value, *(self._constant([number]) for number in (0, 1, axis))], {})[0]

    def _add(
        self, kind: str, inputs: list[ir.Value | None], attributes: dict[str, ir.Attr], like: ir.Node | None = None
    ) -> list[ir.Value]:
        """Put a new node in front; its outputs have the types of those of the node that it is like."""
        node = ir.node(kind, inputs, attributes, num_outputs=len(like.outputs) if like else 1)
        self.graph.insert_before(self.before, node)
        for new, old in zip(node.outputs, like.outputs if like else node.outputs, strict=True):
            new.type = old.type
        return list(node.outputs)

    def _constant(self, numbers: list[int]) -> ir.Value:
        tensor = ir.tensor(np.array(numbers, dtype=np.int64))
        name = "first_" + "_".join(map(str, numbers))
        if name not in self.graph.initializers:
            self.graph.register_initializer(ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor))
        return self.graph.initializers[name]
