"""The graph part of a fraud model: mailboxes, entity embeddings and the net that reads them."""

from __future__ import annotations

from tasks.fraud.graph.model import SIGNALS, GraphError, GraphModel, GraphSettings
from tasks.fraud.graph.part import (
    GraphPart,
    embed_entities,
    fit_graph,
    fit_graph_rows,
)

__all__ = [
    "SIGNALS",
    "GraphError",
    "GraphModel",
    "GraphPart",
    "GraphSettings",
    "embed_entities",
    "fit_graph",
    "fit_graph_rows",
]
