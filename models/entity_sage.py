"""GraphSAGE-style encoder: embeddings of entities from their past neighbourhood.

Hamilton, Ying and Leskovec, "Inductive representation learning on large graphs", NeurIPS 2017,
made heterogeneous: one weight per relation, mean and maximum aggregation, attributes on edges.
There is no per-entity table: an entity never seen in training is embedded like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kernels.ops.graph import CsrGraph, pool_messages

if TYPE_CHECKING:
    from models.geometric import EdgeStorage, HeteroData

Relation = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class EntitySageConfig:
    """Shape of the encoder.

    Attributes:
        inputs: Kind of entity -> node features; pairs, in a fixed order.
        relations: (source kind, name, target kind); messages run from source to target.
        edge: Attributes of an edge.
        columns: Kind of each entity column; the decoders read one embedding per column.
        hidden: Width of the hidden layer.
        embedding: Entries of an embedding (E).
        hops: Message-passing layers.
    """

    inputs: tuple[tuple[str, int], ...]
    relations: tuple[Relation, ...]
    edge: int
    columns: tuple[str, ...]
    hidden: int = 24
    embedding: int = 8
    hops: int = 2

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.inputs or min(self.hidden, self.embedding, self.hops) < 1:
            raise ValueError("entity SAGE: give it node features, and sizes of at least 1")
        kinds = {kind for kind, _ in self.inputs}
        named = {k for source, _, target in self.relations for k in (source, target)}
        unknown = sorted((named | set(self.columns)) - kinds)
        if unknown:
            raise ValueError(f"entity SAGE: kind {unknown[0]!r} has no node features")


def edges_of(store: EdgeStorage, n_src: int, n_dst: int) -> CsrGraph:
    """Return the edges of a relation, grouped once and kept beside their ``edge_index``.

    Args:
        store: Holds ``edge_index``, int64 [2, edges]; another tensor in its place is noticed,
            numbers written into the same one are not.
        n_src: Number of sources.
        n_dst: Number of targets.
    """
    index = store.edge_index
    kept = store.get("grouped")
    if kept is not None:
        made_of, edges = kept
        if made_of is index and (edges.n_src, edges.n_dst) == (n_src, n_dst):
            return edges  # type: ignore[no-any-return]  # stores hold anything
    edges = CsrGraph(index, n_src, n_dst)
    store.grouped = (index, edges)
    return edges


class SageLayer(nn.Module):
    """One hop: every entity joins its own state with mean and maximum of its messages."""

    def __init__(self, config: EntitySageConfig) -> None:
        super().__init__()
        width = config.hidden
        self.names = tuple("__".join(r) for r in config.relations)
        self.relations = config.relations
        self.own = nn.ModuleDict({kind: nn.Linear(width, width) for kind, _ in config.inputs})
        self.message = nn.ModuleDict({name: nn.Linear(width, width) for name in self.names})
        self.along = nn.ModuleDict(
            {name: nn.Linear(config.edge, width, bias=False) for name in self.names}
        )
        self.joined = nn.ModuleDict(
            {name: nn.Linear(2 * width, width, bias=False) for name in self.names}
        )

    def forward(self, nodes: Mapping[str, Tensor], graph: HeteroData) -> dict[str, Tensor]:
        """Return the new state of every entity by kind, float32 [entities, hidden]."""
        out = {kind: self.own[kind](x) for kind, x in nodes.items()}
        for name, relation in zip(self.names, self.relations, strict=True):
            source, _, target = relation
            store = graph[relation]
            edges = edges_of(store, len(nodes[source]), len(nodes[target]))
            # Transform entities, then copy along edges: there are far more edges than entities.
            said = self.message[name](nodes[source])
            along = self.along[name].get_parameter("weight")
            pooled = pool_messages(edges, said, store.edge_attr, along)
            out[target] = out[target] + self.joined[name](pooled)
        return {kind: torch.relu(x) for kind, x in out.items()}


class EntitySage(nn.Module):
    """Encoder with the two decoders that train it: who deals with whom, and is it fraud.

    Attributes:
        config: Its shape.
    """

    def __init__(self, config: EntitySageConfig) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.ModuleDict(
            {kind: nn.Linear(width, config.hidden) for kind, width in config.inputs}
        )
        self.layers = nn.ModuleList([SageLayer(config) for _ in range(config.hops)])
        self.leave = nn.ModuleDict(
            {kind: nn.Linear(config.hidden, config.embedding) for kind, _ in config.inputs}
        )
        wide = len(config.columns) * config.embedding
        self.link = nn.Sequential(nn.Linear(wide, 32), nn.ReLU(), nn.Linear(32, 1))
        self.fraud = nn.Sequential(nn.Linear(wide, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, graph: HeteroData) -> dict[str, Tensor]:
        """Return the embedding of every entity.

        Args:
            graph: ``x`` [entities, inputs] per kind; ``edge_index`` [2, edges] and ``edge_attr``
                [edges, edge] per relation of the config.

        Returns:
            Kind -> float32 [entities, E], each entry in (-1, 1).
        """
        nodes = {k: torch.relu(self.enter[k](graph[k].x)) for k, _ in self.config.inputs}
        for layer in self.layers:
            nodes = layer(nodes, graph)
        return {kind: torch.tanh(self.leave[kind](x)) for kind, x in nodes.items()}

    def decode(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-odds [m] of "these entities deal with each other" and of "it is fraud".

        Args:
            embeddings: float32 [m, C, E], one per entity column.
        """
        flat = embeddings.flatten(1)
        return self.link(flat)[:, 0], self.fraud(flat)[:, 0]
