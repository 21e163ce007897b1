"""Eight-bit matrix products with fixed scales, so that an answer is the same whatever stands beside it in the batch.

Scales of activations are measured once, on training sentences (static quantisation), where `quantize_dynamic` takes them
from each batch. Channels that are much larger than the others are evened out into the weights first (SmoothQuant, Xiao et
al., 2023), by the power that loses least for each input, searched as in AWQ (Lin et al., 2024). What is written are
ONNX's own QuantizeLinear and DequantizeLinear; only products with constant weights are touched.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bankintent.inference.exported_runtime import Feeds

Array = NDArray[np.float32]
POWERS = (0.0, 0.5, 0.65, 0.8, 0.9)
"""How much of the unevenness of channels goes into the weights: 0 none of it, 1 all."""
SHARES = (1.0, 0.9, 0.8, 0.65, 0.5, 0.35)
"""Of the observed range, what the scale may cover: rare large values are clipped where that costs less."""
SAMPLES = 512
"""Rows that a choice is measured on."""


@dataclass(frozen=True)
class Scheme:
    """How one activation is quantised: divided by `even` (per channel; None: not at all), then to unsigned 8 bits."""

    even: Array | None
    scale: np.float32
    zero: np.uint8


def products(model: ir.Model) -> dict[ir.Value, list[ir.Node]]:
    """Activations of shape (batch, positions, channels) and the matrix products of constant weights that take them."""
    found: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph:
        left, right = (node.inputs[0], node.inputs[1]) if node.op_type == "MatMul" else (None, None)
        if left is None or right is None or left.shape is None or len(left.shape) != 3:
            continue
        if (
            right.is_initializer()
            and right.shape is not None
            and len(right.shape) == 2
            and left.shape[0] == "batch"
        ):
            found.setdefault(left, []).append(node)
    return found


def observe(source: Path, batches: Iterable[Feeds], scratch: Path) -> dict[str, Array]:
    """(tokens, channels) values of each activation in `products`, by name; padding left out."""
    import onnxruntime

    model = ir.load(source)
    names = [str(value.name) for value in products(model)]
    model.graph.outputs.extend(products(model))
    ir.save(model, scratch)
    session = onnxruntime.InferenceSession(str(scratch), providers=["CPUExecutionProvider"])
    rows: dict[str, list[Array]] = {name: [] for name in names}
    for feeds in batches:
        mask = feeds["attention_mask"].astype(bool)
        for name, values in zip(names, session.run(names, feeds), strict=True):
            rows[name].append(values[mask] if values.shape[1] == mask.shape[1] else values[:, 0])
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def quantise(source: Path, target: Path, observed: dict[str, Array]) -> int:
    """Write the int8 model; returns how many matrix products it has."""
    model = ir.load(source)
    count = 0
    for index, (value, nodes) in enumerate(products(model).items()):
        weights = [_weight(node) for node in nodes]
        scheme = choose(observed[str(value.name)], np.concatenate(weights, axis=1))
        quantised = _quantise_value(model.graph, nodes[0], value, scheme, f"quantised_{index}")
        for place, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
            node.replace_input_with(0, quantised)
            node.replace_input_with(
                1, _quantise_weight(model.graph, node, weight, scheme, f"weight_{index}_{place}")
            )
            count += 1
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    ir.save(model, target)
    return count


def choose(values: Array, weight: Array) -> Scheme:
    """The scheme by which (tokens, channels) values lose least on their way through a (channels, outputs) weight."""
    rows = values[np.random.default_rng(0).permutation(len(values))[:SAMPLES]]
    exact = rows @ weight
    schemes = [_scheme(values, rows, weight, power) for power in POWERS]
    losses = [
        float(np.square(_simulate(rows, weight, scheme) - exact).mean()) for scheme in schemes
    ]
    return schemes[int(np.argmin(losses))]


def _scheme(values: Array, rows: Array, weight: Array, power: float) -> Scheme:
    even = None
    if power:
        channels = np.maximum(np.abs(values).max(axis=0), 1e-5) ** power
        channels /= np.maximum(np.abs(weight).max(axis=1), 1e-5) ** (1 - power)
        even = (channels / np.exp(np.log(channels).mean())).astype(np.float32)
        values, rows, weight = values / even, rows / even, weight * even[:, None]
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1e-6)
    schemes = [_range(even, low * below, high * above) for below in SHARES for above in SHARES]
    counts = np.sqrt(
        np.square(weight).sum(axis=1)
    )  # what an error in a channel does to the outputs
    return min(
        schemes, key=lambda scheme: float(np.square((_round(rows, scheme) - rows) * counts).mean())
    )


def _range(even: Array | None, low: float, high: float) -> Scheme:
    scale = np.float32((high - low) / 255)
    return Scheme(even, scale, np.uint8(round(-low / float(scale))))


def _round(rows: Array, scheme: Scheme) -> Array:
    """Evened values to 8 bits and back."""
    zero = np.float32(scheme.zero)
    return np.asarray((np.clip(np.round(rows / scheme.scale) + zero, 0, 255) - zero) * scheme.scale)


def _simulate(rows: Array, weight: Array, scheme: Scheme) -> Array:
    even = np.float32(1) if scheme.even is None else scheme.even
    quantised, scale = _round_weight(weight, scheme)
    return np.asarray(_round(rows / even, scheme) @ (quantised * scale))


def _round_weight(weight: Array, scheme: Scheme) -> tuple[NDArray[np.int8], Array]:
    """Signed 8 bits with one scale for each output; the evened channels are made up for."""
    weight = weight if scheme.even is None else weight * scheme.even[:, None]
    scale = np.maximum(np.abs(weight).max(axis=0) / 127, 1e-12).astype(np.float32)
    return np.clip(np.round(weight / scale), -127, 127).astype(np.int8), scale


def _weight(node: ir.Node) -> Array:
    value = node.inputs[1]
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), dtype=np.float32)


def _quantise_value(
    graph: ir.Graph, before: ir.Node, value: ir.Value, scheme: Scheme, name: str
) -> ir.Value:
    if scheme.even is not None:
        inverse = _constant(graph, f"{name}_even", (1 / scheme.even).astype(np.float32))
        value = _insert(graph, before, ir.node("Mul", [value, inverse]), value)
    limits = [
        _constant(graph, f"{name}_scale", scheme.scale),
        _constant(graph, f"{name}_zero", scheme.zero),
    ]
    rounded = _insert(
        graph, before, ir.node("QuantizeLinear", [value, *limits]), value, ir.DataType.UINT8
    )
    return _insert(graph, before, ir.node("DequantizeLinear", [rounded, *limits]), value)


def _quantise_weight(
    graph: ir.Graph, node: ir.Node, weight: Array, scheme: Scheme, name: str
) -> ir.Value:
    quantised, scale = _round_weight(weight, scheme)
    parts: dict[str, np.ndarray] = {
        "": quantised,
        "_scale": scale,
        "_zero": np.zeros(scale.shape, dtype=np.int8),
    }
    inputs = [_constant(graph, name + part, array) for part, array in parts.items()]
    like = node.inputs[1]
    assert like is not None
    return _insert(graph, node, ir.node("DequantizeLinear", inputs, {"axis": 1}), like)


def _insert(
    graph: ir.Graph,
    before: ir.Node,
    node: ir.Node,
    like: ir.Value,
    dtype: ir.DataType = ir.DataType.FLOAT,
) -> ir.Value:
    graph.insert_before(before, node)
    node.outputs[0].shape, node.outputs[0].type = like.shape, ir.TensorType(dtype)
    return node.outputs[0]


def _constant(graph: ir.Graph, name: str, array: np.ndarray | np.generic) -> ir.Value:
    tensor = ir.tensor(np.asarray(array))
    value = ir.Value(
        name=name,
        shape=ir.Shape(np.shape(array)),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
