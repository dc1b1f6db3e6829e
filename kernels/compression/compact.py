"""A quantised file without what says nothing: zero points that are zero, names of helper nodes.

A channel of a convolution costs 17 bytes beside its weights as quantisers write it (steps and zero
points of weights and bias), 12 so. For nets of many narrow layers that decides how many times
smaller their files become. Runtimes read a zero point that is left out as 0.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, numpy_helper

_ENDINGS = {"_DequantizeLinear_Output": "_dq", "_QuantizeLinear_Output": "_q"}


def compact(model: onnx.ModelProto) -> None:
    """Take out, in place, what changes no answer; names of layers and weights stay.

    Args:
        model: With ``QuantizeLinear`` and ``DequantizeLinear`` of constants.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = _shorter(graph)
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and _is_plain(node, constants):
            del node.input[2:]
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            node.ClearField("name")
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _is_plain(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Return whether a node widens a constant whose zero points are all zero."""
    if len(node.input) < 3 or node.input[0] not in constants:
        return False
    zero = constants.get(node.input[2])
    # Unsigned numbers keep theirs: for some runtimes their middle is the default.
    signed = {TensorProto.INT8, TensorProto.INT32}
    return zero is not None and zero.data_type in signed and not numpy_helper.to_array(zero).any()


def _shorter(graph: onnx.GraphProto) -> dict[str, str]:
    """Return shorter names of what helper nodes give, but for those that are taken."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    ends = {value.name for value in graph.output}
    found = {}
    for name in taken - ends:
        for ending, short in _ENDINGS.items():
            made = name.removesuffix(ending) + short
            if name.endswith(ending) and made not in taken:
                found[name] = made
    return found
