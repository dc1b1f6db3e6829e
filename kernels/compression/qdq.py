"""Static int8 quantisation of an ONNX model, decided by what it does to the model's answers.

Activations are uint8, weights int8 per channel, written as ``QuantizeLinear`` /
``DequantizeLinear`` pairs around standard operators, so that any runtime reads the file and the
fusion is the runtime's. Weights use 7 bits by default: on CPUs without VNNI two products are added
in 16 bits, and 255 * 127 * 2 saturates there, so that 8 bits would decide otherwise on another
machine.

Steps: ranges by every rule of the configuration, each tried on the calibration inputs; the shift
of mean that rounding the weights leaves is taken out of the biases (Nagel et al. 2019, section
4.2), kept where it helps; then, while the loss is above the tolerance, the nodes that lose most
when each alone is int8 go back to float, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from kernels.compression.compact import compact
from kernels.compression.export import DOMAINS, ExportError, checked
from kernels.compression.middle import BESIDE, WEIGHTED, middle
from kernels.compression.ranges import (
    Activation,
    Inputs,
    Outputs,
    cut,
    measure_activations,
    require_inputs,
)
from kernels.compression.sessions import answers_to

Loss = Callable[[Sequence[Outputs], Sequence[Outputs]], float]
"""(answers of the float model, answers of the int8 model) -> how much was lost, 0 = nothing."""
QUANTISED = (*WEIGHTED, *BESIDE)


@dataclass(frozen=True, slots=True)
class QdqConfig:
    """How to quantise.

    Attributes:
        rules: Range rules to try, see `kernels.compression.ranges.cut`.
        seven_bits: Weights of 7 bits, equal on every CPU; False: 8 bits, for CPUs with VNNI or ARM.
        correct_bias: Try taking the shift of the rounded weights out of the biases.
        tolerance: Loss up to which no node goes back to float.
        most_float: Nodes that may go back at most.
        ranking_inputs: Calibration inputs that the sensitivity ranking uses.
        keep_float: Names of nodes that stay float whatever is measured.
        float_start: Weighted nodes behind each input that stay float.
        whole: Products behind the last filter are made int8, too: for nets whose heads hold much of
            the weights.
    """

    rules: tuple[str, ...] = ("min-max", "99.999", "99.99", "mse", "entropy")
    seven_bits: bool = True
    correct_bias: bool = True
    tolerance: float = 0.05
    most_float: int = 8
    ranking_inputs: int = 16
    keep_float: tuple[str, ...] = ()
    float_start: int = 0
    whole: bool = False
    threads: int = 2

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.rules:
            raise ValueError("rules: name at least one, such as min-max")
        if self.most_float < 0 or self.ranking_inputs < 1 or self.threads < 1:
            raise ValueError("most_float >= 0, ranking_inputs >= 1 and threads >= 1 are needed")


@dataclass(frozen=True, slots=True)
class Quantised:
    """An int8 model and what was tried for it.

    Attributes:
        model: The ONNX file.
        rule: Range rule that was taken.
        bias_corrected: Whether the biases were corrected.
        loss: On the calibration inputs.
        float_nodes: Nodes that went back to float, most sensitive first.
        losses: Every rule, and the best one with correction -> loss.
        sensitivity: Node -> loss when it alone is int8; empty where no ranking was needed.
    """

    model: bytes
    rule: str
    bias_corrected: bool
    loss: float
    float_nodes: tuple[str, ...]
    losses: dict[str, float]
    sensitivity: dict[str, float]


def quantise(
    model: bytes, calibration: Sequence[Inputs], loss: Loss, config: QdqConfig | None = None
) -> Quantised:
    """Return the int8 model.

    Args:
        model: float32 ONNX file of `kernels.compression.export.export_onnx`.
        calibration: Inputs like those to come; 32 or more that cover what the model will see.
        loss: How much two lists of answers differ; what is decided by it is kept.
        config: How to quantise.

    Raises:
        ExportError: When nothing can be quantised, or calibration inputs are missing, of another
            shape than the file's, or hold NaN or infinity.
    """
    config = config or QdqConfig()
    trial = Trial(model, calibration, loss, config)
    losses: dict[str, float] = {}
    for rule in config.rules:
        losses[rule] = trial.loss(trial.build(rule))
    rule = min(losses, key=lambda one: losses[one])
    lost, corrected = losses[rule], False
    if config.correct_bias:
        after = trial.loss(trial.build(rule, corrected=True))
        losses[f"{rule}, bias corrected"] = after
        lost, corrected = min((lost, False), (after, True))
    sensitivity: dict[str, float] = {}
    back: list[str] = []
    if lost > config.tolerance and config.most_float:
        sensitivity = trial.sensitivity(rule)
        order = sorted(sensitivity, key=lambda n: -sensitivity[n])[: config.most_float]
        # All of the first so many: one alone need not help while another spoils as much.
        for count in range(1, len(order) + 1):
            after = trial.loss(trial.build(rule, corrected=corrected, without=order[:count]))
            if after < lost:
                lost, back = after, order[:count]
            if lost <= config.tolerance:
                break
    made = trial.build(rule, corrected=corrected, without=back)
    return Quantised(made, rule, corrected, lost, tuple(back), losses, sensitivity)


class Trial:
    """One float model, its measured activations, and the int8 models that are tried of it."""

    def __init__(
        self, model: bytes, calibration: Sequence[Inputs], loss: Loss, config: QdqConfig
    ) -> None:
        self.config, self.calibration, self.measure = config, calibration, loss
        self.proto = onnx.load_model_from_string(model)
        require_inputs(self.proto.graph, calibration)
        for place, node in enumerate(self.proto.graph.node):
            node.name = node.name or f"{node.op_type}_{place}"
        inside = middle(self.proto.graph, config.float_start, whole=config.whole)
        self.nodes = [node for node in inside if node.name not in config.keep_float]
        self.weighted = [n.name for n in self.nodes if n.op_type in WEIGHTED]
        if not self.weighted:
            raise ExportError("the model has no convolution or product that int8 would speed up")
        self.constants = {t.name: t for t in self.proto.graph.initializer}
        floats = _floats(self.proto)
        tensors = dict.fromkeys(
            name
            for node in self.nodes
            for name in (*node.input, *node.output)
            if name in floats and name not in self.constants
        )
        self.activations = measure_activations(
            self.proto, list(tensors), calibration, threads=config.threads
        )
        self.reference = answers_to(model, calibration, threads=config.threads)

    def loss(self, model: bytes, count: int | None = None) -> float:
        """Return the loss of a file on the first ``count`` inputs, or on all."""
        answers = answers_to(model, self.calibration[:count], threads=self.config.threads)
        return float(self.measure(self.reference[:count], answers))

    def sensitivity(self, rule: str) -> dict[str, float]:
        """Return the loss with one weighted node int8 and all others float."""
        count = self.config.ranking_inputs
        return {name: self.loss(self.build(rule, only=(name,)), count) for name in self.weighted}

    def build(
        self,
        rule: str,
        *,
        corrected: bool = False,
        without: Sequence[str] = (),
        only: Sequence[str] | None = None,
    ) -> bytes:
        """Return the int8 model under a range rule."""
        chosen = [n.name for n in self.nodes if n.name not in without] if only is None else only
        model = self._quantised(self.proto, rule, chosen)
        if corrected:
            proto = onnx.ModelProto()
            proto.CopyFrom(self.proto)
            _correct(proto, model, self.activations)
            model = self._quantised(proto, rule, chosen)
        return checked(model, DOMAINS | {one.domain for one in self.proto.opset_import})

    def _quantised(
        self, proto: onnx.ModelProto, rule: str, chosen: Sequence[str]
    ) -> onnx.ModelProto:
        from onnxruntime.quantization.calibrate import TensorData
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.quant_utils import QuantType

        ranges = {}
        for name, activation in self.activations.items():
            low, high = cut(activation, rule)
            ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        made = QDQQuantizer(
            copy,
            True,  # noqa: FBT003 - per channel
            self.config.seven_bits,
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            list(chosen),
            [],
            list(QUANTISED),
            {"OpTypesToExcludeOutputQuantization": ["MatMul"], "WeightSymmetric": True},
        ).quantize_model()
        ONNXModel(made).topological_sort()
        return _portable(made, proto)


def _portable(made: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Keep the operator sets of the source: the quantiser adds its vendor's, unused."""
    del made.opset_import[:]
    made.opset_import.extend(source.opset_import)
    made.ir_version = source.ir_version
    made.producer_name, made.producer_version = source.producer_name, source.producer_version
    del made.graph.value_info[:]
    compact(made)
    return made


def _correct(
    proto: onnx.ModelProto, quantised: onnx.ModelProto, activations: dict[str, Activation]
) -> None:
    """Take the mean of what rounding the weights adds out of the biases of ``proto``, in place."""
    constants = {t.name: t for t in proto.graph.initializer}
    rounded = _rounded_weights(quantised)
    for node in proto.graph.node:
        if node.op_type != "Conv" or node.name not in rounded or len(node.input) < 3:
            continue
        bias = constants.get(node.input[2])
        weights = constants.get(node.input[1])
        mean = activations[node.input[0]].mean if node.input[0] in activations else None
        if bias is None or weights is None or mean is None:
            continue
        values = numpy_helper.to_array(weights)
        if values.shape[1] != mean.size:  # grouped: each group sees its own inputs
            continue
        error = (rounded[node.name] - values).reshape(*values.shape[:2], -1).sum(axis=2)
        shifted = numpy_helper.to_array(bias) - error @ mean
        bias.CopyFrom(numpy_helper.from_array(shifted.astype(np.float32), bias.name))


def _rounded_weights(quantised: onnx.ModelProto) -> dict[str, NDArray[np.float64]]:
    """Return the weights of each convolution as int8 rounded them."""
    constants = {t.name: t for t in quantised.graph.initializer}
    scaled = {n.output[0]: n for n in quantised.graph.node if n.op_type == "DequantizeLinear"}
    found = {}
    for node in quantised.graph.node:
        if node.op_type == "Conv" and node.input[1] in scaled:
            inputs = scaled[node.input[1]].input
            if inputs[0] in constants:
                steps = numpy_helper.to_array(constants[inputs[1]]).astype(np.float64)
                whole = numpy_helper.to_array(constants[inputs[0]]).astype(np.float64)
                found[node.name] = whole * steps.reshape(-1, *(1,) * (whole.ndim - 1))
    return found


def _floats(proto: onnx.ModelProto) -> set[str]:
    graph = proto.graph
    known = (*graph.value_info, *graph.input, *graph.output)
    return {v.name for v in known if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
