"""Small exported files for tests, made without training: a detector of edges, and a plain net."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from connectors.defects.edge_file import write_edge_file
from kernels.compression.export import checked, with_metadata
from kernels.compression.parity import ParityRecord, answers_of, image_digest
from tasks.defects.edge.format import EdgeFacts, EdgeFile
from tasks.defects.judgement import Thresholds

KINDS = ("dark", "light")
_node = helper.make_node


def _model(nodes, inputs, outputs, constants):
    def told(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(
        nodes, "g", [told(*one) for one in inputs], [told(*one) for one in outputs], tensors
    )
    opset = [helper.make_opsetid("", 20)]
    return checked(helper.make_model(graph, opset_imports=opset, ir_version=9))


def detector_graph(ok_below: float, ng_from: float) -> bytes:
    """A convolution that answers to edges, pooled to a quarter; the highest cell is the score."""
    rng = np.random.default_rng(0)
    float32, int64 = TensorProto.FLOAT, TensorProto.INT64
    nodes = [
        _node("Cast", ["pixels"], ["real"], to=float32),
        _node("Div", ["real", "white"], ["shares"]),
        _node("Transpose", ["shares"], ["planes"], perm=[2, 0, 1]),
        _node("Unsqueeze", ["planes", "first"], ["batch"]),
        _node("Conv", ["batch", "filters"], ["maps"], pads=[1, 1, 1, 1]),
        _node("Abs", ["maps"], ["edges"]),
        _node("ReduceMean", ["edges", "second"], ["one"], keepdims=1),
        _node("AveragePool", ["one"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        _node("Squeeze", ["pooled", "both"], ["heat"]),
        _node("ReduceMax", ["heat"], ["score"], keepdims=0),
        _node("ReduceMean", ["shares"], ["light"], keepdims=0),
        _node("Sub", ["unit", "light"], ["dark"]),
        _node("Unsqueeze", ["light", "first"], ["light1"]),
        _node("Unsqueeze", ["dark", "first"], ["dark1"]),
        _node("Concat", ["dark1", "light1"], ["kinds"], axis=0),
        _node("Less", ["score", "ok_below"], ["fine"]),
        _node("Less", ["score", "ng_from"], ["low"]),
        _node("Where", ["low", "two", "ng"], ["upper"]),
        _node("Where", ["fine", "ok", "upper"], ["verdict"]),
    ]
    constants = {
        "white": np.array(255, np.float32),
        "unit": np.array(1, np.float32),
        "filters": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "first": np.array([0]),
        "second": np.array([1]),
        "both": np.array([0, 1]),
        "ok_below": np.array(ok_below, np.float32),
        "ng_from": np.array(ng_from, np.float32),
        "ok": np.array(0),
        "ng": np.array(1),
        "two": np.array(2),
    }
    outputs = [
        ("score", float32, []),
        ("heat", float32, ["hc", "wc"]),
        ("kinds", float32, [2]),
        ("verdict", int64, []),
    ]
    return _model(nodes, [("pixels", TensorProto.UINT8, ["h", "w", 3])], outputs, constants)


def write_detector(path: Path, images: Sequence[NDArray[np.uint8]]) -> None:
    """Write an edge file with its record; of the images some are OK, some NG, some in between."""
    scores = [score for score, _ in answers_of(detector_graph(0, 0), images)]
    low, high = (float(np.float32(x)) for x in np.quantile(scores, [0.4, 0.7]))
    plain = detector_graph(low, high)
    answers = tuple(answers_of(plain, images))
    record = ParityRecord(
        model="",
        images=tuple(image_digest(image) for image in images),
        trained=answers,
        float32=answers,
        shipped=answers,
        runtime="test",
        facts={},
    )
    facts = EdgeFacts(
        kinds=KINDS,
        thresholds=Thresholds(low, high),
        size=None,
        tile=1024,
        model="",
        parity=record.digest(),
        created_by="test",
        int8=False,
        bits=12,
    )
    sealed = with_metadata(plain, facts.to_metadata())
    record = replace(record, model=hashlib.sha256(sealed).hexdigest())
    write_edge_file(path, EdgeFile(sealed, record, plain))


def net(weights: NDArray[np.float32]) -> bytes:
    """A file that multiplies ``x`` float32 [n, rows of the weights] by weights."""
    return _model(
        [_node("MatMul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", weights.shape[0]])],
        [("y", TensorProto.FLOAT, ["n", weights.shape[1]])],
        {"w": weights},
    )
