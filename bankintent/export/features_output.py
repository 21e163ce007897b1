"""The second output of an exported graph: what the last layer of the classifier reads.

It is a value that the graph computes for the logits anyway, so that it costs nothing but its copy,
and in eight bits it comes from the same rounded layers as they do.
"""

import onnx_ir as ir

from bankintent.inference.exported_inputs import FEATURES


def add_features(graph: ir.Graph) -> int:
    """Make what the last layer reads an output of the graph; returns its width.

    That is the input of the product that gives the logits. Where it is not one vector of each text,
    the graph stays as it is and the width is 0.
    """
    product = _last_product(graph.outputs[0])
    read = None if product is None else product.inputs[0]
    if read is None or read.producer() is None or read.shape is None or len(read.shape) != 2:
        return 0

    width = read.shape[1]
    if not isinstance(width, int):
        return 0
    read.name = FEATURES
    graph.outputs.append(read)
    return width


def _last_product(logits: ir.Value) -> ir.Node | None:
    """The product with constant weights that gives the logits, before a bias that is added."""
    node = logits.producer()
    if node is not None and node.op_type == "Add":
        terms = [value for value in node.inputs if value is not None and not _is_constant(value)]
        node = terms[0].producer() if len(terms) == 1 else None

    if node is None or node.op_type not in ("Gemm", "MatMul"):
        return None
    return node if _is_constant(node.inputs[1]) else None


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()
