"""Eight and four bits in one file: layers that bear it keep their weights in 4 bits.

The file takes a file of `kernels.compression.qdq` and turns weights of int8 into int4, rounded so
that the layer's answers change least (`kernels.compression.gptq`). In the graph a ``Cast`` brings
them back to int8; ONNX Runtime does that once, when the file is opened, and then runs the same int8
kernels: half the bytes at the same speed. Which layers go is decided by what each does to the
answers, per byte it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from kernels.compression.export import ExportError, checked
from kernels.compression.gptq import RoundingConfig, corrected, patches
from kernels.compression.qdq import Loss
from kernels.compression.ranges import Inputs, Outputs
from kernels.compression.sessions import answers_to, open_session

OPSET = 21
"""The first with tensors of 4 bits."""
IR_VERSION = 10
ROUNDING = RoundingConfig(bits=4, group=0, symmetric=True)
_NO_LAYERS = "the file holds no layers of int8 weights; give one that quantise() made"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedConfig:
    """How much goes to 4 bits.

    Attributes:
        tolerance: Loss that may be added to that of the int8 file.
        size: Bytes at which no more goes; 0: as much as the tolerance bears.
        ranking_inputs: Calibration inputs that the ranking uses.
        keep: Nodes that stay at 8 bits.
        threads: Of ONNX Runtime while measuring.
    """

    tolerance: float = 0.02
    size: int = 0
    ranking_inputs: int = 16
    keep: tuple[str, ...] = ()
    threads: int = 2

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.tolerance < 0 or self.size < 0:
            raise ValueError("tolerance and size must not be negative")
        if self.ranking_inputs < 1 or self.threads < 1:
            raise ValueError("ranking_inputs and threads must be at least 1")


@dataclass(frozen=True, slots=True)
class Mixed:
    """A file of 8 and 4 bits.

    Attributes:
        model: The ONNX file.
        four_bits: Nodes whose weights have 4 bits, in the order in which they were chosen.
        loss: On the calibration inputs.
        loss_int8: Of the file it was made of.
        sensitivity: Node -> loss when its weights alone have 4 bits. Of nodes that read the same
            weights, the first.
    """

    model: bytes
    four_bits: tuple[str, ...]
    loss: float
    loss_int8: float
    sensitivity: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """Return what a record tells of it, as plain data."""
        return {"nodes": list(self.four_bits), "loss": self.loss, "sensitivity": self.sensitivity}


@dataclass(frozen=True, slots=True)
class _Reader:
    """A node with int8 weights, and where its input and bias are in the graph."""

    node: onnx.NodeProto
    given: str
    given_scale: str
    bias: str
    bias_scale: str


@dataclass(frozen=True, slots=True)
class _Layer:
    """Int8 weights and all nodes that read them: a net may see an image in two sizes."""

    weight: str
    scale: str
    axis: int
    readers: tuple[_Reader, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the readers, in the order of the graph."""
        return tuple(reader.node.name for reader in self.readers)


@dataclass(frozen=True, slots=True)
class _FourBits:
    """Weights of a layer in 4 bits: int8 values -8 to 7, as ONNX lays them out."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]


def mix(
    int8: bytes,
    calibration: Sequence[Inputs],
    reference: Sequence[Outputs],
    loss: Loss,
    config: MixedConfig | None = None,
) -> Mixed:
    """Return a file in which layers that bear it have weights of 4 bits.

    Args:
        int8: File of `kernels.compression.qdq.quantise`.
        calibration: The inputs it was made with.
        reference: What the float model answers to them.
        loss: How much two lists of answers differ.
        config: How much goes.

    Raises:
        ExportError: When no layer has int8 weights, or the size cannot be reached within the
            tolerance; says how small it can be.
    """
    config = config or MixedConfig()
    trial = Trial(int8, calibration, reference, loss, config)
    if not trial.layers:
        raise ExportError(_NO_LAYERS)
    start = trial.loss(int8)
    layers = [n for n, layer in trial.layers.items() if not set(layer.nodes) & set(config.keep)]
    count = config.ranking_inputs
    alone = {name: trial.loss(trial.build((name,)), count) for name in layers}
    base = trial.loss(int8, count)
    order = sorted(layers, key=lambda n: (alone[n] - base) / trial.saved(n))
    chosen: tuple[str, ...] = ()
    lost, made = start, int8
    for name in order:
        if config.size and len(made) <= config.size:
            break
        tried = trial.build((*chosen, name))
        after = trial.loss(tried)
        if after <= start + config.tolerance:
            chosen, lost, made = (*chosen, name), after, tried
    if config.size and len(made) > config.size:
        raise ExportError(
            f"{config.size:,} bytes cannot be reached with a loss of {config.tolerance:g} more, "
            f"only {len(made):,}; allow more of either, or prune channels first"
        )
    nodes = tuple(node for name in chosen for node in trial.layers[name].nodes)
    return Mixed(made, nodes, lost, start, alone)


def narrowest(int8: bytes, calibration: Sequence[Inputs]) -> bytes:
    """Return the file with every layer in 4 bits: as small as it gets, whatever is lost.

    Raises:
        ExportError: When no layer has int8 weights, or there are no inputs to round by.
    """
    trial = Trial(int8, calibration, (), lambda _reference, _answers: 0.0, MixedConfig())
    if not trial.layers:
        raise ExportError(_NO_LAYERS)
    return trial.build(tuple(trial.layers))


class Trial:
    """One int8 file and what becomes of it with some layers in 4 bits."""

    def __init__(
        self,
        model: bytes,
        calibration: Sequence[Inputs],
        reference: Sequence[Outputs],
        loss: Loss,
        config: MixedConfig,
    ) -> None:
        self.config, self.measure = config, loss
        self.calibration, self.reference = calibration, reference
        self.proto = onnx.load_model_from_string(model)
        self.constants = {t.name: t for t in self.proto.graph.initializer}
        self.layers = {layer.nodes[0]: layer for layer in _layers(self.proto, self.constants)}
        self._rounded: dict[str, _FourBits] = {}

    def saved(self, name: str) -> int:
        """Return the bytes that a layer in 4 bits saves."""
        return int(np.prod(self.constants[self.layers[name].weight].dims)) // 2

    def loss(self, model: bytes, count: int | None = None) -> float:
        """Return the loss of a file on the first ``count`` inputs, or on all."""
        answers = answers_to(model, self.calibration[:count], threads=self.config.threads)
        return float(self.measure(self.reference[:count], answers))

    def build(self, names: Sequence[str]) -> bytes:
        """Return the file with some layers in 4 bits."""
        made = onnx.ModelProto()
        made.CopyFrom(self.proto)
        constants = {t.name: t for t in made.graph.initializer}
        casts = []
        for name in names:
            layer, rounded = self.layers[name], self._four_bits(name)
            for reader in layer.readers:
                self._rescale_bias(constants, reader, rounded)
            constants[layer.scale].CopyFrom(numpy_helper.from_array(rounded.scales, layer.scale))
            weight = constants[layer.weight]
            packed = four_bit_tensor(rounded.values, f"{layer.weight}_4")
            for node in made.graph.node:
                for place, given in enumerate(node.input):
                    if given == layer.weight:
                        node.input[place] = f"{layer.weight}_8"
            weight.CopyFrom(packed)
            casts.append(
                helper.make_node(
                    "Cast", [packed.name], [f"{layer.weight}_8"], f"{name}_widen",
                    to=TensorProto.INT8,
                )
            )  # fmt: skip
        nodes = [*casts, *made.graph.node]
        del made.graph.node[:]
        made.graph.node.extend(nodes)
        for entry in made.opset_import:
            if entry.domain in {"", "ai.onnx"}:
                entry.version = max(entry.version, OPSET)
        made.ir_version = max(made.ir_version, IR_VERSION)
        return checked(made)

    def _rescale_bias(
        self, constants: dict[str, TensorProto], reader: _Reader, rounded: _FourBits
    ) -> None:
        """Kernels add the bias as int32 in units of input scale times weight scale."""
        if not reader.bias:
            return
        whole, scale = constants[reader.bias], constants[reader.bias_scale]
        value = numpy_helper.to_array(whole) * numpy_helper.to_array(scale).astype(np.float64)
        given = float(numpy_helper.to_array(constants[reader.given_scale]).reshape(-1)[0])
        steps = (given * rounded.scales.astype(np.float64)).astype(np.float32)
        new = np.clip(np.round(value / steps), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        whole.CopyFrom(numpy_helper.from_array(new, reader.bias))
        scale.CopyFrom(numpy_helper.from_array(steps, reader.bias_scale))

    def _four_bits(self, name: str) -> _FourBits:
        if name not in self._rounded:
            layer = self.layers[name]
            whole = numpy_helper.to_array(self.constants[layer.weight]).astype(np.float32)
            scales = numpy_helper.to_array(self.constants[layer.scale])
            shape = [1] * whole.ndim
            shape[layer.axis] = -1
            rows = np.moveaxis(whole * scales.reshape(shape), layer.axis, 0)
            values, steps = _rounded(rows, self._moments(layer))
            self._rounded[name] = _FourBits(
                np.ascontiguousarray(np.moveaxis(values, 0, layer.axis)), steps
            )
        return self._rounded[name]

    def _moments(self, layer: _Layer) -> torch.Tensor:
        """Return the mean of x x^T over its readers' inputs, float64 [groups, columns, columns]."""
        opened = onnx.ModelProto()
        opened.CopyFrom(self.proto)
        given = list(dict.fromkeys(reader.given for reader in layer.readers))
        present = {output.name for output in opened.graph.output}
        opened.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in given if name not in present
        )
        session = open_session(opened.SerializeToString(), threads=self.config.threads)
        total: torch.Tensor | None = None
        count = 0
        for one in self.calibration[: 2 * self.config.ranking_inputs]:
            values = dict(zip(given, session.run(given, dict(one)), strict=True))
            for reader in layer.readers:
                x = torch.from_numpy(values[reader.given]).double()
                columns = _columns(reader.node, x, self._kernel(layer))
                summed = columns.mT @ columns
                total = summed if total is None else total + summed
                count += columns.shape[1]
        if total is None:
            raise ExportError("4 bits need calibration inputs; give those of the int8 file")
        return total / count

    def _kernel(self, layer: _Layer) -> tuple[int, ...]:
        return tuple(self.constants[layer.weight].dims[2:])


def _layers(proto: onnx.ModelProto, constants: dict[str, Any]) -> list[_Layer]:
    """Return the int8 constants that nothing but nodes of known kinds reads as weights."""
    scaled = {n.output[0]: n for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    uses: dict[str, int] = {}
    read: dict[str, list[_Reader]] = {}
    for node in proto.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
        if reader := _reader(node, scaled):
            read.setdefault(node.input[1], []).append(reader)
    found = []
    for name, readers in read.items():
        widened = scaled[name]
        weight, scale = (constants.get(given) for given in widened.input[:2])
        if weight is None or weight.data_type != TensorProto.INT8:
            continue
        if scale is None or not scale.dims:
            continue
        if uses[name] > len(readers) or uses[weight.name] > 1 or uses[scale.name] > 1:
            continue
        axis = next((int(a.i) for a in widened.attribute if a.name == "axis"), 1)
        found.append(_Layer(weight.name, scale.name, axis % len(weight.dims), tuple(readers)))
    return found


def _reader(node: onnx.NodeProto, scaled: dict[str, onnx.NodeProto]) -> _Reader | None:
    """Return a node whose input, weights and bias all come from whole numbers."""
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or len(node.input) < 2:
        return None
    sources = [scaled.get(name) for name in node.input]
    given, bias = sources[0], sources[2] if len(sources) > 2 else None
    if given is None or any(one is None for one in sources):
        return None
    of_bias = (bias.input[0], bias.input[1]) if bias is not None else ("", "")
    return _Reader(node, node.input[0], given.input[1], *of_bias)


def _rounded(
    rows: NDArray[np.float32], moments: torch.Tensor
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return values -8 to 7 in the shape of the rows, and a scale for each row."""
    flat = torch.from_numpy(np.ascontiguousarray(rows)).flatten(1)
    parts = [
        corrected(each, of_group, ROUNDING)
        for each, of_group in zip(flat.chunk(len(moments)), moments, strict=True)
    ]
    codes = torch.cat([part.codes for part in parts]).numpy().astype(np.int8) - np.int8(8)
    scales = torch.cat([part.scales for part in parts]).numpy().reshape(-1)
    return codes.reshape(rows.shape), scales


def _columns(node: onnx.NodeProto, given: torch.Tensor, kernel: tuple[int, ...]) -> torch.Tensor:
    """Return what each answer of a node is made of, float64 [groups, answers, columns]."""
    if node.op_type != "Conv":
        return given.reshape(1, -1, given.shape[-1])
    set_to: dict[str, Any] = {a.name: list(a.ints) or a.i for a in node.attribute}
    pads = set_to.get("pads", [0] * 4)
    if len(kernel) != 2:
        raise ExportError(f"{node.name} is a convolution over {len(kernel)} dimensions; keep it")
    padded = functional.pad(given, (pads[1], pads[3], pads[0], pads[2]))
    dilation, stride = (tuple(set_to.get(name, (1, 1))) for name in ("dilations", "strides"))
    return patches(padded, kernel, dilation, stride, int(set_to.get("group", 1)))


def four_bit_tensor(values: NDArray[np.int8], name: str) -> TensorProto:
    """Return values as a tensor of int4: two in a byte, the first in the low half."""
    flat = (values.reshape(-1) & 15).astype(np.uint8)
    flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
    tensor = TensorProto(name=name, data_type=TensorProto.INT4, dims=values.shape)
    tensor.raw_data = (flat[0::2] | (flat[1::2] << 4)).tobytes()
    return tensor
