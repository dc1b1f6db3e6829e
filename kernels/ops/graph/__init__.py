"""Message passing on graphs: CSR, aggregation, attention, layers and a temporal sampler.

Public names load on first use, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernels.ops.graph.aggregation import aggregate as aggregate
    from kernels.ops.graph.csr import CsrGraph as CsrGraph
    from kernels.ops.graph.edge_message import pool_messages as pool_messages
    from kernels.ops.graph.edge_softmax import gat_attention as gat_attention
    from kernels.ops.graph.edge_softmax import gatv2_attention as gatv2_attention
    from kernels.ops.graph.gat import GATConv as GATConv
    from kernels.ops.graph.gat import GATv2Conv as GATv2Conv
    from kernels.ops.graph.hetero import HeteroConv as HeteroConv
    from kernels.ops.graph.sage import SAGEConv as SAGEConv
    from kernels.ops.graph.sampler import TemporalSampler as TemporalSampler

_HOME = {
    "CsrGraph": "csr",
    "GATConv": "gat",
    "GATv2Conv": "gat",
    "HeteroConv": "hetero",
    "SAGEConv": "sage",
    "TemporalSampler": "sampler",
    "aggregate": "aggregation",
    "gat_attention": "edge_softmax",
    "gatv2_attention": "edge_softmax",
    "pool_messages": "edge_message",
}
__all__ = [
    "CsrGraph",
    "GATConv",
    "GATv2Conv",
    "HeteroConv",
    "SAGEConv",
    "TemporalSampler",
    "aggregate",
    "gat_attention",
    "gatv2_attention",
    "pool_messages",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
