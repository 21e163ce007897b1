"""Eight-bit matrix products with fixed scales, so that an answer does not depend on the batch.

Scales of activations are measured once, on training sentences (static quantisation), where
`quantize_dynamic` takes them from each batch. Channels that are much larger than the others are
evened out into the weights first (SmoothQuant, Xiao et al., 2023), by the power that loses least
for each input, searched as in AWQ (Lin et al., 2024). The graph gets ONNX's own QuantizeLinear and
DequantizeLinear; only products with constant weights are touched.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bankintent.inference.engines import Feeds, import_onnxruntime

Array = NDArray[np.float32]
POWERS = (0.0, 0.5, 0.65, 0.8, 0.9)
"""How much of the unevenness of channels goes into the weights: 0 none of it, 1 all."""
SHARES = (1.0, 0.9, 0.8, 0.65, 0.5, 0.35)
"""Shares of the observed range that a scale may cover: rare large values are clipped where that
costs less."""
SAMPLES = 512
"""Rows that a choice is measured on: each is multiplied once for every power."""
SMALLEST_CHANNEL = 1e-5
"""Size of a channel that is zero everywhere, so that nothing is divided by zero."""


@dataclass(frozen=True)
class Scheme:
    """The quantisation of one activation: evened out, then rounded to unsigned 8 bits."""

    even: Array | None
    """(channels,) divisors that even the channels out; None for none."""
    scale: np.float32
    zero: np.uint8


def products(model: ir.Model) -> dict[ir.Value, list[ir.Node]]:
    """The activations of shape (batch, positions, channels) and their products with weights."""
    nodes: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph:
        if node.op_type != "MatMul":
            continue
        activation, weight = node.inputs
        if _is_activation(activation) and _is_weight(weight):
            assert activation is not None
            nodes.setdefault(activation, []).append(node)
    return nodes


def _is_activation(value: ir.Value | None) -> bool:
    if value is None or value.shape is None:
        return False
    return len(value.shape) == 3 and value.shape[0] == "batch"


def _is_weight(value: ir.Value | None) -> bool:
    if value is None or value.shape is None:
        return False
    return value.is_initializer() and len(value.shape) == 2


def observe(source: Path, batches: Iterable[Feeds], scratch: Path) -> dict[str, Array]:
    """Name of each activation in `products` -> its (tokens, channels) values, without padding.

    `scratch` is a file for the model that has them as outputs.
    """
    onnxruntime = import_onnxruntime()
    model = ir.load(source)
    activations = list(products(model))
    names = [str(value.name) for value in activations]
    model.graph.outputs.extend(activations)
    ir.save(model, scratch)
    session = onnxruntime.InferenceSession(str(scratch), providers=["CPUExecutionProvider"])

    parts: dict[str, list[Array]] = {name: [] for name in names}
    for feeds in batches:
        mask = feeds["attention_mask"].astype(bool)
        outputs = session.run(names, feeds)
        for name, values in zip(names, outputs, strict=True):
            parts[name].append(_without_padding(values, mask))
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _without_padding(values: Array, mask: NDArray[np.bool_]) -> Array:
    """(tokens, channels) rows of (batch, positions, channels) values."""
    is_narrow = values.shape[1] != mask.shape[1]
    # A narrowed operation has the first position alone, which is never padding.
    if is_narrow:
        return values[:, 0]
    return values[mask]


def quantise(source: Path, target: Path, observed: dict[str, Array]) -> int:
    """Write the int8 model; returns how many matrix products it has."""
    model = ir.load(source)
    graph = model.graph
    count = 0
    for index, (value, nodes) in enumerate(products(model).items()):
        weights = [_weight_of(node) for node in nodes]
        # Queries, keys and values are products of one activation: they share its scheme.
        joined = np.concatenate(weights, axis=1)
        scheme = choose_scheme(observed[str(value.name)], joined)
        activation = _quantise_value(graph, nodes[0], value, scheme, f"quantised_{index}")

        for place, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
            name = f"weight_{index}_{place}"
            rounded = _quantise_weight(graph, node, weight, scheme, name)
            node.replace_input_with(0, activation)
            node.replace_input_with(1, rounded)
            count += 1

    # The float32 weights would be saved with the graph.
    unused = [name for name, value in graph.initializers.items() if not value.uses()]
    for name in unused:
        del graph.initializers[name]
    ir.save(model, target)
    return count


def choose_scheme(values: Array, weight: Array) -> Scheme:
    """The scheme with the smallest error in the product of values and weight.

    `values` are (tokens, channels), `weight` is (channels, outputs).
    """
    # A fixed seed: the same model is exported to the same bytes.
    generator = np.random.default_rng(0)
    order = generator.permutation(len(values))
    rows = values[order[:SAMPLES]]
    exact = rows @ weight

    schemes = []
    losses = []
    for power in POWERS:
        scheme = fit_scheme(values, rows, weight, power)
        error = simulate(rows, weight, scheme) - exact
        schemes.append(scheme)
        losses.append(float(np.square(error).mean()))
    return schemes[int(np.argmin(losses))]


def fit_scheme(values: Array, rows: Array, weight: Array, power: float) -> Scheme:
    """The scheme for a power; its range is searched on `rows`, a sample of `values`."""
    even = None
    if power > 0:
        even = _channel_divisors(values, weight, power)
        values = values / even
        rows = rows / even
        weight = weight * even[:, None]

    # The range holds 0, because zero itself must be one of its 256 steps.
    low = min(float(values.min()), 0.0)
    high = max(float(values.max()), 1e-6)

    # An error in a channel counts by what it does to the outputs.
    importance = np.sqrt(np.square(weight).sum(axis=1))

    best = None
    smallest = float("inf")
    for below in SHARES:
        for above in SHARES:
            scheme = _scheme_for_range(even, low * below, high * above)
            error = _round_values(rows, scheme) - rows
            loss = float(np.square(error * importance).mean())
            if best is None or loss < smallest:
                best = scheme
                smallest = loss
    assert best is not None
    return best


def _channel_divisors(values: Array, weight: Array, power: float) -> Array:
    """(channels,) divisors of SmoothQuant, with a geometric mean of 1."""
    value_sizes = np.abs(values).max(axis=0)
    value_sizes = np.maximum(value_sizes, SMALLEST_CHANNEL)
    weight_sizes = np.abs(weight).max(axis=1)
    weight_sizes = np.maximum(weight_sizes, SMALLEST_CHANNEL)

    divisors = value_sizes**power
    divisors /= weight_sizes ** (1 - power)
    # Only the ratios of the channels matter: the scale is fitted afterwards.
    geometric_mean = np.exp(np.log(divisors).mean())
    divisors /= geometric_mean
    return np.asarray(divisors, dtype=np.float32)


def _scheme_for_range(even: Array | None, low: float, high: float) -> Scheme:
    scale = np.float32((high - low) / 255)
    zero = np.uint8(round(-low / float(scale)))
    return Scheme(even, scale, zero)


def _round_values(rows: Array, scheme: Scheme) -> Array:
    """Evened values to 8 bits and back."""
    zero = np.float32(scheme.zero)
    steps = np.clip(np.round(rows / scheme.scale) + zero, 0, 255)
    return np.asarray((steps - zero) * scheme.scale)


def simulate(rows: Array, weight: Array, scheme: Scheme) -> Array:
    """(tokens, outputs) product of values and weight as the int8 model computes it."""
    even = np.float32(1) if scheme.even is None else scheme.even
    steps, scale = _round_weight(weight, scheme)
    return np.asarray(_round_values(rows / even, scheme) @ (steps * scale))


def _round_weight(weight: Array, scheme: Scheme) -> tuple[NDArray[np.int8], Array]:
    """Signed 8 bits and one scale for each output; the evened channels are multiplied back."""
    if scheme.even is not None:
        weight = weight * scheme.even[:, None]

    largest = np.abs(weight).max(axis=0)
    # An output without any weight has no scale of its own.
    scale = np.maximum(largest / 127, 1e-12)
    scale = scale.astype(np.float32)

    # -128 is left out, so that the range is the same on both sides of zero.
    steps = np.round(weight / scale)
    steps = np.clip(steps, -127, 127)
    return steps.astype(np.int8), scale


def _weight_of(node: ir.Node) -> Array:
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), dtype=np.float32)


def _quantise_value(
    graph: ir.Graph, before: ir.Node, value: ir.Value, scheme: Scheme, name: str
) -> ir.Value:
    """Insert the rounding of an activation; returns the rounded value."""
    if scheme.even is not None:
        # A multiplication is faster than a division.
        factors = (1 / scheme.even).astype(np.float32)
        inverse = _add_constant(graph, f"{name}_even", factors)
        node = ir.node("Mul", [value, inverse])
        value = _insert_like(graph, before, node, value, ir.DataType.FLOAT)

    scale = _add_constant(graph, f"{name}_scale", scheme.scale)
    zero = _add_constant(graph, f"{name}_zero", scheme.zero)

    node = ir.node("QuantizeLinear", [value, scale, zero])
    steps = _insert_like(graph, before, node, value, ir.DataType.UINT8)

    node = ir.node("DequantizeLinear", [steps, scale, zero])
    return _insert_like(graph, before, node, value, ir.DataType.FLOAT)


def _quantise_weight(
    graph: ir.Graph, node: ir.Node, weight: Array, scheme: Scheme, name: str
) -> ir.Value:
    """Insert the 8-bit weight of a product; returns its value in float32."""
    original = node.inputs[1]
    assert original is not None

    steps, scale = _round_weight(weight, scheme)
    zeros = np.zeros(scale.shape, dtype=np.int8)
    inputs = [
        _add_constant(graph, name, steps),
        _add_constant(graph, f"{name}_scale", scale),
        _add_constant(graph, f"{name}_zero", zeros),
    ]
    dequantise = ir.node("DequantizeLinear", inputs, {"axis": 1})
    return _insert_like(graph, node, dequantise, original, ir.DataType.FLOAT)


def _insert_like(
    graph: ir.Graph, before: ir.Node, node: ir.Node, like: ir.Value, dtype: ir.DataType
) -> ir.Value:
    """Insert a node whose output has the shape of another value; returns the output."""
    graph.insert_before(before, node)
    output = node.outputs[0]
    output.shape = like.shape
    output.type = ir.TensorType(dtype)
    return output


def _add_constant(graph: ir.Graph, name: str, array: np.ndarray | np.generic) -> ir.Value:
    tensor = ir.tensor(np.asarray(array))
    value = ir.Value(
        name=name,
        shape=ir.Shape(np.shape(array)),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
