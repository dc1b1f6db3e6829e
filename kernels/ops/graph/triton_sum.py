"""Sums and means over CSR rows in Triton: one program per target and block of columns.

Runs on GPUs, and on CPU tensors through Triton's interpreter (``TRITON_INTERPRET=1``), which is
how it is tested where there is no GPU. Nothing is added atomically: results do not vary from run
to run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import language as tl

from kernels.ops.current_device import current_device_of
from kernels.ops.graph.csr import Compressed, CsrGraph
from kernels.ops.graph.triton_rows import launch_sizes

MOST_COLUMNS, PER_WARP = 128, 512


@triton.jit  # type: ignore[untyped-decorator]  # triton has no type information
def _sum_rows(
    indptr: tl.tensor, indices: tl.tensor, weight: tl.tensor, place: tl.tensor, scale: tl.tensor,
    x: tl.tensor, out: tl.tensor, width: tl.tensor, stride: tl.tensor, GATHERED: tl.constexpr,
    WEIGHTED: tl.constexpr, PLACED: tl.constexpr, SCALED: tl.constexpr, MEAN: tl.constexpr,
    COLUMNS: tl.constexpr, EDGES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), out.dtype.element_ty)
    begin, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    for first in range(begin, end, EDGES):
        edge = first + tl.arange(0, EDGES)
        there = edge < end
        # Products of node numbers and widths pass the range of int32.
        other = edge.to(tl.int64)
        if GATHERED:
            other = tl.load(indices + edge, mask=there, other=0).to(tl.int64)
        inside = there[:, None] & (column < width)[None, :]
        rows = tl.load(x + other[:, None] * stride + column[None, :], mask=inside, other=0.0)
        if WEIGHTED:
            at = edge
            if PLACED:
                at = tl.load(place + edge, mask=there, other=0)
            rows *= tl.load(weight + at, mask=there, other=0.0)[:, None]
        if SCALED:
            rows *= tl.load(scale + other, mask=there, other=0.0)[:, None]
        total += tl.sum(rows, 0)
    if MEAN:
        total /= tl.maximum(end - begin, 1).to(out.dtype.element_ty)
    tl.store(out + row.to(tl.int64) * width + column, total, mask=column < width)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _edge_products(
    indptr: tl.tensor, indices: tl.tensor, edge_of: tl.tensor, x: tl.tensor, gradient: tl.tensor,
    out: tl.tensor, width: tl.tensor, stride: tl.tensor, MEAN: tl.constexpr,
    COLUMNS: tl.constexpr, EDGES: tl.constexpr,
) -> None:  # fmt: skip
    """Set each edge's place of ``out`` to the product of its source's row and its target's."""
    row = tl.program_id(0)
    begin, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    for first in range(begin, end, EDGES):
        edge = first + tl.arange(0, EDGES)
        there = edge < end
        other = tl.load(indices + edge, mask=there, other=0).to(tl.int64)
        total = tl.zeros((EDGES,), out.dtype.element_ty)
        for start in range(0, width, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = there[:, None] & (column < width)[None, :]
            rows = tl.load(x + other[:, None] * stride + column[None, :], mask=inside, other=0.0)
            own = tl.load(gradient + row.to(tl.int64) * width + column, mask=column < width)
            total += tl.sum(tl.where(inside, rows * own[None, :], 0.0), 1)
        if MEAN:
            total /= tl.maximum(end - begin, 1).to(out.dtype.element_ty)
        tl.store(out + tl.load(edge_of + edge, mask=there, other=0), total, mask=there)


def sum_rows(
    edges: Compressed,
    x: Tensor,
    rows: int,
    *,
    weight: Tensor | None = None,
    place: Tensor | None = None,
    scale: Tensor | None = None,
    mean: bool = False,
    gathered: bool = True,
) -> Tensor:
    """Return sums of the rows of ``x`` at the other ends of every row's edges, [rows, F].

    Args:
        edges: Edges grouped by row.
        x: float32 or float64 [nodes at the other ends, F]; rows may lie apart.
        rows: How many.
        weight: Factor of each edge, in the order of ``place``.
        place: Where each edge's factor lies; None: in the order of ``edges``.
        scale: Factor of each node at the other end.
        mean: Divide by the number of edges.
        gathered: Whether ``x`` has a row per node; else it has one per edge.
    """
    x = x if x.stride(1) == 1 else x.contiguous()
    width = x.shape[1]
    out = x.new_empty(rows, width)
    if not out.numel():
        return out
    columns = min(MOST_COLUMNS, triton.next_power_of_2(width))
    unused = edges.indices  # any pointer does for what is not read
    with current_device_of(x):
        _sum_rows[rows, triton.cdiv(width, columns)](
            edges.indptr, edges.indices, unused if weight is None else weight,
            unused if place is None else place, unused if scale is None else scale, x, out, width,
            x.stride(0), GATHERED=gathered, WEIGHTED=weight is not None, PLACED=place is not None,
            SCALED=scale is not None, MEAN=mean, COLUMNS=columns, **launch_sizes(columns, PER_WARP),
        )  # fmt: skip
    return out


class TritonSum(torch.autograd.Function):
    """Sums and means; saves ``x`` only when the weights need a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        graph: CsrGraph,
        x: Tensor,
        weight: Tensor | None,
        mean: bool,  # noqa: FBT001 - autograd takes no keywords
    ) -> Tensor:
        """Return sums (means) of ``weight * x`` over every target's edges."""
        ctx.graph, ctx.mean = graph, mean
        learns = weight is not None and ctx.needs_input_grad[2]
        ctx.save_for_backward(x if learns else None, weight)
        ordered = None if weight is None else weight[graph.csr.edge]
        return sum_rows(graph.csr, x, graph.n_dst, weight=ordered, mean=mean)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients that are asked for."""
        graph: CsrGraph = ctx.graph
        x, weight = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[1]:
            scale = graph.degree.clamp_min(1).to(gradient.dtype).reciprocal() if ctx.mean else None
            ordered = None if weight is None else weight[graph.csr.edge]
            place = None if weight is None else graph.csc.edge
            dx = sum_rows(
                graph.csc, gradient, graph.n_src, weight=ordered, place=place, scale=scale
            )
        if ctx.needs_input_grad[2]:
            dw = _weight_gradient(graph, x, gradient, mean=ctx.mean)
        return None, dx, dw, None


def _weight_gradient(graph: CsrGraph, x: Tensor, gradient: Tensor, *, mean: bool) -> Tensor:
    x = x if x.stride(1) == 1 else x.contiguous()
    width = x.shape[1]
    out = x.new_zeros(graph.n_edges)
    if out.numel() and width:
        columns = min(MOST_COLUMNS, triton.next_power_of_2(width))
        with current_device_of(x):
            _edge_products[(graph.n_dst,)](
                graph.csr.indptr, graph.csr.indices, graph.csr.edge, x, gradient.contiguous(), out,
                width, x.stride(0), MEAN=mean, COLUMNS=columns, **launch_sizes(columns, PER_WARP),
            )  # fmt: skip
    return out
