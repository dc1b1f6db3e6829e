"""Attention over every target's edges: edge softmax and weighted sum in one operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.ops.graph import attention
from kernels.ops.graph.aggregation import check_reals, plain
from kernels.ops.graph.backend import choose
from kernels.ops.graph.csr import CsrGraph
from kernels.ops.graph.reference import gat_reference
from kernels.ops.graph.threads import by_edges, share

UNROLLED = (4, 8, 16, 32, 64)
"""Channels per head for which loops of fixed size are compiled; up to 8 heads."""


def gat_attention(
    graph: CsrGraph,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    *,
    negative_slope: float = 0.2,
    backend: str | None = None,
) -> Tensor:
    """Return ``sum_e alpha_e x[source]`` of every target, GAT's attention.

    ``alpha`` is the softmax over a target's edges of ``leaky_relu(score_src + score_dst)``
    (Velickovic et al., ICLR 2018).

    Args:
        graph: The edges.
        x: float32 or float64 [n_src, H, C], C channels for each of H heads.
        score_src: [n_src, H].
        score_dst: [n_dst, H].
        negative_slope: Slope of the leaky ReLU below 0.
        backend: "cpu" or "reference"; None for the best one here.

    Returns:
        [n_dst, H, C], 0 for targets without edges.

    Raises:
        ValueError: For shapes, dtypes or devices that do not fit, or a backend that is missing.
    """
    heads = x.shape[1] if x.dim() == 3 else -1
    wanted = ((graph.n_src, heads), (graph.n_dst, heads))
    if x.dim() != 3 or len(x) != graph.n_src:
        raise ValueError(f"gat: x must be [{graph.n_src}, H, C]; got {list(x.shape)}")
    if (tuple(score_src.shape), tuple(score_dst.shape)) != wanted:
        raise ValueError(
            f"gat: scores must be {list(wanted[0])} and {list(wanted[1])}; got "
            f"{list(score_src.shape)} and {list(score_dst.shape)}"
        )
    check_reals("gat", graph, x=x, score_src=score_src, score_dst=score_dst)
    if choose("gat", backend, x, ("cpu", "reference")) == "reference":
        return gat_reference(graph, x, score_src, score_dst, negative_slope)
    return _Gat.apply(graph, x, score_src, score_dst, negative_slope)  # type: ignore[no-any-return]


def lanes(heads: int, channels: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return tuples as long as there are heads and channels if loops are compiled for them."""
    fixed = heads <= 8 and channels in UNROLLED
    return ((0,) * heads, (0,) * channels) if fixed else None


class _Gat(torch.autograd.Function):
    """Saves one weight per edge and head beside its inputs and its result."""

    @staticmethod
    def forward(
        ctx: Any, graph: CsrGraph, x: Tensor, score_src: Tensor, score_dst: Tensor, slope: float
    ) -> Tensor:
        heads, channels = x.shape[1:]
        alpha, out = x.new_empty(graph.n_edges, heads), x.new_empty(graph.n_dst, heads, channels)
        indptr, indices, _ = graph.csr.arrays()
        inputs = plain(x), plain(score_src), plain(score_dst)
        targets, sizes = (alpha.numpy(), out.numpy()), lanes(heads, channels)

        def part(start: int, stop: int) -> None:
            attention.gat_forward(indptr, indices, *inputs, slope, sizes, *targets, start, stop)

        share(part, by_edges(indptr, heads * channels))
        ctx.graph, ctx.slope = graph, slope
        ctx.save_for_backward(x, score_src, score_dst, alpha, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        graph: CsrGraph = ctx.graph
        x, score_src, score_dst, alpha, out = ctx.saved_tensors
        heads, channels = x.shape[1:]
        target = torch.stack([score_dst, (gradient * out).sum(dim=2)], dim=1)
        dx, dsrc = torch.empty_like(x), torch.empty_like(score_src)
        dscore = torch.empty_like(alpha)
        inputs = plain(x), plain(score_src), plain(target)
        weights, sizes = (plain(alpha), plain(gradient)), lanes(heads, channels)
        results = dx.numpy(), dsrc.numpy(), dscore.numpy()
        by_source = graph.csc.arrays()

        def part(start: int, stop: int) -> None:
            attention.gat_backward(
                *by_source, *inputs, ctx.slope, sizes, *weights, *results, start, stop
            )

        share(part, by_edges(by_source[0], heads * channels))
        ddst = torch.empty_like(score_dst)
        values, sums, indptr = dscore.numpy(), ddst.numpy(), graph.csr.indptr.numpy()
        share(
            lambda start, stop: attention.sum_edges(indptr, values, sums, start, stop),
            by_edges(indptr, heads),
        )
        return None, dx, dsrc, ddst, None
