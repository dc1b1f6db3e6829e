"""Rectified messages with edge attributes, pooled by mean and maximum in one pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.ops.graph import messages
from kernels.ops.graph.aggregation import check_reals, flat
from kernels.ops.graph.backend import choose
from kernels.ops.graph.csr import CsrGraph
from kernels.ops.graph.reference import pool_messages_reference
from kernels.ops.graph.threads import by_columns, by_edges, share


def pool_messages(
    graph: CsrGraph,
    x: Tensor,
    attributes: Tensor,
    weight: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """Return mean and maximum of ``relu(x[source] + attributes @ weight.T)`` of every target.

    GraphSAGE's max-pooling and mean in one (Hamilton et al., NeurIPS 2017), no message kept.

    Args:
        graph: The edges.
        x: float32 or float64 [n_src, F].
        attributes: [edges, A], in the order of the ``edge_index`` that the graph was made from;
            data, which get no gradient.
        weight: [F, A].
        backend: "cpu" or "reference"; None for the best one here.

    Returns:
        [n_dst, 2 F]: means, then maxima; 0 for targets without edges. Of equal largest messages
        the first edge gets the gradient.

    Raises:
        ValueError: For shapes, dtypes or devices that do not fit, attributes that ask for a
            gradient, or a backend that is missing.
    """
    if x.dim() != 2 or len(x) != graph.n_src:
        raise ValueError(f"pool: x must be [{graph.n_src}, F]; got {list(x.shape)}")
    if attributes.dim() != 2 or len(attributes) != graph.n_edges:
        raise ValueError(
            f"pool: attributes must be [{graph.n_edges}, A], a row per edge; got "
            f"{list(attributes.shape)}"
        )
    if weight.shape != (x.shape[1], attributes.shape[1]):
        raise ValueError(
            f"pool: weight must be [{x.shape[1]}, {attributes.shape[1]}]; got {list(weight.shape)}"
        )
    if attributes.requires_grad:
        raise ValueError("pool: attributes get no gradient; pass attributes.detach()")
    check_reals("pool", graph, x=x, attributes=attributes, weight=weight)
    if choose("pool", backend, x, ("cpu", "reference")) == "reference":
        return pool_messages_reference(graph, x, attributes, weight)
    return _Pool.apply(graph, x, attributes, weight)  # type: ignore[no-any-return]  # torch's


class _Pool(torch.autograd.Function):
    """Saves its inputs and the winners of the maxima, int32 [n_dst, F]."""

    @staticmethod
    def forward(ctx: Any, graph: CsrGraph, x: Tensor, attributes: Tensor, weight: Tensor) -> Tensor:
        width = x.shape[1]
        out = x.new_empty(graph.n_dst, 2 * width)
        winner = torch.empty(graph.n_dst * width, dtype=torch.int32)
        edges, sizes = graph.csr.arrays(), _sizes(weight)
        inputs, targets = (flat(x), flat(attributes), flat(weight.t())), (flat(out), winner.numpy())

        def part(start: int, stop: int) -> None:
            messages.pool_forward(*edges, *inputs, width, *sizes, *targets, start, stop)

        share(part, by_edges(edges[0], width))
        ctx.graph = graph
        ctx.save_for_backward(x, attributes, weight, winner)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        graph: CsrGraph = ctx.graph
        x, attributes, weight, winner = ctx.saved_tensors
        width, fields = weight.shape
        dx, dweight = x.new_zeros(x.shape), np.zeros(fields * width)
        edges, sizes = graph.csr.arrays(), _sizes(weight)
        inputs = flat(x), flat(attributes), flat(weight.t())
        winners, g, by_source = winner.numpy(), flat(gradient), flat(dx)

        def part(start: int, stop: int) -> None:
            messages.pool_backward(
                *edges, *inputs, width, *sizes, winners, g, by_source, dweight, start, stop
            )

        groups = width // len(sizes[1]) if width else 0
        share(part, by_columns(groups, graph.n_edges * width))
        return None, dx, None, torch.from_numpy(dweight.reshape(fields, width).T).to(weight)


def _sizes(weight: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return tuples as long as there are attributes, and columns that are taken together."""
    width, fields = weight.shape
    return (0,) * fields, (0,) * math.gcd(width, 16)
