"""Dynamic int8: weights in the file, ranges of activations found anew for every input.

For nets of products and recurrences, where activations vary too much for one range, or no
calibration inputs are at hand. Each run pays for finding ranges. ONNX Runtime computes products and
LSTM in whole numbers; it has no such kernel for GRU, whose weights are stored in 8 bits and made
float again where the net runs. Convolutions stay float: for them static ranges are faster
(`kernels.compression.qdq`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from kernels.compression.export import ExportError
from kernels.compression.ranges import Inputs, Outputs, require_inputs
from kernels.compression.sessions import answers_to

KINDS = ("MatMul", "Gemm", "LSTM")
"""Operators that ONNX Runtime computes with ranges of the moment."""
STORED = ("GRU", "RNN")
"""Operators whose weights are stored in 8 bits; they are the inputs 1 and 2."""
MADE = frozenset({"DynamicQuantizeLSTM", "MatMulInteger", "DynamicQuantizeMatMul"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicConfig:
    """How weights are rounded.

    Attributes:
        per_channel: A step for each column, not one for each matrix.
        seven_bits: Weights of 7 bits, equal on every CPU; see `kernels.compression.qdq`.
        keep_float: Names of nodes that stay float.
        threads: Of ONNX Runtime while the error is measured.
    """

    per_channel: bool = True
    seven_bits: bool = True
    keep_float: tuple[str, ...] = ()
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Dynamic:
    """A file with weights of 8 bits, and what that did to its answers.

    Attributes:
        model: The ONNX file; some operators are ONNX Runtime's own, no other engine reads it.
        error: Output -> root of the mean squared change over the spread of the float answers.
        largest: Output -> largest change of one number.
        operators: Operator -> number of nodes that compute in whole numbers.
        stored: Nodes whose weights are stored in 8 bits and computed with as floats.
    """

    model: bytes
    error: dict[str, float]
    largest: dict[str, float]
    operators: dict[str, int]
    stored: tuple[str, ...]


def quantise_dynamic(
    model: bytes, inputs: Sequence[Inputs], config: DynamicConfig | None = None
) -> Dynamic:
    """Return a file whose products and recurrences have weights of 8 bits.

    Args:
        model: float32 ONNX file.
        inputs: Inputs on which the error is measured; nothing is calibrated by them.
        config: How weights are rounded.

    Raises:
        ExportError: When inputs are missing, of another shape or not finite, or no node can be
            rounded.
    """
    config = config or DynamicConfig()
    proto = onnx.load_model_from_string(model)
    require_inputs(proto.graph, inputs)
    _fold_constants(proto)
    for place, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
    stored = _store(proto.graph, config)
    made = _quantised(proto, config)
    whole = Counter(n.op_type for n in made.graph.node if n.op_type in MADE)
    if not whole and not stored:
        held = sorted({node.op_type for node in proto.graph.node})
        raise ExportError(
            f"no product with constant weights and no recurrence in the file, only "
            f"{', '.join(held)}; convolutions want static ranges: kernels.compression.qdq"
        )
    file = bytes(made.SerializeToString())
    before = answers_to(model, inputs, threads=config.threads)
    after = answers_to(file, inputs, threads=config.threads)
    error, largest = _changes(before, after)
    return Dynamic(file, error, largest, dict(whole), stored)


def _quantised(proto: onnx.ModelProto, config: DynamicConfig) -> onnx.ModelProto:
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode, QuantType

    source = onnx.ModelProto()
    source.CopyFrom(proto)
    quantiser = ONNXQuantizer(
        source,
        config.per_channel,
        config.seven_bits,
        QuantizationMode.IntegerOps,
        False,  # noqa: FBT003 - no static ranges
        QuantType.QInt8,
        QuantType.QUInt8,
        None,
        [],
        list(config.keep_float),
        list(KINDS),
        {"MatMulConstBOnly": True, "WeightSymmetric": True},
    )
    quantiser.quantize_model()
    made: onnx.ModelProto = quantiser.model.model
    return made


def _fold_constants(proto: onnx.ModelProto) -> None:
    """Work out what depends on constants alone, in place.

    The exporter leaves large weights as it finds them and sorts the gates of recurrences in the
    graph; what is rounded must be a constant.
    """
    graph = proto.graph
    known = {t.name for t in graph.initializer}
    constant = []
    for node in graph.node:
        if known.issuperset(name for name in node.input if name):
            constant.append(node)
            known.update(node.output)
    if not constant:
        return
    wanted = [name for node in constant for name in node.output]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    part = onnx.helper.make_graph(constant, "constants", [], outputs, graph.initializer)
    made = onnx.helper.make_model(part, opset_imports=list(proto.opset_import))
    values = ReferenceEvaluator(made).run(None, {})
    gone = {id(node) for node in constant}
    kept = [node for node in graph.node if id(node) not in gone]
    # Copies: what is deleted from the graph takes its messages with it.
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    used = {name for node in copies for name in node.input} | {o.name for o in graph.output}
    tensors = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in zip(wanted, values, strict=True)
        if name in used
    ]
    tensors += [t for t in graph.initializer if t.name in used]
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in tensors]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(copies)
    graph.initializer.extend(tensors)


def _store(graph: onnx.GraphProto, config: DynamicConfig) -> tuple[str, ...]:
    """Store weights of recurrences that have no kernel in 8 bits, a step for each row."""
    constants = {t.name: t for t in graph.initializer}
    top = 64 if config.seven_bits else 127
    stored = []
    for node in list(graph.node):
        if node.op_type not in STORED or node.name in config.keep_float:
            continue
        weights = [n for n in node.input[1:3] if n in constants and constants[n].dims[0] == 1]
        for name in weights:
            value = onnx.numpy_helper.to_array(constants[name])
            step = np.maximum(np.abs(value).max(axis=(0, 2)) / top, 1e-12).astype(np.float32)
            codes = np.clip(np.round(value / step[None, :, None]), -top, top).astype(np.int8)
            zero = np.zeros(len(step), np.int8)
            made = {"int8": codes, "step": step, "zero": zero}
            graph.initializer.extend(
                onnx.numpy_helper.from_array(each, f"{name}_{kind}") for kind, each in made.items()
            )
            names = [f"{name}_{kind}" for kind in made]
            wide = onnx.helper.make_node("DequantizeLinear", names, [f"{name}_float"], axis=1)
            graph.node.insert(0, wide)
            graph.initializer.remove(constants[name])
            for other in graph.node:
                for place, given in enumerate(other.input):
                    if given == name:
                        other.input[place] = f"{name}_float"
            del constants[name]
        if weights:
            stored.append(node.name)
    return tuple(stored)


def _changes(
    before: Sequence[Outputs], after: Sequence[Outputs]
) -> tuple[dict[str, float], dict[str, float]]:
    error, largest = {}, {}
    for name in before[0]:
        whole = np.concatenate([np.ravel(one[name]) for one in before]).astype(np.float64)
        apart = np.concatenate([np.ravel(one[name]) for one in after]) - whole
        error[name] = float(np.sqrt(np.mean(apart**2)) / max(float(whole.std()), 1e-12))
        largest[name] = float(np.abs(apart).max())
    return error, largest
