"""Graphs with planted motifs, and nets that have learnt to see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks._pyg import pyg

Pairs = list[tuple[int, int]]
HOUSE: Pairs = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4)]
"""Middle 0 and 1, bottom 2 and 3, top 4 (Ying et al., NeurIPS 2019)."""
RELATIONS = ("paid by", "same device", "pays")


@dataclass(frozen=True, eq=False)
class Planted:
    """A graph and the motif that each node of one belongs to.

    Attributes:
        x: ``[n, F]``.
        edge_index: ``[2, E]``.
        relation: ``[E]``, positions in ``RELATIONS``.
        label: Role of each node, 0 outside motifs ``[n]``.
        motif: Number of the motif of each node, -1 outside ``[n]``.
        of_motif: Whether an edge is one of its motif's ``[E]``.
    """

    x: Tensor
    edge_index: Tensor
    relation: Tensor
    label: Tensor
    motif: NDArray[np.int64]
    of_motif: NDArray[np.bool_]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The relation as ``edge_attr``, one column each ``[E, R]``."""
        return {"edge_attr": functional.one_hot(self.relation, len(RELATIONS)).float()}


def houses(base: int, motifs: int, seed: int) -> Planted:
    """Return houses on a Barabasi-Albert graph, with n / 10 random links (BA-Shapes)."""
    rng = np.random.default_rng(seed)
    ends = list(range(5))  # every node as often as it has links
    links: Pairs = []
    for node in range(5, base):
        others: set[int] = set()
        while len(others) < 5:
            others.add(int(rng.choice(ends)))
        links += [(other, node) for other in sorted(others)]
        ends += [node] * 5 + sorted(others)
    inside = [False] * len(links)
    label, motif = [0] * base, [-1] * base
    for number in range(motifs):
        first = base + 5 * number
        links += [(first + a, first + b) for a, b in HOUSE]
        inside += [True] * len(HOUSE)
        label += [1, 1, 2, 2, 3]
        motif += [number] * 5
        links.append((int(rng.integers(base)), first + int(rng.integers(5))))
        inside.append(False)
    n, known = len(label), {frozenset(link) for link in links}
    wanted = len(links) + n // 10
    while len(links) < wanted:
        a, b = (int(v) for v in rng.integers(n, size=2))
        if a != b and frozenset((a, b)) not in known:
            links.append((a, b))
            inside.append(False)
    both = np.array(links + [(b, a) for a, b in links]).T
    return Planted(
        torch.ones(n, 1),
        torch.from_numpy(both),
        torch.zeros(both.shape[1], dtype=torch.long),
        torch.tensor(label),
        np.array(motif),
        np.array(inside * 2),
    )


def rings(accounts: int, motifs: int, seed: int) -> Planted:
    """Return payments in which a collector is paid by three accounts of one device, twice each.

    Every account of a ring pays strangers, too, and strangers share devices with strangers:
    neither a device nor many payments betrays a ring, only payers of one device.
    """
    rng = np.random.default_rng(seed)
    label, motif = [0] * accounts, [-1] * accounts
    edges: list[tuple[int, int, int]] = []
    inside: list[bool] = []
    for number in range(motifs):
        collector, *mules = range(accounts + 4 * number, accounts + 4 * number + 4)
        label += [1, 2, 2, 2]
        motif += [number] * 4
        ring = [(mule, collector, 0) for mule in mules]
        ring += [(a, b, 1) for a in mules for b in mules if a < b]
        edges += ring
        inside += [True] * len(ring)
    n = len(label)
    for relation, links in ((0, 2 * n), (1, n // 4)):
        ends = rng.integers(n, size=(links, 2))
        kept = ends[ends[:, 0] != ends[:, 1]].tolist()
        edges += [(a, b, relation) for a, b in kept]
        inside += [False] * len(kept)
    # Messages go both ways; a payment is another relation to its payer than to its payee.
    both = edges + [(b, a, 2 if r == 0 else 1) for a, b, r in edges]
    source, target, relation = (torch.tensor(column) for column in zip(*both, strict=True))
    x = torch.from_numpy(rng.normal(size=(n, 2)).astype(np.float32))
    x[:, 0] = 1
    return Planted(
        x,
        torch.stack([source, target]),
        relation,
        torch.tensor(label),
        np.array(motif),
        np.array(inside * 2),
    )


class HouseNet(nn.Module):
    """Three layers that sum over neighbours; the head reads all of them."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.layers = nn.ModuleList(pyg.GraphConv(a, width) for a in (1, width, width))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in self.layers)
        self.head = nn.Linear(3 * width, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return ``[n, 4]``."""
        seen = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.relu(norm(layer(x, edge_index)))
            seen.append(x)
        out: Tensor = self.head(torch.cat(seen, dim=1))
        return out


class RingNet(nn.Module):
    """Two layers whose messages know their relation; the head reads both."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Linear(2, width)
        self.layers = nn.ModuleList(
            pyg.GINEConv(
                nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)),
                edge_dim=len(RELATIONS),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(2 * width, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Return ``[n, 3]``."""
        x, seen = self.embed(x), []
        for layer in self.layers:
            x = torch.relu(layer(x, edge_index, edge_attr))
            seen.append(x)
        out: Tensor = self.head(torch.cat(seen, dim=1))
        return out


class LogOdds(nn.Module):
    """The log-odds of one class of a net."""

    def __init__(self, net: nn.Module, label: int) -> None:
        super().__init__()
        self.net, self.label = net, label
        self.train(net.training)

    def forward(self, x: Tensor, edge_index: Tensor, **more: Tensor) -> Tensor:
        """Return ``[n]``."""
        out = torch.log_softmax(self.net(x, edge_index, **more), dim=1)[:, self.label]
        return out - torch.log(-torch.expm1(out.clamp_max(-1e-7)))


def train(
    net: nn.Module, planted: Planted, more: dict[str, Tensor], steps: int, seed: int
) -> float:
    """Train in place on four fifths of the nodes; return the accuracy on the others."""
    order = torch.randperm(len(planted.label), generator=torch.Generator().manual_seed(seed))
    learnt, kept = order.split([len(order) * 4 // 5, len(order) - len(order) * 4 // 5])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-4)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        out = net(planted.x, planted.edge_index, **more)
        functional.cross_entropy(out[learnt], planted.label[learnt]).backward()
        optimizer.step()
        slower.step()
    net.eval()
    with torch.inference_mode():
        right = net(planted.x, planted.edge_index, **more).argmax(1) == planted.label
    return float(right[kept].float().mean())
