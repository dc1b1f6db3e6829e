"""Small ONNX files with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def model(nodes, inputs, outputs, weights=(), opsets=None) -> bytes:
    """Return an ONNX file; inputs and outputs as (name, datatype, shape)."""
    values = [
        [helper.make_tensor_value_info(name, TYPES[kind], shape) for name, kind, shape in each]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "small", *values, list(weights))
    opset = opsets or [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def scaled(factor: float, rows="rows", width: int | str = 4) -> bytes:
    """y = factor * x, float32 [rows, width]."""
    shape = [rows, width]
    return model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", "FP32", shape)],
        [("y", "FP32", shape)],
        [numpy_helper.from_array(np.float32(factor), "factor")],
    )


def same(kind: str) -> bytes:
    """y = x of a datatype, [rows, side]."""
    shape = ["rows", "side"]
    return model(
        [helper.make_node("Identity", ["x"], ["y"])], [("x", kind, shape)], [("y", kind, shape)]
    )


def centred() -> bytes:
    """y = x - mean over the rows: rows depend on each other."""
    return model(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [("x", "FP32", ["rows", 4])],
        [("y", "FP32", ["rows", 4])],
    )


def looked_up(entries: int = 5) -> bytes:
    """y = table[i]: an index beyond the table cannot be run."""
    table = np.arange(entries * 2, dtype=np.float32).reshape(entries, 2)
    return model(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [("i", "INT64", ["rows"])],
        [("y", "FP32", ["rows", 2])],
        [numpy_helper.from_array(table, "table")],
    )


def dense(sides: Sequence[int], seed: int = 0) -> bytes:
    """A network of layers with ReLU between: x [rows, sides[0]] -> y [rows, sides[-1]]."""
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for at, (one, other) in enumerate(pairwise(sides)):
        weight = rng.normal(size=(one, other)).astype(np.float32) / np.sqrt(one, dtype=np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{at}"))
        final = at == len(sides) - 2
        nodes.append(helper.make_node("MatMul", [last, f"w{at}"], ["y" if final else f"h{at}"]))
        if not final:
            nodes.append(helper.make_node("Relu", [f"h{at}"], [f"r{at}"]))
            last = f"r{at}"
    shapes = [["rows", sides[0]], ["rows", sides[-1]]]
    return model(nodes, [("x", "FP32", shapes[0])], [("y", "FP32", shapes[1])], weights)


def put(folder: Path, name: str, version: int | str, content: bytes) -> Path:
    """Write folder/NAME/VERSION/model.onnx in one step."""
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    draft.replace(path)
    return path


def convolutional(side: int = 64, seed: int = 0) -> bytes:
    """Three strided convolutions, mean, ten outputs: pixels [rows, 3, side, side] -> y."""
    rng = np.random.default_rng(seed)
    nodes, weights, last, width = [], [], "pixels", 3
    for at, channels in enumerate((32, 64, 128)):
        kernel = rng.normal(size=(channels, width, 3, 3)) / np.sqrt(width * 9)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"k{at}"))
        nodes.append(
            helper.make_node(
                "Conv", [last, f"k{at}"], [f"c{at}"], strides=[2, 2], pads=[1, 1, 1, 1]
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"]))
        last, width = f"r{at}", channels
    head = rng.normal(size=(width, 10)).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["y"]))
    inputs = [("pixels", "FP32", ["rows", 3, side, side])]
    return model(nodes, inputs, [("y", "FP32", ["rows", 10])], weights)
