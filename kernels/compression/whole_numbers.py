"""Which constants of a quantised file are whole numbers, and of which grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor

from kernels.compression.onnx_operations import attributes_of


@dataclass(frozen=True, slots=True, eq=False)
class WholeWeight:
    """Weights in whole numbers: where their steps are, and the grid."""

    scale: str
    step: Tensor
    axis: int
    limits: tuple[int, int]
    four_bits: bool


@dataclass(frozen=True, slots=True)
class WholeBias:
    """A bias in whole numbers: its own scale, and those of input and weights it is made of."""

    scale: str
    steps: tuple[str, str]


class WholeNumbers:
    """Which constants of a graph are whole numbers of which grid."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {t.name: t for t in graph.initializer}
        self.weights: dict[str, WholeWeight] = {}
        self.biases: dict[str, WholeBias] = {}
        self.widened: dict[str, str] = {
            n.input[0]: n.output[0]
            for n in graph.node
            if n.op_type == "Cast" and self._type(n.input[0]) == TensorProto.INT4
        }
        self._narrow: dict[str, str] = {wide: name for name, wide in self.widened.items()}
        self._scaled = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}
        for node in self._scaled.values():
            name = self.source(node.input[0])
            if self._type(name) in {TensorProto.INT8, TensorProto.INT4}:
                self.weights[name] = self._weight(name, node)
        for node in graph.node:
            scaled = [self._scaled.get(name) for name in node.input[:3]]
            if len(scaled) == 3 and all(scaled):
                given, weight, bias = (each for each in scaled if each is not None)
                if self._type(bias.input[0]) == TensorProto.INT32:
                    steps = (given.input[1], weight.input[1])
                    self.biases[bias.input[0]] = WholeBias(bias.input[1], steps)

    def source(self, name: str) -> str:
        """Return the constant that a value of 8 bits is, or was widened from."""
        found: str = self._narrow.get(name, name)
        return found

    def value(self, name: str) -> Tensor:
        """Return a constant in float32, as its grid has it."""
        whole = torch.from_numpy(array_of(self.constants[name]).astype(np.float32))
        if name in self.biases:
            scale = self.biases[name].scale
            return whole * torch.from_numpy(array_of(self.constants[scale]))
        entry = self.weights[name]
        shape = [1] * whole.dim()
        if entry.step.dim():
            shape[entry.axis] = -1
        return whole * entry.step.reshape(shape)

    def _type(self, name: str) -> int:
        return self.constants[name].data_type if name in self.constants else 0

    def _weight(self, name: str, node: onnx.NodeProto) -> WholeWeight:
        """Return a weight's entry; that it has 7 bits is seen by its numbers."""
        axis = int(attributes_of(node).get("axis", 1))
        step = torch.from_numpy(array_of(self.constants[node.input[1]]))
        axis %= max(len(self.constants[name].dims), 1)
        if self._type(name) == TensorProto.INT4:
            return WholeWeight(node.input[1], step, axis, (-8, 7), four_bits=True)
        largest = int(np.abs(array_of(self.constants[name]).astype(np.int32)).max(initial=0))
        top = 64 if largest <= 64 else 127
        return WholeWeight(node.input[1], step, axis, (-top, top), four_bits=False)


def array_of(tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return a copy that torch can take: numpy's of a file is read-only."""
    value = numpy_helper.to_array(tensor)
    return np.array(value.astype(np.int8) if tensor.data_type == TensorProto.INT4 else value)
