"""Dynamic int8: weights in the file, ranges of activations found anew for every input.

For nets of products and recurrences (LSTM, GRU by its products), where activations vary too much
for one range, or no calibration inputs are at hand. Only weights shrink what is stored; each run
pays for finding ranges. Convolutions stay float: for them static ranges are faster
(`kernels.compression.qdq`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from kernels.compression.export import ExportError
from kernels.compression.ranges import Inputs, Outputs
from kernels.compression.sessions import answers_to

KINDS = ("MatMul", "Gemm", "LSTM")
"""Operators that ONNX Runtime computes with ranges of the moment; its GRU has no such kernel."""
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
        model: The ONNX file; its operators are ONNX Runtime's own, no other engine reads it.
        error: Output -> root of the mean squared change over the spread of the float answers.
        largest: Output -> largest change of one number.
        operators: Operator -> number of nodes that compute in whole numbers.
    """

    model: bytes
    error: dict[str, float]
    largest: dict[str, float]
    operators: dict[str, int]


def quantise_dynamic(
    model: bytes, inputs: Sequence[Inputs], config: DynamicConfig | None = None
) -> Dynamic:
    """Return a file whose products and recurrences have weights of 8 bits.

    Args:
        model: float32 ONNX file.
        inputs: Inputs on which the error is measured; nothing is calibrated by them.
        config: How weights are rounded.

    Raises:
        ExportError: When there are no inputs, they hold NaN or infinity, or no node can be rounded.
    """
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode, QuantType
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    config = config or DynamicConfig()
    _require_finite(inputs)
    proto = onnx.load_model_from_string(model)
    for place, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
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
        [kind for kind in KINDS if kind in IntegerOpsRegistry],
        {"MatMulConstBOnly": True, "WeightSymmetric": True},
    )
    quantiser.quantize_model()
    made = quantiser.model.model
    whole = Counter(n.op_type for n in made.graph.node if n.op_type in MADE)
    if not whole:
        held = sorted({node.op_type for node in proto.graph.node})
        raise ExportError(
            f"no product with constant weights and no LSTM in the file, only {', '.join(held)}; "
            "convolutions want static ranges: kernels.compression.qdq"
        )
    file = bytes(made.SerializeToString())
    before = answers_to(model, inputs, threads=config.threads)
    after = answers_to(file, inputs, threads=config.threads)
    error, largest = _changes(before, after)
    return Dynamic(file, error, largest, dict(whole))


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


def _require_finite(inputs: Sequence[Inputs]) -> None:
    if not inputs:
        raise ExportError("the error is measured on inputs; give some that are like those to come")
    for place, one in enumerate(inputs):
        for name, value in one.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ExportError(f"input {place} holds NaN or infinity in {name}; take it out")
