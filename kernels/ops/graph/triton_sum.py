"""Sums and means over CSR rows in Triton: one program per target and block of columns.

Runs on GPUs, and on CPU tensors through Triton's interpreter (``TRITON_INTERPRET=1``), which is
how it is tested where there is no GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import language as tl

from kernels.ops.graph.csr import Compressed, CsrGraph

BLOCK = 64


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _sum_rows(
    indptr: Any,
    indices: Any,
    weight: Any,
    x: Any,
    out: Any,
    width: Any,
    BLOCK_WIDTH: tl.constexpr,  # noqa: N803 - Triton's custom for constants
) -> None:
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    inside = column < width
    total = tl.zeros((BLOCK_WIDTH,), dtype=out.dtype.element_ty)
    for e in range(tl.load(indptr + row), tl.load(indptr + row + 1)):
        # Products of node numbers and widths pass the range of int32.
        source = tl.load(indices + e).to(tl.int64)
        factor = tl.load(weight + e)
        total += factor * tl.load(x + source * width + column, mask=inside, other=0.0)
    tl.store(out + row.to(tl.int64) * width + column, total, mask=inside)


def _sum(edges: Compressed, weight: Tensor, x: Tensor, rows: int) -> Tensor:
    width = x.shape[1]
    out = x.new_empty(rows, width)
    if out.numel():
        grid = (rows, triton.cdiv(width, BLOCK))
        _sum_rows[grid](
            edges.indptr, edges.indices, weight, x.contiguous(), out, width, BLOCK_WIDTH=BLOCK
        )
    return out


class TritonSum(torch.autograd.Function):
    """Sums and means; weights and means are one factor per edge."""

    @staticmethod
    def forward(
        ctx: Any,
        graph: CsrGraph,
        x: Tensor,
        weight: Tensor | None,
        mean: bool,  # noqa: FBT001 - autograd takes no keywords
    ) -> Tensor:
        """Return sums (means) of ``weight * x`` over every target's edges."""
        share = 1.0 / graph.degree.clamp_min(1).to(x.dtype)
        scale = share[graph.targets] if mean else x.new_ones(graph.n_edges)
        factor = scale if weight is None else scale * weight[graph.csr.edge]
        ctx.graph = graph
        learns = weight is not None and ctx.needs_input_grad[2]
        ctx.save_for_backward(factor, scale if learns else None, x if learns else None)
        return _sum(graph.csr, factor, x, graph.n_dst)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients that are asked for."""
        graph: CsrGraph = ctx.graph
        factor, scale, x = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[1]:
            dx = _sum(graph.csc, factor[graph.csc.edge], gradient, graph.n_src)
        if ctx.needs_input_grad[2]:
            both = gradient[graph.targets] * x[graph.csr.indices]
            ordered = both.sum(dim=1) * scale
            dw = torch.empty_like(ordered).index_copy_(0, graph.csr.edge.long(), ordered)
        return None, dx, dw, None
