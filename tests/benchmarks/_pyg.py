"""PyTorch Geometric's side of the graph benchmark: the same nets as users of PyG write them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.entity_sage import EntitySage, SageLayer
from models.geometric import HeteroData

with warnings.catch_warnings():
    # torch_geometric 2.8 decorates functions with torch.jit.script at import; torch 2.14 warns.
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric import nn as pyg
    from torch_geometric.utils import scatter

__all__ = ["eager_encoder", "pyg"]


class EagerSageLayer(SageLayer):
    """The encoder's layer by PyG's gather and scatter, every message kept."""

    def forward(self, nodes: Mapping[str, Tensor], graph: HeteroData) -> dict[str, Tensor]:
        out = {kind: self.own[kind](x) for kind, x in nodes.items()}
        for name, relation in zip(self.names, self.relations, strict=True):
            source, _, target = relation
            store = graph[relation]
            past, to = store.edge_index
            said = self.message[name](nodes[source])[past]
            sent = torch.relu(said + self.along[name](store.edge_attr))
            size = len(nodes[target])
            pooled = [scatter(sent, to, dim_size=size, reduce=how) for how in ("mean", "max")]
            out[target] = out[target] + self.joined[name](torch.cat(pooled, dim=1))
        return {kind: torch.relu(x) for kind, x in out.items()}


def eager_encoder(encoder: EntitySage) -> EntitySage:
    """Return an encoder with the same weights whose layers are PyG's."""
    made = EntitySage(encoder.config)
    made.layers = nn.ModuleList([EagerSageLayer(encoder.config) for _ in encoder.layers])
    made.load_state_dict(encoder.state_dict())
    return made
