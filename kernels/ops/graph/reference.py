"""What the graph operators compute, in plain torch: one tensor of messages, then a reduction.

Slow and large (every message exists at once), and readable; autograd gives the gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kernels.ops.graph.csr import CsrGraph

_REDUCE = {"sum": "sum", "mean": "sum", "max": "amax", "min": "amin"}


def aggregate_reference(graph: CsrGraph, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """Return the reduced messages of every target [n_dst, F], 0 without edges.

    Where messages tie for the largest or least, torch shares the gradient out evenly; the other
    implementations give it to the first edge.
    """
    messages = x[graph.csr.indices.long()]
    if weight is not None:
        messages = messages * weight[graph.csr.edge.long()][:, None]
    index = graph.targets[:, None].expand_as(messages)
    empty = x.new_zeros(graph.n_dst, x.shape[1])
    out = empty.scatter_reduce(0, index, messages, _REDUCE[reduce], include_self=False)
    return out / graph.degree.clamp_min(1).to(x.dtype)[:, None] if reduce == "mean" else out


def edge_softmax_reference(graph: CsrGraph, scores: Tensor) -> Tensor:
    """Return the softmax over every target's edges; scores and result are [edges, H], CSR order."""
    index = graph.targets[:, None].expand_as(scores)
    empty = scores.new_zeros(graph.n_dst, scores.shape[1])
    # The largest only shifts the exponents; gradients through it cancel.
    most = empty.scatter_reduce(0, index, scores.detach(), "amax", include_self=False)
    raised = torch.exp(scores - most[graph.targets])
    return raised / empty.index_add(0, graph.targets, raised)[graph.targets]


def gat_reference(
    graph: CsrGraph, x: Tensor, score_src: Tensor, score_dst: Tensor, slope: float
) -> Tensor:
    """Return ``sum_e softmax(leaky_relu(score_src + score_dst)) x`` over edges, [n_dst, H, C]."""
    source, target = graph.csr.indices.long(), graph.targets
    scores = functional.leaky_relu(score_src[source] + score_dst[target], slope)
    alpha = edge_softmax_reference(graph, scores)
    empty = x.new_zeros(graph.n_dst, *x.shape[1:])
    return empty.index_add(0, target, alpha[:, :, None] * x[source])


def gatv2_reference(
    graph: CsrGraph, x_src: Tensor, x_dst: Tensor, att: Tensor, slope: float
) -> Tensor:
    """Return ``sum_e softmax(att . leaky_relu(x_src + x_dst)) x_src`` over edges, [n_dst, H, C]."""
    source, target = graph.csr.indices.long(), graph.targets
    joined = functional.leaky_relu(x_src[source] + x_dst[target], slope)
    alpha = edge_softmax_reference(graph, (joined * att).sum(dim=2))
    empty = x_src.new_zeros(graph.n_dst, *x_src.shape[1:])
    return empty.index_add(0, target, alpha[:, :, None] * x_src[source])


def pool_messages_reference(
    graph: CsrGraph, x: Tensor, attributes: Tensor, weight: Tensor
) -> Tensor:
    """Return mean and maximum of ``relu(x[source] + attributes @ weight.T)``, [n_dst, 2 F]."""
    sent = (
        x[graph.csr.indices.long()] + functional.linear(attributes, weight)[graph.csr.edge.long()]
    )
    index = graph.targets[:, None].expand_as(sent)
    sent, empty = torch.relu(sent), x.new_zeros(graph.n_dst, x.shape[1])
    mean = empty.scatter_reduce(0, index, sent, "sum", include_self=False)
    mean = mean / graph.degree.clamp_min(1).to(x.dtype)[:, None]
    most = empty.scatter_reduce(0, index, sent, "amax", include_self=False)
    return torch.cat([mean, most], dim=1)
