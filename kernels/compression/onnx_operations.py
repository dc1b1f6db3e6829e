"""What the nodes of an ONNX file compute, in torch, with gradients.

Only what exported nets are made of; values are tensors, shapes among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from kernels.compression.export import ExportError

Values = Sequence[Tensor | None]
Attributes = Mapping[str, Any]
Operation = Callable[[Values, Attributes], Tensor | Sequence[Tensor]]
DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name; words as `str`."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def require_known(nodes: Sequence[onnx.NodeProto], beside: Sequence[str] = ()) -> None:
    """Raise `ExportError` for operators that have no function here.

    Args:
        nodes: Of a graph.
        beside: Operators that the caller computes itself.
    """
    unknown = sorted({n.op_type for n in nodes} - OPERATIONS.keys() - set(beside))
    if unknown:
        raise ExportError(
            f"training on the file's grid does not know {', '.join(unknown)}; "
            "leave that part out of the net that is trained, or add it to onnx_operations.py"
        )


def _tensor(values: Values, place: int) -> Tensor:
    found = values[place]
    if found is None:
        raise ExportError(f"input {place} of a node is missing in the file")
    return found


def _numbers(values: Values, place: int) -> list[int]:
    return [int(each) for each in _tensor(values, place).reshape(-1).tolist()]


def _optional(values: Values, place: int) -> Tensor | None:
    return values[place] if len(values) > place else None


def _padded(x: Tensor, set_to: Attributes, spatial: int, value: float) -> Tensor:
    if set_to.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        raise ExportError("padding by auto_pad is not known; export with pads as numbers")
    pads = list(set_to.get("pads", [0] * 2 * spatial))
    if not any(pads):
        return x
    ends = [
        side for axis in reversed(range(spatial)) for side in (pads[axis], pads[axis + spatial])
    ]
    return functional.pad(x, ends, value=value)


def _conv(values: Values, set_to: Attributes) -> Tensor:
    x, weight = _tensor(values, 0), _tensor(values, 1)
    spatial = weight.dim() - 2
    if spatial not in {1, 2}:
        raise ExportError(f"a convolution over {spatial} dimensions is not known; 1 and 2 are")
    product = functional.conv1d if spatial == 1 else functional.conv2d
    stride, dilation = (set_to.get(n, [1] * spatial) for n in ("strides", "dilations"))
    padded = _padded(x, set_to, spatial, 0.0)
    bias = _optional(values, 2)
    return product(padded, weight, bias, stride, 0, dilation, set_to.get("group", 1))


def _gemm(values: Values, set_to: Attributes) -> Tensor:
    a, b, c = _tensor(values, 0), _tensor(values, 1), _optional(values, 2)
    a = a.mT if set_to.get("transA", 0) else a
    b = b.mT if set_to.get("transB", 0) else b
    product: Tensor = set_to.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + set_to.get("beta", 1.0) * c


def _clip(values: Values, set_to: Attributes) -> Tensor:
    del set_to
    return torch.clamp(_tensor(values, 0), _optional(values, 1), _optional(values, 2))


def _max_pool(values: Values, set_to: Attributes) -> Tensor:
    kernel = list(set_to["kernel_shape"])
    if len(kernel) != 2 or set_to.get("ceil_mode", 0):
        raise ExportError("pooling is known over 2 dimensions and without ceil_mode")
    x = _padded(_tensor(values, 0), set_to, 2, float("-inf"))
    stride, dilation = (set_to.get(n, [1, 1]) for n in ("strides", "dilations"))
    return functional.max_pool2d(x, kernel, stride, 0, dilation)


def _average_pool(values: Values, set_to: Attributes) -> Tensor:
    kernel, pads = list(set_to["kernel_shape"]), list(set_to.get("pads", [0] * 4))
    if len(kernel) != 2 or set_to.get("ceil_mode", 0) or pads[:2] != pads[2:]:
        raise ExportError("pooling is known over 2 dimensions, with equal pads, without ceil_mode")
    return functional.avg_pool2d(
        _tensor(values, 0), kernel, set_to.get("strides", [1, 1]), pads[:2],
        count_include_pad=bool(set_to.get("count_include_pad", 0)),
    )  # fmt: skip


def _mean(values: Values, set_to: Attributes) -> Tensor:
    x, given = _tensor(values, 0), _optional(values, 1)
    axes = _numbers(values, 1) if given is not None else list(set_to.get("axes", range(x.dim())))
    return x.mean(axes, keepdim=bool(set_to.get("keepdims", 1)))


def _reshape(values: Values, set_to: Attributes) -> Tensor:
    x, shape = _tensor(values, 0), _numbers(values, 1)
    if not set_to.get("allowzero", 0):
        shape = [x.shape[i] if each == 0 else each for i, each in enumerate(shape)]
    return x.reshape(shape)


def _squeeze(values: Values, set_to: Attributes) -> Tensor:
    del set_to
    x = _tensor(values, 0)
    axes = _numbers(values, 1) if _optional(values, 1) is not None else range(x.dim())
    return x.squeeze([axis for axis in axes if x.shape[axis] == 1])


def _unsqueeze(values: Values, set_to: Attributes) -> Tensor:
    del set_to
    x = _tensor(values, 0)
    axes = _numbers(values, 1)
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(values: Values, set_to: Attributes) -> Tensor:
    del set_to
    x, starts, ends = _tensor(values, 0), _numbers(values, 1), _numbers(values, 2)
    axes = _numbers(values, 3) if _optional(values, 3) is not None else range(len(starts))
    steps = _numbers(values, 4) if _optional(values, 4) is not None else [1] * len(starts)
    cut: list[slice] = [slice(None)] * x.dim()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise ExportError("a slice that goes backwards is not known")
        cut[axis] = slice(start, end, step)
    return x[tuple(cut)]


def _split(values: Values, set_to: Attributes) -> Sequence[Tensor]:
    x, axis = _tensor(values, 0), set_to.get("axis", 0)
    if _optional(values, 1) is not None:
        return x.split_with_sizes(_numbers(values, 1), axis)
    return x.chunk(set_to["num_outputs"], axis)


def _gather(values: Values, set_to: Attributes) -> Tensor:
    x, index, axis = _tensor(values, 0), _tensor(values, 1), set_to.get("axis", 0)
    axis %= x.dim()
    picked = x.index_select(axis, index.reshape(-1) % x.shape[axis])
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _shape(values: Values, set_to: Attributes) -> Tensor:
    return torch.tensor(_tensor(values, 0).shape[set_to.get("start", 0) : set_to.get("end")])


def _norm(values: Values, set_to: Attributes) -> Tensor:
    x, weight, axis = _tensor(values, 0), _tensor(values, 1), set_to.get("axis", -1)
    return functional.layer_norm(
        x, x.shape[axis:], weight, _optional(values, 2), set_to.get("epsilon", 1e-5)
    )


def _gelu(values: Values, set_to: Attributes) -> Tensor:
    return functional.gelu(_tensor(values, 0), approximate=set_to.get("approximate", "none"))


def _one(function: Callable[[Tensor], Tensor]) -> Operation:
    return lambda values, _: function(_tensor(values, 0))


def _two(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    return lambda values, _: function(_tensor(values, 0), _tensor(values, 1))


OPERATIONS: dict[str, Operation] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _two(torch.matmul),
    "Add": _two(torch.add),
    "Sub": _two(torch.sub),
    "Mul": _two(torch.mul),
    "Div": _two(lambda a, b: a / b if a.is_floating_point() else a // b),
    "Pow": _two(torch.pow),
    "Relu": _one(torch.relu),
    "Clip": _clip,
    "Sigmoid": _one(torch.sigmoid),
    "Tanh": _one(torch.tanh),
    "Erf": _one(torch.erf),
    "Sqrt": _one(torch.sqrt),
    "Gelu": _gelu,
    "HardSwish": _one(functional.hardswish),
    "HardSigmoid": lambda v, a: torch.clamp(
        a.get("alpha", 0.2) * _tensor(v, 0) + a.get("beta", 0.5), 0, 1
    ),
    "Softmax": lambda v, a: _tensor(v, 0).softmax(a.get("axis", -1)),
    "LayerNormalization": _norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _one(lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True)),
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Flatten": lambda v, a: _tensor(v, 0).flatten(a.get("axis", 1)),
    "Transpose": lambda v, a: _tensor(v, 0).permute(a["perm"]),
    "Concat": lambda v, a: torch.cat([each for each in v if each is not None], a["axis"]),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Expand": lambda v, _: (
        _tensor(v, 0)
        * torch.ones(_numbers(v, 1), dtype=_tensor(v, 0).dtype, device=_tensor(v, 0).device)
    ),
    "Shape": _shape,
    "Cast": lambda v, a: _tensor(v, 0).to(DTYPES[a["to"]]),
    "Identity": _one(lambda x: x),
}
"""Operator -> function of its inputs and attributes."""
