"""GraphSAGE layer (Hamilton, Ying and Leskovec, NeurIPS 2017), a drop-in for PyG's ``SAGEConv``.

``W_l A x`` may be read ``A (W_l x)`` when the aggregation is linear: whichever moves less comes
first (as in DGL's SAGEConv and Seastar, Wu et al., EuroSys 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.ops.graph.aggregation import REDUCTIONS, aggregate
from kernels.ops.graph.csr import CsrGraph

EDGE_COST = 8.0
"""Multiplications of a dense product that take as long as one gathered number."""


def transform_first(
    graph: CsrGraph, inputs: int, outputs: int, *, x_learns: bool, weight_learns: bool
) -> bool:
    """Return whether ``A (W x)`` costs less than ``(A x) W``, gradients included.

    Transforming first aggregates ``outputs`` numbers per edge, and as many again on the way back
    whenever anything learns; aggregating first moves ``inputs``, and goes back only to ``x``.

    Args:
        graph: The edges.
        inputs: Width of ``x``.
        outputs: Width of the result.
        x_learns: Whether ``x`` needs a gradient.
        weight_learns: Whether the weights do.
    """
    edges, dense = EDGE_COST * graph.n_edges, inputs * outputs
    back = 1 + x_learns + weight_learns
    first = edges * outputs * (1 + (x_learns or weight_learns)) + dense * graph.n_src * back
    last = edges * inputs * (1 + x_learns) + dense * graph.n_dst * back
    return first < last


class SAGEConv(nn.Module):
    """One hop: the aggregate of the neighbours and the node itself, each transformed.

    Parameters are named as in ``torch_geometric.nn.SAGEConv``: state dicts go both ways.

    Attributes:
        aggr: Reduction, see `aggregate`.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        aggr: str = "mean",
        *,
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
    ) -> None:
        """Make the layer.

        Args:
            in_channels: Width of sources and targets, or of each.
            out_channels: Width of the result.
            aggr: "mean", "sum", "max" or "min".
            normalize: Scale every result to length 1.
            root_weight: Add the transformed target itself.
            project: Transform sources and apply a ReLU before they are aggregated.
            bias: Learn an offset.

        Raises:
            ValueError: For an unknown ``aggr``.
        """
        super().__init__()
        if aggr not in REDUCTIONS:
            raise ValueError(f"SAGEConv: unknown aggr {aggr!r}; choose from {REDUCTIONS}")
        pair = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        self.aggr, self.normalize = aggr, normalize
        self.lin = nn.Linear(pair[0], pair[0]) if project else None
        self.lin_l = nn.Linear(pair[0], out_channels, bias=bias)
        self.lin_r = nn.Linear(pair[1], out_channels, bias=False) if root_weight else None

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor | None],
        graph: CsrGraph,
        backend: str | None = None,
        *,
        aggregated: Tensor | None = None,
    ) -> Tensor:
        """Return the new features of the targets, [n_dst, out_channels].

        Args:
            x: Features [n, in_channels], or of sources [n_src, ...] and targets [n_dst, ...].
            graph: The edges.
            backend: See `aggregate`.
            aggregated: What `aggregate` gave for the sources, [n_dst, in_channels]: features that
                never change need aggregating once, not in every step.

        Raises:
            ValueError: For shapes that do not fit, and for ``aggregated`` with ``project``, whose
                transformed sources do change.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        if aggregated is not None and self.lin is not None:
            raise ValueError("SAGEConv: aggregated features do not go with project=True")
        if self.lin is not None:
            source = torch.relu(self.lin(source))
        if aggregated is None and self._transform_first(graph, source):
            out = self._transformed(source, target, graph, backend)
        else:
            if aggregated is None:
                aggregated = aggregate(graph, source, reduce=self.aggr, backend=backend)
            out = self.lin_l(aggregated)
            if self.lin_r is not None and target is not None:
                out = out.addmm_(target, self.lin_r.weight.t())
        return functional.normalize(out, dim=-1) if self.normalize else out

    def _transform_first(self, graph: CsrGraph, source: Tensor) -> bool:
        weight, learning = self.lin_l.weight, torch.is_grad_enabled()
        return self.aggr in {"sum", "mean"} and transform_first(
            graph,
            weight.shape[1],
            weight.shape[0],
            x_learns=learning and source.requires_grad,
            weight_learns=learning and weight.requires_grad,
        )

    def _transformed(
        self, source: Tensor, target: Tensor | None, graph: CsrGraph, backend: str | None
    ) -> Tensor:
        """Transform, then aggregate; nodes that are sources and targets are read once for both."""
        weight, own = self.lin_l.weight, None
        if self.lin_r is None or target is None:
            moved = functional.linear(source, weight)
        elif source is target:
            both = torch.cat([weight, self.lin_r.weight])
            moved, own = functional.linear(source, both).tensor_split(2, dim=1)
        else:
            moved, own = functional.linear(source, weight), self.lin_r(target)
        out = aggregate(graph, moved, reduce=self.aggr, backend=backend)
        out = out if own is None else out + own
        return out if self.lin_l.bias is None else out + self.lin_l.bias
