"""Graphs, nets and training steps of the graph benchmark, of ours and of PyG's make."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.ops.graph import CsrGraph, GATConv, GATv2Conv, SAGEConv, aggregate
from tests.benchmarks._pyg import pyg

Step = Callable[[], object]
Case = dict[str, tuple[nn.Module, Tensor, Any]]
"""Way -> net, its input, and the edges as the net takes them."""


def skewed(nodes: int, edges: int, seed: int) -> Tensor:
    """Return int64 [2, edges]; sources follow a power law, targets are uniform."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, nodes + 1) ** 0.6
    source = rng.permutation(nodes)[rng.choice(nodes, edges, p=share / share.sum())]
    return torch.from_numpy(np.stack([source, rng.integers(0, nodes, edges)]))


class Sage(nn.Module):
    """Two SAGE-mean layers of either make."""

    def __init__(self, make: Any, width: int) -> None:
        super().__init__()
        self.first, self.second = make(width, width), make(width, 2)

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x, graph)), graph)
        return out


class Kept(nn.Module):
    """The same net of ours over features that never change: their means are taken once."""

    def __init__(self, net: Sage, means: Tensor) -> None:
        super().__init__()
        self.net, self.means = net, means

    def forward(self, x: Tensor, graph: CsrGraph) -> Tensor:
        hidden = torch.relu(self.net.first(x, graph, aggregated=self.means))
        out: Tensor = self.net.second(hidden, graph)
        return out


def training_step(net: nn.Module, x: Tensor, graph: Any, loss: Callable[[Tensor], Tensor]) -> Step:
    """Return forward, loss and backward as one call that leaves the gradients in place."""

    def step() -> None:
        net.zero_grad(set_to_none=True)
        loss(net(x, graph)).backward()

    return step


def sparse_rows(graph: CsrGraph) -> Tensor:
    """Return the edges as torch's sparse matrix of rows, the strong baseline of PyG's users."""
    rows, ones = graph.csr, torch.ones(graph.n_edges, device=graph.csr.indptr.device)
    with warnings.catch_warnings():
        # torch calls its sparse rows a beta, and its own checks of them switched off.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            rows.indptr.long(), rows.indices.long(), ones, (graph.n_dst, graph.n_src)
        )


def sage_case(nodes: int, edges: int, width: int, seed: int) -> tuple[Case, Any]:
    """Return way -> (net, input, structure), and the loss."""
    torch.manual_seed(seed)
    edge_index = skewed(nodes, edges, seed)
    x, label = torch.randn(nodes, width), torch.randint(0, 2, (nodes,))
    eager, ours = Sage(pyg.SAGEConv, width), Sage(SAGEConv, width)
    ours.load_state_dict(eager.state_dict())
    graph = CsrGraph(edge_index, nodes, nodes)
    ways: Case = {"eager": (eager, x, edge_index), "csr": (eager, x, sparse_rows(graph))}
    ways["kept"] = (Kept(ours, aggregate(graph, x, reduce="mean")), x, graph)
    ways["ours"] = (ours, x, graph)
    return ways, lambda out: functional.cross_entropy(out, label)


def gat_case(make: str, nodes: int, edges: int, seed: int) -> tuple[Case, Any]:
    """Return the same for one attention layer of 4 heads of 16 channels on 64 inputs."""
    torch.manual_seed(seed)
    edge_index = skewed(nodes, edges, seed)
    x, wanted = torch.randn(nodes, 64), torch.randn(nodes, 64)
    eager = getattr(pyg, make)(64, 16, heads=4, add_self_loops=False)
    ours = {"GATConv": GATConv, "GATv2Conv": GATv2Conv}[make](64, 16, heads=4)
    ours.load_state_dict(eager.state_dict())
    graph = CsrGraph(edge_index, nodes, nodes)
    ways: Case = {"eager": (eager, x, edge_index), "ours": (ours, x, graph)}
    return ways, lambda out: (out * wanted).sum() / nodes
