"""Builds small ONNX graphs operator by operator, so that a head is exactly what it computes.

Only standard operators (domains ``""`` and ``ai.onnx.ml``) are used; input is ``features``
float32 [None, F], output ``probability`` float32 [None].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

OPSET = 17
ML_OPSET = 3
INPUT = "features"
OUTPUT = "probability"


class GraphBuilder:
    """Collects nodes and constants of one graph.

    Attributes:
        width: Number of input features F.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, value: ArrayLike, dtype: type = np.float32) -> str:
        """Add an initializer; return its name."""
        from onnx import numpy_helper

        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(
        self, operator: str, inputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output; return the output's name."""
        from onnx import helper

        name = f"v{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, list(inputs), [name], domain=domain, **attributes)
        )
        return name

    def cast(self, value: str, dtype: type) -> str:
        """Return ``value`` as another number type."""
        from onnx import helper

        return self.node("Cast", [value], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def softplus(self, value: str) -> str:
        """Return ``ln(1 + exp(value))`` without overflow: ``max(v, 0) + ln(1 + exp(-|v|))``."""
        positive = self.node("Relu", [value])
        small = self.node("Exp", [self.node("Neg", [self.node("Abs", [value])])])
        tail = self.node("Log", [self.node("Add", [small, self.constant([1.0])])])
        return self.node("Add", [positive, tail])

    def affine(self, value: str, scale: ArrayLike, shift: ArrayLike) -> str:
        """Return ``value * scale + shift``."""
        scaled = self.node("Mul", [value, self.constant(scale)])
        return self.node("Add", [scaled, self.constant(shift)])

    def finish(self, value: str) -> bytes:
        """Close the graph with ``value`` [None, 1] or [None] as the output; return its bytes."""
        from onnx import TensorProto, checker, helper

        flat = self.constant([-1], dtype=np.int64)
        self._nodes.append(helper.make_node("Reshape", [value, flat], [OUTPUT]))
        graph = helper.make_graph(
            self._nodes,
            "head",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, self.width])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None])],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid("", OPSET),
                helper.make_opsetid("ai.onnx.ml", ML_OPSET),
            ],
            ir_version=9,
            producer_name="penstock",
        )
        checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content
