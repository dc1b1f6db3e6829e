"""Graph attention layers, drop-ins for PyG's ``GATConv`` and ``GATv2Conv``.

GAT: Velickovic et al., ICLR 2018; GATv2, whose scores see both ends together: Brody et al., 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.ops.graph.csr import CsrGraph
from kernels.ops.graph.edge_softmax import gat_attention, gatv2_attention


def _joined(out: Tensor, bias: Tensor | None, *, concat: bool) -> Tensor:
    """Return heads side by side, [n, H * C], or their mean, [n, C], with the bias."""
    joined = out.flatten(1) if concat else out.mean(dim=1)
    return joined if bias is None else joined + bias


class GATConv(nn.Module):
    """One hop of attention.

    Parameters are named as in ``torch_geometric.nn.GATConv``: state dicts go both ways. Edge
    attributes, residuals and dropout of attention are left out, and self loops are the graph's
    own edges: pair it with PyG's ``add_self_loops=False``.

    Attributes:
        heads: Number of heads H.
        out_channels: Channels per head C.
        concat: Whether heads stand side by side in the result, or are averaged.
        negative_slope: Slope of the leaky ReLU below 0.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        *,
        concat: bool = True,
        negative_slope: float = 0.2,
        bias: bool = True,
    ) -> None:
        """Make the layer; two ``in_channels`` give sources and targets weights of their own."""
        super().__init__()
        self.heads, self.out_channels, self.concat = heads, out_channels, concat
        self.negative_slope = negative_slope
        width = heads * out_channels
        self.lin = self.lin_src = self.lin_dst = None
        if isinstance(in_channels, int):
            self.lin = nn.Linear(in_channels, width, bias=False)
        else:
            self.lin_src = nn.Linear(in_channels[0], width, bias=False)
            self.lin_dst = nn.Linear(in_channels[1], width, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.bias = nn.Parameter(torch.zeros(width if concat else out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew as PyG does (Glorot and Bengio, AISTATS 2010)."""
        for layer in (self.lin, self.lin_src, self.lin_dst):
            if layer is not None:
                nn.init.xavier_uniform_(layer.weight)
        for attention in (self.att_src, self.att_dst):
            nn.init.xavier_uniform_(attention)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], graph: CsrGraph, backend: str | None = None
    ) -> Tensor:
        """Return the new features of the targets, [n_dst, H * C] or [n_dst, C].

        Args:
            x: Features [n, in_channels], or of sources [n_src, ...] and targets [n_dst, ...].
            graph: The edges.
            backend: See `gat_attention`.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        from_src = self.lin or self.lin_src
        from_dst = self.lin or self.lin_dst
        if from_src is None or from_dst is None:
            raise ValueError("GATConv: no weights for the sources or for the targets")
        moved = from_src(source)
        out = gat_attention(
            graph,
            moved.view(-1, self.heads, self.out_channels),
            functional.linear(source, self._scorer(from_src.weight, self.att_src)),
            functional.linear(target, self._scorer(from_dst.weight, self.att_dst)),
            negative_slope=self.negative_slope,
            backend=backend,
        )
        return _joined(out, self.bias, concat=self.concat)

    def _scorer(self, weight: Tensor, attention: Tensor) -> Tensor:
        """Return [H, in_channels], which scores nodes as they come in: ``att . (W x)``.

        A product as small as this replaces a pass over all transformed nodes, forth and back.
        """
        split = weight.view(self.heads, self.out_channels, -1)
        return (attention[0][:, :, None] * split).sum(dim=1)


class GATv2Conv(nn.Module):
    """One hop of attention whose scores look at both ends together.

    Parameters are named as in ``torch_geometric.nn.GATv2Conv``; what `GATConv` says of edge
    attributes, residuals, dropout and self loops holds here, too.

    Attributes:
        heads: Number of heads H.
        out_channels: Channels per head C.
        concat: Whether heads stand side by side in the result, or are averaged.
        negative_slope: Slope of the leaky ReLU below 0.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        *,
        concat: bool = True,
        negative_slope: float = 0.2,
        bias: bool = True,
        share_weights: bool = False,
    ) -> None:
        """Make the layer; ``share_weights`` transforms targets as sources."""
        super().__init__()
        self.heads, self.out_channels, self.concat = heads, out_channels, concat
        self.negative_slope = negative_slope
        pair = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        width = heads * out_channels
        self.lin_l = nn.Linear(pair[0], width, bias=bias)
        self.lin_r = self.lin_l if share_weights else nn.Linear(pair[1], width, bias=bias)
        self.att = nn.Parameter(torch.empty(1, heads, out_channels))
        self.bias = nn.Parameter(torch.zeros(width if concat else out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew as PyG does (Glorot and Bengio, AISTATS 2010)."""
        for layer in (self.lin_l, self.lin_r):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.att)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor | tuple[Tensor, Tensor], graph: CsrGraph, backend: str | None = None
    ) -> Tensor:
        """Return the new features of the targets, [n_dst, H * C] or [n_dst, C].

        Args:
            x: Features [n, in_channels], or of sources [n_src, ...] and targets [n_dst, ...].
            graph: The edges.
            backend: See `gatv2_attention`.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        sent = self.lin_l(source)
        shared = self.lin_r is self.lin_l and source is target
        own = sent if shared else self.lin_r(target)
        out = gatv2_attention(
            graph,
            sent.view(-1, self.heads, self.out_channels),
            own.view(-1, self.heads, self.out_channels),
            self.att[0],
            negative_slope=self.negative_slope,
            backend=backend,
        )
        return _joined(out, self.bias, concat=self.concat)
