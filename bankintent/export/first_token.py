"""An exact rewrite of an exported graph: what the classifier never reads is not computed.

A classifier of the BERT family reads position 0 of the last layer only. Nearly every operation of
that layer works on each position by itself, so that position 0 can be selected before the operation
instead of after it, up to the queries of the attention; only keys and values still need all
positions. About a sixth of the last layer is left to compute.

An operation is narrowed on an axis where index 0 of its result on that axis is enough.
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

BY_ELEMENT = {
    "Add",
    "And",
    "Cast",
    "Div",
    "Erf",
    "Gelu",
    "Identity",
    "IsNaN",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Relu",
    "Sigmoid",
    "Sqrt",
    "Sub",
    "Tanh",
    "Where",
}
"""Operations that compute each element from the same element of every input, with broadcasting."""
BY_ROW = {"LayerNormalization", "RMSNormalization", "Softmax"}
"""Operations along the last axis."""
ALL = -1
"""A value is needed as a whole; any other number is the axis of which index 0 is enough."""

Cuts = dict[int, int]
"""Inputs of an operation that may be cut to index 0: number of the input -> axis."""


def narrow_to_first_token(model: ir.Model) -> int:
    """Rewrite a model in place; returns how many operations are narrowed."""
    nodes = list(model.graph)
    # A subgraph reads values from outside itself, which the plan does not follow.
    if any(_has_subgraph(node) for node in nodes):
        return 0

    plans = _plan(nodes, model.graph.outputs)
    axes = {}
    for node, (axis, _) in plans.items():
        if axis != ALL:
            axes.update(dict.fromkeys(node.outputs, axis))

    for node, (axis, cuts) in plans.items():
        for index, cut_axis in cuts.items():
            value = node.inputs[index]
            assert value is not None
            if value not in axes:
                first = _select_first(model.graph, node, value, cut_axis)
                node.replace_input_with(index, first)
        if node.op_type == "Reshape":
            node.replace_input_with(1, _shape_with_one(model.graph, node, axis))

    for value, axis in axes.items():
        if value.shape is not None:
            dimensions = list(value.shape)
            dimensions[axis] = 1
            value.shape = ir.Shape(dimensions)
    return len({value.producer() for value in axes})


def _has_subgraph(node: ir.Node) -> bool:
    kinds = {attribute.type for attribute in node.attributes.values()}
    return ir.AttributeType.GRAPH in kinds or ir.AttributeType.GRAPHS in kinds


def _plan(nodes: list[ir.Node], outputs: Iterable[ir.Value]) -> dict[ir.Node, tuple[int, Cuts]]:
    """Decide backwards from the outputs which operations are narrowed.

    Returns for each its axis and its cuts. The selection itself gets the axis ALL, because its
    result stays as it is.
    """
    demands = dict.fromkeys(outputs, ALL)
    plans: dict[ir.Node, tuple[int, Cuts]] = {}
    for node in reversed(nodes):
        axis = _common_demand(node, demands)
        cuts = _find_cuts(node, axis)
        if cuts is not None:
            plans[node] = (axis, cuts)

        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            demand = ALL if cuts is None else cuts.get(index, ALL)
            # Two users that need different parts need the whole.
            agrees = demands.get(value, demand) == demand
            demands[value] = demand if agrees else ALL
    return plans


def _common_demand(node: ir.Node, demands: dict[ir.Value, int]) -> int:
    """The axis on which all outputs that are used may be narrowed; ALL where there is none."""
    axes = {demands[value] for value in node.outputs if value in demands}
    if len(axes) == 1:
        return axes.pop()
    return ALL


def _find_cuts(node: ir.Node, axis: int) -> Cuts | None:
    """The inputs that may be cut where the outputs are needed on an axis; None where none may."""
    if axis != ALL:
        return _rule(node, axis)
    if _selects_first(node):
        return {0: 1}
    return None


def _selects_first(node: ir.Node) -> bool:
    """Whether a node is `hidden[:, 0]` of a (batch, positions, hidden) value."""
    if node.op_type != "Gather" or _num_dimensions(node.inputs[0]) != 3 or _axis(node, 0) != 1:
        return False

    index = node.inputs[1]
    constant = None if index is None else ir.convenience.get_const_tensor(index)
    if constant is None:
        return False
    array = constant.numpy()
    return array.shape == () and array.item() == 0


def _rule(node: ir.Node, axis: int) -> Cuts | None:
    """The cuts with which the outputs become their first slice on an axis; None without a rule."""
    rank = _num_dimensions(node.outputs[0])
    inputs = [value for value in node.inputs if value is not None]
    if node.domain or rank is None or any(_num_dimensions(value) is None for value in inputs):
        return None

    operation = node.op_type
    last = rank - 1
    if operation in BY_ELEMENT:
        return _element_rule(node, axis - rank)
    if operation in BY_ROW and _axis(node, -1) == last and axis != last:
        return {0: axis}
    if operation == "Split" and _axis(node, 0) != axis:
        return {0: axis}
    # A row of a product needs that row of the left input and all of the right one.
    if operation == "MatMul" and axis == last - 1 and _num_dimensions(node.inputs[0]) == rank:
        return {0: axis}
    if operation == "Transpose":
        return {0: node.attributes["perm"].as_ints()[axis]}
    if operation == "Reshape":
        return _reshape_rule(node, axis)
    return None


def _element_rule(node: ir.Node, from_end: int) -> Cuts:
    """The cuts of an operation by element, on an axis that is counted from the end."""
    cuts = {}
    for index, value in enumerate(node.inputs):
        axis = _own_axis(value, from_end)
        if axis is not None:
            cuts[index] = axis
    return cuts


def _own_axis(value: ir.Value | None, from_end: int) -> int | None:
    """The axis of a broadcast input; None where it lacks the axis or is of length 1 on it."""
    rank = _num_dimensions(value)
    if value is None or value.shape is None or rank is None:
        return None
    if rank < -from_end:
        return None
    # All its elements on the axis are one and the same.
    if value.shape[from_end] == 1:
        return None
    return rank + from_end


def _reshape_rule(node: ir.Node, axis: int) -> Cuts | None:
    """The cut of a reshape that leaves the axis whole.

    It does where everything before the axis, or everything after it, is the same on both sides.
    """
    old = _dimensions(node.inputs[0])
    new = _dimensions(node.outputs[0])
    # With allowzero a target shape is taken literally; otherwise 0 means "as before".
    literal = "allowzero" in node.attributes and node.attributes["allowzero"].as_int() == 1
    if not literal or "None" in old + new:
        return None

    if old[: axis + 1] == new[: axis + 1]:
        return {0: axis}
    from_end = axis - len(new)
    if old[from_end:] == new[from_end:]:
        return {0: len(old) + from_end}
    return None


def _dimensions(value: ir.Value | None) -> list[str]:
    if value is None:
        return []
    return [str(dimension) for dimension in value.shape or ()]


def _num_dimensions(value: ir.Value | None) -> int | None:
    if value is None or value.shape is None:
        return None
    return len(value.shape)


def _axis(node: ir.Node, default: int) -> int:
    """The `axis` attribute, counted from the front."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else default
    if axis < 0:
        return axis + (_num_dimensions(node.inputs[0]) or 0)
    return axis


def _select_first(graph: ir.Graph, before: ir.Node, value: ir.Value, axis: int) -> ir.Value:
    """`value[..., :1, ...]`."""
    return _insert_before(before, graph, _slice(graph, value, 0, 1, axis))


def _shape_with_one(graph: ir.Graph, reshape: ir.Node, axis: int) -> ir.Value:
    """The shape that a reshape makes, with 1 on the axis."""
    shape = reshape.inputs[1]
    rank = _num_dimensions(reshape.outputs[0])
    assert shape is not None
    assert rank is not None

    before_axis = _slice(graph, shape, 0, axis)
    front = _insert_before(reshape, graph, before_axis)
    after_axis = _slice(graph, shape, axis + 1, rank)
    back = _insert_before(reshape, graph, after_axis)

    one = _int64_constant(graph, 1)
    joined = ir.node("Concat", [front, one, back], {"axis": 0})
    return _insert_before(reshape, graph, joined)


def _slice(graph: ir.Graph, value: ir.Value, *bounds: int) -> ir.Node:
    """A slice from a start to an end, on the first axis or on a third number."""
    constants = [_int64_constant(graph, bound) for bound in bounds]
    return ir.node("Slice", [value, *constants])


def _insert_before(before: ir.Node, graph: ir.Graph, node: ir.Node) -> ir.Value:
    graph.insert_before(before, node)
    return node.outputs[0]


def _int64_constant(graph: ir.Graph, number: int) -> ir.Value:
    """A vector of one number; the same number is one constant of the graph."""
    name = f"constant_{number}"
    if name not in graph.initializers:
        tensor = ir.tensor(np.array([number], dtype=np.int64))
        value = ir.Value(
            name=name,
            shape=ir.Shape([1]),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        graph.register_initializer(value)
    return graph.initializers[name]
