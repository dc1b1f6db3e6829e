"""Attention over every target's edges: edge softmax and weighted sum in one operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.ops.graph import attention, attention_v2
from kernels.ops.graph.aggregation import check_reals, flat
from kernels.ops.graph.backend import BACKENDS, choose
from kernels.ops.graph.csr import CsrGraph
from kernels.ops.graph.reference import gat_reference, gatv2_reference
from kernels.ops.graph.threads import by_columns, by_edges, fixed_parts, share


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
        backend: "cpu", "triton" or "reference"; None for the best one here.

    Returns:
        [n_dst, H, C], 0 for targets without edges.

    Raises:
        ValueError: For shapes, dtypes or devices that do not fit, or a backend that is missing.
    """
    heads = x.shape[1] if x.dim() == 3 else -1
    wanted = ((graph.n_src, heads), (graph.n_dst, heads))
    if x.dim() != 3 or len(x) != graph.n_src:
        raise ValueError(f"gat: x must be [{graph.n_src}, H, C]; got {list(x.shape)}")
    _require_channels("gat", x)
    if (tuple(score_src.shape), tuple(score_dst.shape)) != wanted:
        raise ValueError(
            f"gat: scores must be {list(wanted[0])} and {list(wanted[1])}; got "
            f"{list(score_src.shape)} and {list(score_dst.shape)}"
        )
    check_reals("gat", graph, x=x, score_src=score_src, score_dst=score_dst)
    chosen = choose("gat", backend, x, BACKENDS)
    if chosen == "reference":
        return gat_reference(graph, x, score_src, score_dst, negative_slope)
    if chosen == "triton":
        from kernels.ops.graph.triton_attention import TritonGat

        return TritonGat.apply(graph, x, score_src, score_dst, negative_slope)  # type: ignore[no-any-return]  # torch's
    return _Gat.apply(graph, x, score_src, score_dst, negative_slope)  # type: ignore[no-any-return]  # torch's


def gatv2_attention(
    graph: CsrGraph,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    *,
    negative_slope: float = 0.2,
    backend: str | None = None,
) -> Tensor:
    """Return ``sum_e alpha_e x_src[source]`` of every target, GATv2's attention.

    ``alpha`` is the softmax over a target's edges of ``att . leaky_relu(x_src + x_dst)`` (Brody,
    Alon and Yahav, ICLR 2022).

    Args:
        graph: The edges.
        x_src: float32 or float64 [n_src, H, C].
        x_dst: [n_dst, H, C].
        att: [H, C].
        negative_slope: Slope of the leaky ReLU below 0.
        backend: "cpu", "triton" or "reference"; None for the best one here.

    Returns:
        [n_dst, H, C], 0 for targets without edges.

    Raises:
        ValueError: For shapes, dtypes or devices that do not fit, or a backend that is missing.
    """
    if x_src.dim() != 3 or len(x_src) != graph.n_src:
        raise ValueError(f"gatv2: x_src must be [{graph.n_src}, H, C]; got {list(x_src.shape)}")
    _require_channels("gatv2", x_src)
    sizes = x_src.shape[1:]
    if (x_dst.shape, att.shape) != (torch.Size([graph.n_dst, *sizes]), sizes):
        raise ValueError(
            f"gatv2: x_dst must be {[graph.n_dst, *sizes]} and att {list(sizes)}; got "
            f"{list(x_dst.shape)} and {list(att.shape)}"
        )
    check_reals("gatv2", graph, x_src=x_src, x_dst=x_dst, att=att)
    chosen = choose("gatv2", backend, x_src, BACKENDS)
    if chosen == "reference":
        return gatv2_reference(graph, x_src, x_dst, att, negative_slope)
    if chosen == "triton":
        from kernels.ops.graph.triton_attention_v2 import TritonGatV2

        return TritonGatV2.apply(graph, x_src, x_dst, att, negative_slope)  # type: ignore[no-any-return]  # torch's
    return _GatV2.apply(graph, x_src, x_dst, att, negative_slope)  # type: ignore[no-any-return]  # torch's


def _require_channels(operator: str, x: Tensor) -> None:
    if 0 in x.shape[1:]:
        raise ValueError(f"{operator}: at least one head and one channel, got {list(x.shape)}")


def _add_products(
    graph: CsrGraph, out: Tensor, gradient: NDArray[Any], record: NDArray[Any]
) -> None:
    """Complete the targets' records, see `attention.gat_products`; ``out`` is [n_dst, H, C]."""
    result, (heads, channels) = flat(out), out.shape[1:]

    def part(start: int, stop: int) -> None:
        attention.gat_products(result, gradient, heads, channels, record, start, stop)

    share(part, by_edges(graph.csr.indptr.numpy(), 1))


class _Gat(torch.autograd.Function):
    """Saves a record per target beside its inputs and its result, nothing per edge."""

    @staticmethod
    def forward(
        ctx: Any, graph: CsrGraph, x: Tensor, score_src: Tensor, score_dst: Tensor, slope: float
    ) -> Tensor:
        heads, channels = x.shape[1:]
        record = x.new_empty(graph.n_dst * attention.FIELDS * heads)
        out = x.new_empty(graph.n_dst, heads, channels)
        indptr, indices, _ = graph.csr.arrays()
        inputs = flat(x), flat(score_src), flat(score_dst)
        targets, sizes = (record.numpy(), flat(out)), ((0,) * heads, (0,) * channels)

        def part(start: int, stop: int) -> None:
            attention.gat_forward(indptr, indices, *inputs, slope, *sizes, *targets, start, stop)

        share(part, by_edges(indptr, heads * channels))
        ctx.graph, ctx.slope = graph, slope
        ctx.save_for_backward(x, score_src, record, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        graph: CsrGraph = ctx.graph
        x, score_src, record, out = ctx.saved_tensors
        heads, channels = x.shape[1:]
        records, g = record.numpy(), flat(gradient)
        _add_products(graph, out, g, records)
        dx, dsrc = x.new_empty(x.shape), x.new_empty(score_src.shape)
        indptr, indices, _ = graph.csc.arrays()
        inputs, sizes = (flat(x), flat(score_src), records), ((0,) * heads, (0,) * channels)
        bounds = fixed_parts(indptr, graph.n_dst)
        # Sources share targets: every part has sums of its own, added up in order below.
        partial = x.new_zeros(len(bounds) - 1, graph.n_dst, heads)
        by_source, sums = (flat(dx), flat(dsrc)), partial.numpy()

        def part(start: int, stop: int) -> None:
            for p in range(start, stop):
                attention.gat_backward(
                    indptr, indices, *inputs, ctx.slope, *sizes, g, *by_source,
                    sums[p].reshape(-1), *bounds[p : p + 2],
                )  # fmt: skip

        share(part, by_columns(len(bounds) - 1, graph.n_edges * heads * channels))
        return None, dx, dsrc, partial.sum(dim=0), None


class _GatV2(torch.autograd.Function):
    """Saves a record per target beside its inputs and its result, nothing per edge."""

    @staticmethod
    def forward(
        ctx: Any, graph: CsrGraph, x_src: Tensor, x_dst: Tensor, att: Tensor, slope: float
    ) -> Tensor:
        heads, channels = att.shape
        record = x_src.new_empty(graph.n_dst * attention.FIELDS * heads)
        out = x_src.new_empty(x_dst.shape)
        indptr, indices, _ = graph.csr.arrays()
        inputs = flat(x_src), flat(x_dst), flat(att)
        targets, sizes = (record.numpy(), flat(out)), ((0,) * heads, (0,) * channels)

        def part(start: int, stop: int) -> None:
            attention_v2.gatv2_forward(
                indptr, indices, *inputs, slope, *sizes, *targets, start, stop
            )

        share(part, by_edges(indptr, heads * channels))
        ctx.graph, ctx.slope = graph, slope
        ctx.save_for_backward(x_src, x_dst, att, record, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        graph: CsrGraph = ctx.graph
        slope: float = ctx.slope
        x_src, x_dst, att, record, out = ctx.saved_tensors
        heads, channels = att.shape
        inputs, records, g = (flat(x_src), flat(x_dst), flat(att)), record.numpy(), flat(gradient)
        indptr, indices, _ = graph.csr.arrays()
        sizes = ((0,) * heads, (0,) * channels)
        _add_products(graph, out, g, records)
        dx, dy = x_src.new_empty(x_src.shape), x_src.new_empty(x_dst.shape)
        dscore = x_src.new_empty(graph.n_edges * heads)
        csc, by_source, by_edge = graph.csc.arrays(), flat(dx), dscore.numpy()

        def sources(start: int, stop: int) -> None:
            attention_v2.gatv2_by_source(
                *csc, *inputs, records, slope, *sizes, g, by_source, by_edge, start, stop
            )

        share(sources, by_edges(csc[0], heads * channels))
        bounds, by_target = fixed_parts(indptr, 0), flat(dy)
        partial = np.zeros((len(bounds) - 1, heads * channels))

        def targets(start: int, stop: int) -> None:
            for p in range(start, stop):
                attention_v2.gatv2_by_target(
                    indptr, indices, *inputs, slope, *sizes, by_edge, by_target, partial[p],
                    *bounds[p : p + 2],
                )  # fmt: skip

        share(targets, by_columns(len(bounds) - 1, graph.n_edges * heads * channels))
        datt = torch.from_numpy(partial.sum(axis=0).reshape(heads, channels)).to(att)
        return None, dx, dy, datt, None
