"""Fused edge softmax and weighted sum in Triton (GATv2), whose scores see both ends together.

As in `triton_attention`, but a score is a product over channels: the gradient goes over the edges
twice, by source and by target, and computes their scores again each time.
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
from kernels.ops.graph.triton_attention import head_sizes
from kernels.ops.graph.triton_rows import EMPTY, leaky


@triton.jit  # type: ignore[untyped-decorator]  # triton has no type information
def _gatv2_forward(
    indptr: tl.tensor, indices: tl.tensor, x_src: tl.tensor, x_dst: tl.tensor, att: tl.tensor,
    out: tl.tensor, lse: tl.tensor, heads: tl.tensor, channels: tl.tensor, SLOPE: tl.constexpr,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, EDGES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, channel = tl.arange(0, HEADS), tl.arange(0, CHANNELS)
    place = head[:, None] * channels + channel[None, :]
    filled = (head < heads)[:, None] & (channel < channels)[None, :]
    factor = tl.load(att + place, mask=filled, other=0.0)
    own = tl.load(x_dst + row * heads * channels + place, mask=filled, other=0.0)
    kind: tl.constexpr = out.dtype.element_ty
    top, total = tl.full((HEADS,), EMPTY, kind), tl.zeros((HEADS,), kind)
    result = tl.zeros((HEADS, CHANNELS), kind)
    begin, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    for first in range(begin, end, EDGES):
        edge = first + tl.arange(0, EDGES)
        there = edge < end
        other = tl.load(indices + edge, mask=there, other=0).to(tl.int64)
        rows = tl.load(
            x_src + other[:, None, None] * heads * channels + place[None, :, :],
            mask=there[:, None, None] & filled[None, :, :], other=0.0,
        )  # fmt: skip
        score = tl.sum(leaky(rows + own[None, :, :], SLOPE) * factor[None, :, :], 2)
        score = tl.where(there[:, None], score, EMPTY)
        higher = tl.maximum(top, tl.max(score, 0))
        weight = tl.where(there[:, None], tl.exp(score - higher[None, :]), 0.0)
        shrink = tl.exp(top - higher)
        total = total * shrink + tl.sum(weight, 0)
        result = result * shrink[:, None] + tl.sum(weight[:, :, None] * rows, 0)
        top = higher
    result = tl.where(end > begin, result / total[:, None], 0.0)
    tl.store(out + row * heads * channels + place, result, mask=filled)
    tl.store(lse + row * heads + head, top + tl.log(total), mask=head < heads)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _gatv2_by_source(
    indptr: tl.tensor, indices: tl.tensor, x_src: tl.tensor, x_dst: tl.tensor, att: tl.tensor,
    lse: tl.tensor, delta: tl.tensor, gradient: tl.tensor, dsrc: tl.tensor, heads: tl.tensor,
    channels: tl.tensor, SLOPE: tl.constexpr, HEADS: tl.constexpr, CHANNELS: tl.constexpr,
    EDGES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, channel = tl.arange(0, HEADS), tl.arange(0, CHANNELS)
    place = head[:, None] * channels + channel[None, :]
    filled = (head < heads)[:, None] & (channel < channels)[None, :]
    factor = tl.load(att + place, mask=filled, other=0.0)
    own = tl.load(x_src + row * heads * channels + place, mask=filled, other=0.0)
    result = tl.zeros((HEADS, CHANNELS), dsrc.dtype.element_ty)
    begin, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    for first in range(begin, end, EDGES):
        edge = first + tl.arange(0, EDGES)
        there = edge < end
        other = tl.load(indices + edge, mask=there, other=0).to(tl.int64)
        inside = there[:, None, None] & filled[None, :, :]
        at = other[:, None, None] * heads * channels + place[None, :, :]
        joined = tl.load(x_dst + at, mask=inside, other=0.0) + own[None, :, :]
        rows = tl.load(gradient + at, mask=inside, other=0.0)
        score = tl.sum(leaky(joined, SLOPE) * factor[None, :, :], 2)
        known = there[:, None] & (head < heads)[None, :]
        at_head = other[:, None] * heads + head[None, :]
        weight = tl.exp(score - tl.load(lse + at_head, mask=known, other=float("inf")))
        product = tl.sum(rows * own[None, :, :], 2)
        slope = weight * (product - tl.load(delta + at_head, mask=known, other=0.0))
        steep = tl.where(joined < 0, factor[None, :, :] * SLOPE, factor[None, :, :])
        result += tl.sum(weight[:, :, None] * rows + slope[:, :, None] * steep, 0)
    tl.store(dsrc + row * heads * channels + place, result, mask=filled)


@triton.jit  # type: ignore[untyped-decorator]  # as above
def _gatv2_by_target(
    indptr: tl.tensor, indices: tl.tensor, x_src: tl.tensor, x_dst: tl.tensor, att: tl.tensor,
    lse: tl.tensor, delta: tl.tensor, gradient: tl.tensor, ddst: tl.tensor, datt: tl.tensor,
    heads: tl.tensor, channels: tl.tensor, SLOPE: tl.constexpr, HEADS: tl.constexpr,
    CHANNELS: tl.constexpr, EDGES: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, channel = tl.arange(0, HEADS), tl.arange(0, CHANNELS)
    place = head[:, None] * channels + channel[None, :]
    filled = (head < heads)[:, None] & (channel < channels)[None, :]
    factor = tl.load(att + place, mask=filled, other=0.0)
    own = tl.load(x_dst + row * heads * channels + place, mask=filled, other=0.0)
    upper = tl.load(gradient + row * heads * channels + place, mask=filled, other=0.0)
    shift = tl.load(lse + row * heads + head, mask=head < heads, other=float("inf"))
    less = tl.load(delta + row * heads + head, mask=head < heads, other=0.0)
    result = tl.zeros((HEADS, CHANNELS), ddst.dtype.element_ty)
    factors = tl.zeros((HEADS, CHANNELS), ddst.dtype.element_ty)
    begin, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    for first in range(begin, end, EDGES):
        edge = first + tl.arange(0, EDGES)
        there = edge < end
        other = tl.load(indices + edge, mask=there, other=0).to(tl.int64)
        rows = tl.load(
            x_src + other[:, None, None] * heads * channels + place[None, :, :],
            mask=there[:, None, None] & filled[None, :, :], other=0.0,
        )  # fmt: skip
        joined = rows + own[None, :, :]
        bent = leaky(joined, SLOPE)
        score = tl.sum(bent * factor[None, :, :], 2)
        product = tl.sum(rows * upper[None, :, :], 2)
        slope = tl.exp(score - shift[None, :]) * (product - less[None, :])
        slope = tl.where(there[:, None], slope, 0.0)
        steep = tl.where(joined < 0, factor[None, :, :] * SLOPE, factor[None, :, :])
        result += tl.sum(slope[:, :, None] * steep, 0)
        factors += tl.sum(slope[:, :, None] * bent, 0)
    tl.store(ddst + row * heads * channels + place, result, mask=filled)
    tl.store(datt + row * heads * channels + place, factors, mask=filled)


class TritonGatV2(torch.autograd.Function):
    """Saves the log-sum-exp of every target beside inputs and result, nothing per edge."""

    @staticmethod
    def forward(
        ctx: Any, graph: CsrGraph, x_src: Tensor, x_dst: Tensor, att: Tensor, slope: float
    ) -> Tensor:
        """Return ``sum_e alpha_e x_src[source]``, [n_dst, H, C]; see `gatv2_attention`."""
        x_src, x_dst, att = (t.contiguous() for t in (x_src, x_dst, att))
        heads, channels = att.shape
        out, lse = torch.empty_like(x_dst), x_dst.new_empty(graph.n_dst, heads)
        if out.numel():
            with current_device_of(out):
                _gatv2_forward[(graph.n_dst,)](
                    graph.csr.indptr, graph.csr.indices, x_src, x_dst, att, out, lse, heads,
                    channels, SLOPE=slope, **head_sizes(heads, channels),
                )  # fmt: skip
        ctx.graph, ctx.slope = graph, slope
        ctx.save_for_backward(x_src, x_dst, att, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of both ends' features and of the factors."""
        graph: CsrGraph = ctx.graph
        x_src, x_dst, att, out, lse = ctx.saved_tensors
        heads, channels = att.shape
        delta, gradient = (out * gradient).sum(dim=2), gradient.contiguous()
        given = (x_src, x_dst, att, lse, delta, gradient)
        sizes = {"SLOPE": ctx.slope, **head_sizes(heads, channels)}
        dsrc, ddst, datt = torch.empty_like(x_src), torch.empty_like(x_dst), torch.zeros_like(x_dst)
        if dsrc.numel():
            with current_device_of(dsrc):
                _gatv2_by_source[(graph.n_src,)](
                    graph.csc.indptr, graph.csc.indices, *given, dsrc, heads, channels, **sizes
                )
        if ddst.numel():
            with current_device_of(ddst):
                _gatv2_by_target[(graph.n_dst,)](
                    graph.csr.indptr,
                    graph.csr.indices,
                    *given,
                    ddst,
                    datt,
                    heads,
                    channels,
                    **sizes,
                )
        return None, dsrc, ddst, datt.sum(dim=0), None
