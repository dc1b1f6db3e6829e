"""Element-wise chains as one compiled loop: memory is read and written once, not at every step.

The gradient is computed with the value again, in one loop per tensor that wants one: of the whole
chain only its input is kept for the backward pass.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.ops.fused.functions import functions_of, inlined
from kernels.ops.fused.steps import MOST_OPERANDS, Operand, Step
from kernels.ops.graph.threads import by_columns, share

REALS = {torch.float32: np.float32, torch.float64: np.float64}
BY_INPUT = -1


class FusedChain(torch.autograd.Function):
    """A chain in one loop, with its gradient."""

    @staticmethod
    def forward(ctx: Any, steps: tuple[Step, ...], x: Tensor, *operands: Tensor) -> Tensor:
        """Return the end of the chain."""
        ctx.steps = steps
        ctx.save_for_backward(x, *operands)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        _run(steps, None, x, operands, out, BY_INPUT)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients that are asked for."""
        x, *operands = ctx.saved_tensors
        found: list[Tensor | None] = []
        for index, tensor in enumerate((x, *operands)):
            if not ctx.needs_input_grad[index + 1]:
                found.append(None)
                continue
            out = torch.empty_like(x, memory_format=torch.contiguous_format)
            _run(ctx.steps, gradient, x, operands, out, index - 1)
            found.append(out.sum_to_size(tensor.shape))
        return None, *found


def fits(x: Tensor, operands: tuple[Tensor, ...]) -> bool:
    """Whether these tensors are of the kind that is compiled for."""
    same = all(o.dtype == x.dtype and o.device == x.device for o in operands)
    return x.dtype in REALS and x.ndim > 0 and same


def _run(
    steps: tuple[Step, ...],
    gradient: Tensor | None,
    x: Tensor,
    operands: Any,
    out: Tensor,
    by: int,
) -> None:
    """Fill ``out`` with the end of the chain, or with the gradient by one of its tensors."""
    if not x.numel():
        return
    width = x.shape[-1]
    # Rows matter only to an operand of one row; else everything is one long row.
    is_row = [o.shape in {(width,), (1,) * (x.ndim - 1) + (width,)} for o in operands]
    columns = width if any(is_row) and x.numel() > width else x.numel()

    def flat(tensor: Tensor) -> Any:
        return tensor.detach().contiguous().view(-1, columns).numpy()

    base = flat(x)
    arrays, moves = [base] * MOST_OPERANDS, [1] * MOST_OPERANDS
    for place, (operand, row) in enumerate(zip(operands, is_row, strict=True)):
        moves[place] = 0 if row and columns == width else 1
        whole = operand if row else operand.expand(x.shape)
        arrays[place] = flat(whole)
    ends = out.view(-1, columns).numpy()
    given = base if gradient is None else flat(gradient)
    value, slope = _loops(steps, REALS[x.dtype])

    def call(start: int, stop: int) -> None:
        if gradient is None:
            value(base, ends, *arrays, *moves, start, stop)
        else:
            slope(base, given, ends, *arrays, *moves, by, start, stop)

    share(call, by_columns(columns, x.numel() * len(steps)))


@cache
def _loops(steps: tuple[Step, ...], real: Any) -> tuple[Any, Any]:
    """Return the compiled loops of a chain: its value, and its value's slope."""
    chained = _identity(real)
    for step in steps:
        chained = _extended(chained, step, real)
    run = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})

    @run  # type: ignore[untyped-decorator]
    def value(x: Any, out: Any, a: Any, b: Any, c: Any, d: Any,
              ma: int, mb: int, mc: int, md: int, start: int, stop: int) -> None:  # fmt: skip
        for r in range(x.shape[0]):
            # Slices, whose places count from zero: others could be negative, which costs a test.
            xs, outs = x[r, start:stop], out[r, start:stop]
            p, q = a[r * ma, start:stop], b[r * mb, start:stop]
            s, t = c[r * mc, start:stop], d[r * md, start:stop]
            for k in range(len(xs)):
                outs[k] = chained(xs[k], (p[k], q[k], s[k], t[k]), BY_INPUT)[0]

    @run  # type: ignore[untyped-decorator]
    def slope(x: Any, gradient: Any, out: Any, a: Any, b: Any, c: Any, d: Any,
              ma: int, mb: int, mc: int, md: int, by: int,
              start: int, stop: int) -> None:  # fmt: skip
        for r in range(x.shape[0]):
            xs, outs, given = x[r, start:stop], out[r, start:stop], gradient[r, start:stop]
            p, q = a[r * ma, start:stop], b[r * mb, start:stop]
            s, t = c[r * mc, start:stop], d[r * md, start:stop]
            for k in range(len(xs)):
                outs[k] = given[k] * chained(xs[k], (p[k], q[k], s[k], t[k]), by)[1]

    return value, slope


def _identity(real: Any) -> Any:
    zero, one = real(0), real(1)

    @inlined  # type: ignore[untyped-decorator]
    def begin(v: Any, _: Any, by: int) -> Any:
        return v, (one if by == BY_INPUT else zero)

    return begin


def _extended(before: Any, step: Step, real: Any) -> Any:
    """Return a chain with one step more: value, and its slope by what ``by`` names."""
    function, zero = functions_of(real)[step.name], real(0)
    if isinstance(step.other, Operand):
        index = step.other.index

        @inlined  # type: ignore[untyped-decorator]
        def with_tensor(v: Any, others: Any, by: int) -> Any:
            value, slope = before(v, others, by)
            result, by_value, by_other = function(value, others[index])
            return result, by_value * slope + (by_other if by == index else zero)

        return with_tensor
    constant = real(0 if step.other is None else step.other)

    @inlined  # type: ignore[untyped-decorator]
    def with_number(v: Any, others: Any, by: int) -> Any:
        value, slope = before(v, others, by)
        result, by_value, _ = function(value, constant)
        return result, by_value * slope

    return with_number
