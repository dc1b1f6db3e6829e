"""Quantisation-aware training on the very grid of a file.

The net that is trained is the quantised file itself, node by node in torch: each pair of
``QuantizeLinear`` and ``DequantizeLinear`` rounds with a learned step, weights of 8 and 4 bits are
rounded from float ones in every pass, biases are whole numbers in units of input step times weight
step, as kernels add them. What was learned goes back into the same places of the file. So nothing
has to be carried from one quantiser to another, and batch norms are where the export put them.

    net = QuantisedNet(int8_file, float_file=whole)
    learner = Learner(net, trained, example)  # distillation repair
    run(learner, batches, learner.loss(on_labels), config)
    better = net.to_file()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from kernels.compression.export import ExportError, checked
from kernels.compression.fake_quantisation import FINER, FakeQuantise, rounded
from kernels.compression.mixed import four_bit_tensor
from kernels.compression.onnx_operations import (
    OPERATIONS,
    attributes_of,
    require_known,
)
from kernels.compression.whole_numbers import WholeNumbers, WholeWeight, array_of

TRAINED_INPUTS = {"Conv": 1, "Gemm": 1, "MatMul": 1, "LayerNormalization": 1}
"""Operator -> its first input that holds trained numbers."""
LARGEST_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QatConfig:
    """How training goes down to the grid of the file.

    Attributes:
        stages: (bits, batches) before the file's own grid: 32 rounds nothing and keeps to the
            ranges, 16 cuts each step in 256. Batches count in training mode, also those of a run
            that went on from a checkpoint.
        learn_steps: Steps are trained, too; else they stay those of the file.
    """

    stages: tuple[tuple[int, int], ...] = ()
    learn_steps: bool = True

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        for bits, batches in self.stages:
            if bits not in {16, 32} or batches < 0:
                raise ValueError(
                    f"stage ({bits}, {batches}) is none; give 32 or 16 bits and batches >= 0"
                )


class QuantisedNet(nn.Module):
    """A quantised file as a net: rounded as the file is, trained as any module.

    It takes the file's inputs in their order and returns its output, or a tuple of them. In
    evaluation mode it is always on the grid of the file.

    Attributes:
        seen: int64 [], batches seen in training mode.
        config: How training goes down to the grid.
    """

    seen: Tensor

    def __init__(
        self, file: bytes, config: QatConfig | None = None, *, float_file: bytes | None = None
    ) -> None:
        """Read the file.

        Args:
            file: Of `kernels.compression.qdq.quantise` or `kernels.compression.mixed.mix`.
            config: How training goes.
            float_file: What it was made of; 8-bit weights then begin unrounded. Weights of 4 bits
                begin as the file has them, for those were rounded together.

        Raises:
            ExportError: When the file holds no rounded weights, has an operator that is not known,
                or a free size is missing that batches need.
        """
        super().__init__()
        self.config = config or QatConfig()
        self._proto = onnx.load_model_from_string(file)
        graph = self._proto.graph
        constants = {t.name: t for t in graph.initializer}
        require_known(graph.node, ("QuantizeLinear", "DequantizeLinear"))
        self._inputs = [i.name for i in graph.input if i.name not in constants]
        self._outputs = [o.name for o in graph.output]
        _require_free_batch(graph, self._inputs)
        self._nodes = [(n, attributes_of(n)) for n in graph.node]
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.quantisers, self.weights = nn.ModuleDict(), nn.ParameterDict()
        self._whole = WholeNumbers(graph)
        if not self._whole.weights:
            raise ExportError("the file holds no rounded weights; give one that quantise() made")
        begin = {} if float_file is None else _floats_of(float_file)
        for name, entry in self._whole.weights.items():
            self._add_weight(name, entry, begin)
        for node in graph.node:
            if node.op_type == "QuantizeLinear":
                self._add_activation(node, constants)
        for name in self._whole.biases:
            self.weights[_key(name)] = nn.Parameter(self._whole.value(name))
        self._constants: dict[str, str] = {}
        self._floats: dict[str, str] = {}
        self._add_floats(graph, constants)
        if not self.config.learn_steps:
            self.quantisers.requires_grad_(requires_grad=False)

    def _add_weight(self, name: str, entry: WholeWeight, begin: Mapping[str, Tensor]) -> None:
        value = self._whole.value(name)
        float_name = name.removesuffix("_quantized")
        known = begin.get(float_name)
        if known is not None and known.shape == value.shape and not entry.four_bits:
            value = known.clone()
        low, high = entry.limits
        axis = entry.axis % max(value.dim(), 1)
        zero = torch.zeros_like(entry.step)
        self.quantisers[_key(entry.scale)] = FakeQuantise(entry.step, zero, low, high, axis)
        self.weights[_key(name)] = nn.Parameter(value)

    def _add_activation(
        self, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
    ) -> None:
        step, zero = (torch.from_numpy(array_of(constants[n])) for n in node.input[1:3])
        if _key(node.input[1]) in self.quantisers:
            return  # a pool's output has the grid of its input
        signed = constants[node.input[2]].data_type == TensorProto.INT8
        low, high = (-128, 127) if signed else (0, 255)
        self.quantisers[_key(node.input[1])] = FakeQuantise(step, zero, low, high)

    def _add_floats(
        self, graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]
    ) -> None:
        """Keep all other constants: trained ones as parameters, the rest as they are."""
        trained = {
            name
            for node in graph.node
            for place, name in enumerate(node.input)
            if place >= TRAINED_INPUTS.get(node.op_type, 1 << 30)
            or (node.op_type == "Add" and name in constants and len(constants[name].dims) == 1)
        }
        rounded_ones = {*self._whole.weights, *self._whole.biases}
        for name, tensor in constants.items():
            if name in rounded_ones or tensor.data_type == TensorProto.INT4:
                continue
            value = torch.from_numpy(array_of(tensor))
            if name in trained and value.is_floating_point() and value.numel() > 1:
                self.weights[_key(name)] = nn.Parameter(value)
                self._floats[name] = _key(name)
            else:
                self._constants[name] = f"constant_{len(self._constants)}"
                self.register_buffer(self._constants[name], value, persistent=False)

    @property
    def parts(self) -> int:
        """Parts into which a step is cut now: 1 on the file's grid, 0 where nothing is rounded."""
        if self.training:
            end = 0
            for bits, batches in self.config.stages:
                end += batches
                if int(self.seen) < end:
                    return FINER[bits]
        return 1

    def forward(self, *inputs: Tensor) -> Any:
        """Return what the file answers to inputs in the order of the file's."""
        parts = self.parts
        if self.training:
            self.seen += 1
        values: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        values |= {name: getattr(self, place) for name, place in self._constants.items()}
        values |= {n: self.weights[k] for n, k in self._floats.items()}
        for node, set_to in self._nodes:
            if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
                values[node.output[0]] = self._on_grid(node, values, parts)
                continue
            if node.input[0] in self._whole.widened:
                continue
            given = [values[name] if name else None for name in node.input]
            made = OPERATIONS[node.op_type](given, set_to)
            made = [made] if isinstance(made, Tensor) else made
            values.update(zip(node.output, made, strict=True))
        answers = tuple(values[name] for name in self._outputs)
        return answers[0] if len(answers) == 1 else answers

    def _on_grid(self, node: onnx.NodeProto, values: Mapping[str, Any], parts: int) -> Tensor:
        """Return a rounded value, as a float."""
        source = self._whole.source(node.input[0])
        if node.op_type == "QuantizeLinear":
            found: Tensor = self._quantiser(node.input[1])(values[node.input[0]], parts)
        elif source in self._whole.weights:
            found = self._quantiser(node.input[1])(self.weights[_key(source)], parts)
        elif source in self._whole.biases:
            found = self._bias(source, parts)
        elif source in self._constants:
            whole, step, *zero = (values[name] for name in node.input)
            found = (whole.float() - (zero[0].float() if zero else 0)) * step
        else:
            found = values[node.input[0]]  # rounded where it was made
        return found

    def _bias(self, name: str, parts: int) -> Tensor:
        bias: Tensor = self.weights[_key(name)]
        if not parts:
            return bias
        step = self._bias_step(name).detach() / parts
        top = step.new_tensor(float(LARGEST_INT32))
        return rounded(bias / step, -top, top) * step

    def _bias_step(self, name: str) -> Tensor:
        given, weight = self._whole.biases[name].steps
        return self._quantiser(given).step() * self._quantiser(weight).step()

    def _quantiser(self, scale: str) -> FakeQuantise:
        return cast("FakeQuantise", self.quantisers[_key(scale)])

    @torch.no_grad()
    def to_file(self) -> bytes:
        """Return the file with what was learned: weights, biases, steps.

        Raises:
            ExportError: When the file would not pass the checks of an export.
        """
        made = onnx.ModelProto()
        made.CopyFrom(self._proto)
        tensors = {t.name: t for t in made.graph.initializer}

        def put(name: str, value: NDArray[Any]) -> None:
            value = value.reshape(tuple(tensors[name].dims))
            tensors[name].CopyFrom(numpy_helper.from_array(value, name))

        for name, entry in self._whole.weights.items():
            codes = self._quantiser(entry.scale).codes(self.weights[_key(name)])
            whole = codes.cpu().numpy().astype(np.int8)
            if entry.four_bits:
                tensors[name].CopyFrom(four_bit_tensor(whole, name))
            else:
                put(name, whole)
        for name, bias in self._whole.biases.items():
            step = self._bias_step(name)
            units = torch.round(self.weights[_key(name)].double() / step.double())
            put(name, units.clamp(-LARGEST_INT32, LARGEST_INT32).cpu().numpy().astype(np.int32))
            put(bias.scale, step.cpu().numpy())
        for scale in tensors:
            if _key(scale) in self.quantisers:
                put(scale, self._quantiser(scale).step().cpu().numpy())
        for name, key in self._floats.items():
            put(name, self.weights[key].cpu().numpy())
        return checked(made)


def _require_free_batch(graph: onnx.GraphProto, names: list[str]) -> None:
    for value in graph.input:
        sizes = value.type.tensor_type.shape.dim
        if value.name in names and sizes and not sizes[0].dim_param:
            raise ExportError(
                f"{value.name} has a fixed first size of {sizes[0].dim_value}; export with "
                f"dynamic={{{value.name!r}: {{0: ('batch', 1, 512)}}}}, so that batches fit"
            )


def _floats_of(file: bytes) -> dict[str, Tensor]:
    graph = onnx.load_model_from_string(file).graph
    floats = [t for t in graph.initializer if t.data_type == TensorProto.FLOAT]
    return {t.name: torch.from_numpy(array_of(t)) for t in floats}


def _key(name: str) -> str:
    """Return a name without dots, which torch's containers refuse."""
    return name.replace(".", "/")
