"""Aggregation of neighbours' features: sum, mean, maximum or minimum over every target's edges."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.ops.graph import sums
from kernels.ops.graph.backend import choose
from kernels.ops.graph.csr import CsrGraph
from kernels.ops.graph.reference import aggregate_reference
from kernels.ops.graph.threads import by_columns, by_edges, share

REDUCTIONS = ("sum", "mean", "max", "min")


def aggregate(
    graph: CsrGraph,
    x: Tensor,
    weight: Tensor | None = None,
    *,
    reduce: str = "sum",
    backend: str | None = None,
) -> Tensor:
    """Return the reduced messages ``weight * x[source]`` of every target.

    Args:
        graph: The edges.
        x: Features of the sources, float32 or float64 [n_src, F].
        weight: One factor per edge, [edges] in the order of the ``edge_index`` that the graph was
            made from, of the dtype of ``x``; None for 1. Both get gradients.
        reduce: "sum", "mean" (over the number of edges), "max" or "min".
        backend: "cpu", "triton" (sums and means) or "reference"; None for the best one here.

    Returns:
        [n_dst, F], 0 for targets without edges. Where messages tie for an extreme, the first edge
        wins and gets the gradient. Equal bit by bit for any number of threads.

    Raises:
        ValueError: For shapes, dtypes or devices that do not fit, an unknown reduction, or a
            backend that is missing.
    """
    _check(graph, x, weight, reduce)
    linear = reduce in {"sum", "mean"}
    offered = ("cpu", "triton", "reference") if linear else ("cpu", "reference")
    chosen = choose("aggregate", backend, x, offered)
    if chosen == "reference":
        return aggregate_reference(graph, x, weight, reduce)
    if chosen == "triton":
        from kernels.ops.graph.triton_sum import TritonSum

        return TritonSum.apply(graph, x, weight, reduce == "mean")  # type: ignore[no-any-return]  # torch's
    if linear:
        return _Sum.apply(graph, x, weight, reduce == "mean")  # type: ignore[no-any-return]  # torch's
    return _Extreme.apply(graph, x, weight, 1 if reduce == "max" else -1)  # type: ignore[no-any-return]  # torch's


def _check(graph: CsrGraph, x: Tensor, weight: Tensor | None, reduce: str) -> None:
    if reduce not in REDUCTIONS:
        raise ValueError(f"aggregate: unknown reduction {reduce!r}; choose from {REDUCTIONS}")
    if x.dim() != 2 or len(x) != graph.n_src:
        raise ValueError(
            f"aggregate: x must be [{graph.n_src}, F], a row per source; got {list(x.shape)}"
        )
    check_reals("aggregate", graph, x=x, **({} if weight is None else {"weight": weight}))
    if weight is not None and weight.shape != (graph.n_edges,):
        raise ValueError(
            f"aggregate: weight must be [{graph.n_edges}], one per edge; got {list(weight.shape)}"
        )


def check_reals(operator: str, graph: CsrGraph, **tensors: Tensor) -> None:
    """Raise `ValueError` unless all are of one dtype, float32 or float64, beside the graph."""
    first = next(iter(tensors.values()))
    for name, tensor in tensors.items():
        if tensor.dtype not in {torch.float32, torch.float64} or tensor.dtype != first.dtype:
            raise ValueError(
                f"{operator}: {name} is {tensor.dtype}; all inputs must be float32, or all "
                f"float64; use {name}.float()"
            )
        if tensor.device != graph.csr.indptr.device:
            raise ValueError(
                f"{operator}: {name} lies on {tensor.device}, the graph on "
                f"{graph.csr.indptr.device}; move one of them"
            )


def plain(tensor: Tensor) -> NDArray[Any]:
    """Return the values as a contiguous NumPy array, shared where they are contiguous already."""
    array: NDArray[Any] = tensor.detach().contiguous().numpy()
    return array


def flat(tensor: Tensor) -> NDArray[Any]:
    """Return the values as one contiguous row, shared where they are contiguous already."""
    return plain(tensor).reshape(-1)


def _reciprocal_degree(graph: CsrGraph, dtype: torch.dtype) -> NDArray[Any]:
    return plain(1.0 / graph.degree.clamp_min(1).to(dtype))


def _ordered(graph: CsrGraph, weight: Tensor | None) -> NDArray[Any] | None:
    """Return the weights in the order of the CSR."""
    return None if weight is None else plain(weight.detach()[graph.csr.edge])


class _Sum(torch.autograd.Function):
    """Sums and means; saves ``x`` only when the weights need a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        graph: CsrGraph,
        x: Tensor,
        weight: Tensor | None,
        mean: bool,  # noqa: FBT001
    ) -> Tensor:
        ctx.graph, ctx.mean, ctx.weighted = graph, mean, weight is not None
        learns = weight is not None and ctx.needs_input_grad[2]
        ctx.save_for_backward(x if learns else None, weight)
        out = x.new_empty(graph.n_dst, x.shape[1])
        indptr, indices, _ = graph.csr.arrays()
        values, target, factors = plain(x), out.numpy(), _ordered(graph, weight)

        def part(start: int, stop: int) -> None:
            sums.sum_rows(indptr, indices, factors, None, None, mean, values, target, start, stop)

        share(part, by_edges(indptr, x.shape[1]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        graph: CsrGraph = ctx.graph
        x, weight = ctx.saved_tensors
        scale = _reciprocal_degree(graph, gradient.dtype) if ctx.mean else None
        g = plain(gradient)
        dx = dw = None
        mean = False  # the scale holds it
        if ctx.needs_input_grad[1]:
            dx = gradient.new_empty(graph.n_src, gradient.shape[1])
            indptr, indices, place = graph.csc.arrays()
            factors, target = _ordered(graph, weight), dx.numpy()
            places = None if factors is None else place

            def by_source(start: int, stop: int) -> None:
                sums.sum_rows(
                    indptr,
                    indices,
                    factors,
                    places,
                    scale,
                    mean,
                    g,
                    target,
                    start,
                    stop,
                )

            share(by_source, by_edges(indptr, g.shape[1]))
        if ctx.needs_input_grad[2]:
            dw = _weight_gradient(graph, x, g, scale)
        return None, dx, dw, None


def _weight_gradient(
    graph: CsrGraph, x: Tensor, gradient: NDArray[Any], scale: NDArray[Any] | None
) -> Tensor:
    indptr, indices, _ = graph.csr.arrays()
    ordered = x.new_empty(graph.n_edges)
    values, out = plain(x), ordered.numpy()

    def part(start: int, stop: int) -> None:
        sums.weight_gradient(indptr, indices, scale, values, gradient, out, start, stop)

    share(part, by_edges(indptr, x.shape[1]))
    return torch.empty_like(ordered).index_copy_(0, graph.csr.edge.long(), ordered)


class _Extreme(torch.autograd.Function):
    """Maxima and minima; saves the winners' places, int32 [n_dst, F]."""

    @staticmethod
    def forward(ctx: Any, graph: CsrGraph, x: Tensor, weight: Tensor | None, sign: int) -> Tensor:
        out = x.new_empty(graph.n_dst, x.shape[1])
        winner = torch.empty(out.shape, dtype=torch.int32)
        ctx.graph = graph
        learns = weight is not None and ctx.needs_input_grad[2]
        ctx.save_for_backward(x if learns else None, weight, winner)
        indptr, indices, _ = graph.csr.arrays()
        values, factors = plain(x), _ordered(graph, weight)
        target, places = out.numpy(), winner.numpy()

        def part(start: int, stop: int) -> None:
            sums.extreme_rows(indptr, indices, factors, sign, values, target, places, start, stop)

        share(part, by_edges(indptr, x.shape[1]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        graph: CsrGraph = ctx.graph
        x, weight, winner = ctx.saved_tensors
        g, places, indices = plain(gradient), winner.numpy(), graph.csr.indices.numpy()
        dx = dw = None
        if ctx.needs_input_grad[1]:
            # Targets share sources but no columns: threads take columns each.
            dx = gradient.new_zeros(graph.n_src, gradient.shape[1])
            factors, by_source = _ordered(graph, weight), dx.numpy()

            def columns(start: int, stop: int) -> None:
                sums.extreme_gradient(indices, factors, places, g, by_source, start, stop)

            share(columns, by_columns(gradient.shape[1], gradient.numel()))
        if ctx.needs_input_grad[2]:
            ordered = gradient.new_zeros(graph.n_edges)
            values, by_edge = plain(x), ordered.numpy()

            def rows(start: int, stop: int) -> None:
                sums.extreme_weight_gradient(indices, places, values, g, by_edge, start, stop)

            share(rows, by_edges(graph.csr.indptr.numpy(), gradient.shape[1]))
            dw = torch.empty_like(ordered).index_copy_(0, graph.csr.edge.long(), ordered)
        return None, dx, dw, None
