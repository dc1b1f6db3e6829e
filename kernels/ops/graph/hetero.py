"""Layers over several kinds of nodes, a drop-in for PyG's ``HeteroConv``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kernels.ops.graph.csr import CsrGraph

Relation = tuple[str, str, str]

_JOIN = ("sum", "mean", "max", "min", "cat")


class HeteroConv(nn.Module):
    """One layer per relation; what a kind of node receives over several is joined.

    Parameters are named as in ``torch_geometric.nn.HeteroConv``: state dicts go both ways.

    Attributes:
        relations: (source kind, name, target kind) of every layer.
        aggr: How results of several relations are joined.
    """

    def __init__(self, convs: Mapping[Relation, nn.Module], aggr: str = "sum") -> None:
        """Join layers.

        Args:
            convs: Relation -> layer called with (sources, targets) and a graph.
            aggr: "sum", "mean", "max", "min" or "cat".

        Raises:
            ValueError: For an unknown ``aggr``.
        """
        super().__init__()
        if aggr not in _JOIN:
            raise ValueError(f"HeteroConv: unknown aggr {aggr!r}; choose from {_JOIN}")
        self.relations, self.aggr = tuple(convs), aggr
        self.convs = nn.ModuleDict({_key(r): conv for r, conv in convs.items()})

    def forward(
        self, x: Mapping[str, Tensor], graphs: Mapping[Relation, CsrGraph]
    ) -> dict[str, Tensor]:
        """Return the new features of every kind that a relation with a graph leads to.

        Args:
            x: Kind -> features [nodes, ...].
            graphs: Relation -> edges; relations left out send nothing.

        Raises:
            ValueError: For a relation whose kinds have no features.
        """
        received: dict[str, list[Tensor]] = {}
        for relation in self.relations:
            if relation not in graphs:
                continue
            source, _, target = relation
            if source not in x or target not in x:
                raise ValueError(f"HeteroConv: no features for {relation}; there are {sorted(x)}")
            pair = (x[source], x[target])
            out = self.convs[_key(relation)](pair, graphs[relation])
            received.setdefault(target, []).append(out)
        return {kind: self._join(parts) for kind, parts in received.items()}

    def _join(self, parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        if self.aggr == "cat":
            return torch.cat(parts, dim=-1)
        stacked = torch.stack(parts)
        if self.aggr in {"sum", "mean"}:
            return stacked.sum(0) if self.aggr == "sum" else stacked.mean(0)
        return (stacked.max(0) if self.aggr == "max" else stacked.min(0)).values


def _key(relation: Relation) -> str:
    """Return the name under which PyG files a relation's layer."""
    return f"<{'___'.join(relation)}>".replace(".", "#")
