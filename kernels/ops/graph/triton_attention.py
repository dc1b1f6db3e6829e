"""Fused edge softmax and weighted sum in Triton (GAT): a program per target, all heads at once.

The softmax keeps a running maximum and total over a target's edges; the gradient computes an edge's
weight again from the saved log-sum-exp (FlashAttention, Dao et al. 2022, over sparse rows). What
reaches the targets' scores goes by a number per edge and head, added up by target afterwards: no
atomic sums, results do not vary from run to run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import language as tl

from kernels.ops.current_device import current_device_of
from kernels.ops.graph.csr import CsrGraph
from kernels.ops.graph.triton_rows import EMPTY, launch_sizes, leaky
from kernels.ops.graph.triton_sum import sum_rows

PER_WARP = 128
"""Numbers of a program's rows that a warp holds; the weights' arithmetic wants more of them."""


@triton.jit  # type: ignore[untyped-decorator]  # triton has no type information
def _gat_forward(
    indptr: tl.tensor, indices: tl.tensor, x: tl.tensor, score_src: tl.tensor,
    score_dst: tl.tensor, out: tl.tensor, lse: tl.tensor, heads: tl.tensor, channels: tl.tensor,
    SLOPE: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr, EDGES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, channel = tl.arange(0, HEADS), tl.arange(0, CHANNELS)
    real = head < heads
    place = head[:, None] * channels + channel[None, :]
    filled = real[:, None] & (channel < channels)[None, :]
    own = tl.load(score_dst + row * heads + head, mask=real, other=0.0)
    kind: tl.constexpr = out.dtype.element_ty
    top, total = tl.full((HEADS,), EMPTY, kind), tl.zeros((HEADS,), kind)
    result = tl.zeros((HEADS, CHANNELS), kind)
    begin, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    for first in range(begin, end, EDGES):
        edge = first + tl.arange(0, EDGES)
        there = edge < end
        other = tl.load(indices + edge, mask=there, other=0).to(tl.int64)
        known = there[:, None] & real[None, :]
        score = tl.load(score_src + other[:, None] * heads + head[None, :], mask=known, other=0.0)
        score = tl.where(there[:, None], leaky(score + own[None, :], SLOPE), EMPTY)
        higher = tl.maximum(top, tl.max(score, 0))
        weight = tl.where(there[:, None], tl.exp(score - higher[None, :]), 0.0)
        shrink = tl.exp(top - higher)
        total = total * shrink + tl.sum(weight, 0)
        rows = tl.load(
            x + other[:, None, None] * heads * channels + place[None, :, :],
            mask=there[:, None, None] & filled[None, :, :], other=0.0,
        )  # fmt: skip
        result = result * shrink[:, None] + tl.sum(weight[:, :, None] * rows, 0)
        top = higher
    result = tl.where(end > begin, result / total[:, None], 0.0)
    tl.store(out + row * heads * channels + place, result, mask=filled)
    tl.store(lse + row * heads + head, top + tl.log(total), mask=real)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _gat_backward(
    indptr: tl.tensor, indices: tl.tensor, edge_of: tl.tensor, x: tl.tensor,
    score_src: tl.tensor, score_dst: tl.tensor, lse: tl.tensor, delta: tl.tensor,
    gradient: tl.tensor, dx: tl.tensor, dsrc: tl.tensor, by_edge: tl.tensor, heads: tl.tensor,
    channels: tl.tensor, SLOPE: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr,
    EDGES: tl.constexpr,
) -> None:  # fmt: skip
    """Reads the edges by source; ``by_edge`` gets the scores' gradients at the targets' places."""
    row = tl.program_id(0).to(tl.int64)
    head, channel = tl.arange(0, HEADS), tl.arange(0, CHANNELS)
    real = head < heads
    place = head[:, None] * channels + channel[None, :]
    filled = real[:, None] & (channel < channels)[None, :]
    own = tl.load(score_src + row * heads + head, mask=real, other=0.0)
    value = tl.load(x + row * heads * channels + place, mask=filled, other=0.0)
    kind: tl.constexpr = dx.dtype.element_ty
    score_sum, result = tl.zeros((HEADS,), kind), tl.zeros((HEADS, CHANNELS), kind)
    begin, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    for first in range(begin, end, EDGES):
        edge = first + tl.arange(0, EDGES)
        there = edge < end
        other = tl.load(indices + edge, mask=there, other=0).to(tl.int64)
        known = there[:, None] & real[None, :]
        at = other[:, None] * heads + head[None, :]
        score = tl.load(score_dst + at, mask=known, other=0.0) + own[None, :]
        shift = tl.load(lse + at, mask=known, other=float("inf"))
        weight = tl.exp(leaky(score, SLOPE) - shift)
        rows = tl.load(
            gradient + other[:, None, None] * heads * channels + place[None, :, :],
            mask=there[:, None, None] & filled[None, :, :], other=0.0,
        )  # fmt: skip
        result += tl.sum(weight[:, :, None] * rows, 0)
        product = tl.sum(rows * value[None, :, :], 2)
        slope = weight * (product - tl.load(delta + at, mask=known, other=0.0))
        slope = tl.where(score < 0, slope * SLOPE, slope)
        score_sum += tl.sum(slope, 0)
        target = tl.load(edge_of + edge, mask=there, other=0).to(tl.int64)
        tl.store(by_edge + target[:, None] * heads + head[None, :], slope, mask=known)
    tl.store(dx + row * heads * channels + place, result, mask=filled)
    tl.store(dsrc + row * heads + head, score_sum, mask=real)


def head_sizes(heads: int, channels: int) -> dict[str, int]:
    """Return heads and channels as powers of two, and edges and warps for them."""
    wide = {
        "HEADS": triton.next_power_of_2(heads),
        "CHANNELS": triton.next_power_of_2(channels),
    }
    return wide | launch_sizes(wide["HEADS"] * wide["CHANNELS"], PER_WARP)


class TritonGat(torch.autograd.Function):
    """Saves the log-sum-exp of every target beside inputs and result, nothing per edge."""

    @staticmethod
    def forward(
        ctx: Any, graph: CsrGraph, x: Tensor, score_src: Tensor, score_dst: Tensor, slope: float
    ) -> Tensor:
        """Return ``sum_e alpha_e x[source]``, [n_dst, H, C]; see `gat_attention`."""
        x, score_src, score_dst = (t.contiguous() for t in (x, score_src, score_dst))
        heads, channels = x.shape[1:]
        out, lse = x.new_empty(graph.n_dst, heads, channels), x.new_empty(graph.n_dst, heads)
        if out.numel():
            with current_device_of(out):
                _gat_forward[(graph.n_dst,)](
                    graph.csr.indptr, graph.csr.indices, x, score_src, score_dst, out, lse, heads,
                    channels, SLOPE=slope, **head_sizes(heads, channels),
                )  # fmt: skip
        ctx.graph, ctx.slope = graph, slope
        ctx.save_for_backward(x, score_src, score_dst, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of features and scores."""
        graph: CsrGraph = ctx.graph
        x, score_src, score_dst, out, lse = ctx.saved_tensors
        heads, channels = x.shape[1:]
        delta, gradient = (out * gradient).sum(dim=2), gradient.contiguous()
        dx, dsrc = torch.empty_like(x), torch.empty_like(score_src)
        by_edge = x.new_empty(graph.n_edges, heads)
        if dx.numel():
            with current_device_of(dx):
                _gat_backward[(graph.n_src,)](
                    graph.csc.indptr, graph.csc.indices, graph.csc.edge, x, score_src, score_dst,
                    lse, delta, gradient, dx, dsrc, by_edge, heads, channels, SLOPE=ctx.slope,
                    **head_sizes(heads, channels),
                )  # fmt: skip
        ddst = sum_rows(graph.csr, by_edge, graph.n_dst, gathered=False)
        return None, dx, dsrc, ddst, None
