"""Element-wise chains in torch, one operation after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels.ops.fused.steps import Operand, Step

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "square": torch.square,
    "relu": torch.relu,
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
}


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
NEEDS_TENSOR = {"maximum", "minimum"}


def chain(steps: Sequence[Step], x: Tensor, operands: Sequence[Tensor]) -> Tensor:
    """Apply the steps; see `kernels.ops.fused.chain.Chain`."""
    for step in steps:
        other: Any = operands[step.other.index] if isinstance(step.other, Operand) else step.other
        if other is None:
            x = UNARY[step.name](x)
            continue
        if step.name in NEEDS_TENSOR:
            other = torch.as_tensor(other, dtype=x.dtype, device=x.device)
        x = BINARY[step.name](x, other)
    return x
