"""An exact rewrite of an exported graph: what the classifier never reads is not computed.

A classifier of the BERT family reads position 0 of the last layer only. Nearly every operation of that layer works on
each position by itself, so position 0 can be selected before it instead of behind it, up to the queries of the
attention; only keys and values still need all positions. Of the last layer about a sixth is left to do.
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

BY_ELEMENT = {"Add", "And", "Cast", "Div", "Erf", "Gelu", "Identity", "IsNaN", "Mul", "Neg", "Not", "Or", "Pow"} | {
    "Relu", "Sigmoid", "Sqrt", "Sub", "Tanh", "Where"
}  # fmt: skip
BY_ROW = {"LayerNormalization", "RMSNormalization", "Softmax"}
ALL = -1
"""The demand for a value as a whole, where any other number is the axis of which index 0 is enough."""

Plan = dict[int, int]
"""Of an operation: which inputs may be cut to index 0, and on which axis."""


def narrow_to_first_token(model: ir.Model) -> int:
    """Rewrite in place; returns how many operations now work on one position instead of all of them."""
    nodes = list(model.graph)
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for n in nodes
        for attribute in n.attributes.values()
    ):
        return 0
    plans = _plan(nodes, model.graph.outputs)
    narrowed = {
        value: axis for node, (axis, _) in plans.items() if axis != ALL for value in node.outputs
    }
    for node, (axis, plan) in plans.items():
        for index, wanted in plan.items():
            value = node.inputs[index]
            assert value is not None
            if value not in narrowed:
                node.replace_input_with(index, _first(model.graph, node, value, wanted))
        if node.op_type == "Reshape":
            node.replace_input_with(1, _with_one(model.graph, node, axis))
    for value, axis in narrowed.items():
        value.shape = ir.Shape(
            [1 if place == axis else dim for place, dim in enumerate(value.shape or ())]
        )
    return len({value.producer() for value in narrowed})


def _plan(nodes: list[ir.Node], outputs: Iterable[ir.Value]) -> dict[ir.Node, tuple[int, Plan]]:
    """Backwards from the outputs: each operation that need not be done in full, the axis that it is narrowed on (ALL
    for the selection itself, whose result stays as it is), and its plan."""
    demands = dict.fromkeys(outputs, ALL)
    plans: dict[ir.Node, tuple[int, Plan]] = {}
    for node in reversed(nodes):
        wanted = {demands[value] for value in node.outputs if value in demands}
        axis = wanted.pop() if len(wanted) == 1 else ALL
        plan = _rule(node, axis) if axis != ALL else {0: 1} if _selects_first(node) else None
        if plan is not None:
            plans[node] = axis, plan
        for index, value in enumerate(node.inputs):
            if value is not None:
                demand = (plan or {}).get(index, ALL)
                demands[value] = demand if demands.get(value, demand) == demand else ALL
    return plans


def _selects_first(node: ir.Node) -> bool:
    """Whether a node is `hidden[:, 0]` of a (batch, positions, hidden) value."""
    if node.op_type != "Gather" or _rank(node.inputs[0]) != 3 or _axis(node, 0) != 1:
        return False
    index = node.inputs[1]
    constant = None if index is None else ir.convenience.get_const_tensor(index)
    return constant is not None and constant.numpy().shape == () and constant.numpy().item() == 0


def _rule(node: ir.Node, axis: int) -> Plan | None:
    """How inputs may be cut so that the outputs are the first slice on an axis; None where it is not known."""
    rank = _rank(node.outputs[0])
    if (
        node.domain
        or rank is None
        or any(_rank(value) is None for value in node.inputs if value is not None)
    ):
        return None
    if node.op_type in BY_ELEMENT:
        return {
            i: place
            for i, value in enumerate(node.inputs)
            if (place := _own_axis(value, axis - rank)) is not None
        }
    if node.op_type in BY_ROW:
        return {0: axis} if _axis(node, -1) == rank - 1 != axis else None
    if node.op_type == "Split":
        return {0: axis} if _axis(node, 0) != axis else None
    if node.op_type == "MatMul":
        return {0: axis} if axis == rank - 2 and _rank(node.inputs[0]) == rank else None
    if node.op_type == "Transpose":
        return {0: node.attributes["perm"].as_ints()[axis]}
    return _reshape_rule(node, axis) if node.op_type == "Reshape" else None


def _own_axis(value: ir.Value | None, from_end: int) -> int | None:
    """The axis of a broadcast input; None where it lacks the axis, or is of length 1 on it and so the same for all."""
    if (
        value is None
        or value.shape is None
        or len(value.shape) < -from_end
        or value.shape[from_end] == 1
    ):
        return None
    return len(value.shape) + from_end


def _reshape_rule(node: ir.Node, axis: int) -> Plan | None:
    """A reshape that leaves the axis whole: what stands before it, or behind it, is the same on both sides."""
    old, new = (
        [str(dim) for dim in value.shape or ()]
        for value in (node.inputs[0], node.outputs[0])
        if value
    )
    literal = "allowzero" in node.attributes and node.attributes["allowzero"].as_int() == 1
    if not literal or "None" in old + new:
        return None
    if old[: axis + 1] == new[: axis + 1]:
        return {0: axis}
    return {0: axis + len(old) - len(new)} if old[axis - len(new) :] == new[axis:] else None


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _axis(node: ir.Node, default: int) -> int:
    """The `axis` attribute, counted from the front."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else default
    return axis + (_rank(node.inputs[0]) or 0) if axis < 0 else axis


def _first(graph: ir.Graph, before: ir.Node, value: ir.Value, axis: int) -> ir.Value:
    """`value[..., :1, ...]`."""
    return _insert(
        graph, before, ir.node("Slice", [value, *(_constant(graph, [n]) for n in (0, 1, axis))])
    )


def _with_one(graph: ir.Graph, reshape: ir.Node, axis: int) -> ir.Value:
    """The shape that a reshape makes, with 1 on the axis."""
    target, rank = reshape.inputs[1], _rank(reshape.outputs[0])
    assert target is not None
    assert rank is not None
    ends = [(0, axis), (axis + 1, rank)]
    parts = [ir.node("Slice", [target, *(_constant(graph, [n]) for n in pair)]) for pair in ends]
    front, back = (_insert(graph, reshape, part) for part in parts)
    return _insert(
        graph, reshape, ir.node("Concat", [front, _constant(graph, [1]), back], {"axis": 0})
    )


def _insert(graph: ir.Graph, before: ir.Node, node: ir.Node) -> ir.Value:
    graph.insert_before(before, node)
    return node.outputs[0]


def _constant(graph: ir.Graph, numbers: list[int]) -> ir.Value:
    name = "constant_" + "_".join(map(str, numbers))
    if name not in graph.initializers:
        tensor = ir.tensor(np.array(numbers, dtype=np.int64))
        graph.register_initializer(
            ir.Value(
                name=name,
                shape=ir.Shape([len(numbers)]),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
        )
    return graph.initializers[name]
