"""What a node's score can depend on: the nodes and edges within some hops, cut out once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.errors import GraphInputError
from tasks.explain.graph.inputs import GraphInputs, Ints


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The computation graph of one node, numbered by distance; the node itself is 0.

    Attributes:
        nodes: Number in the graph of each of the n nodes ``[n]``.
        distance: Hops to the explained node ``[n]``.
        edges: Number in the graph of each of the e edges ``[e]``, those into nodes fewer than
            ``hops`` hops away.
        source: Where each edge begins ``[e]``.
        target: Where it ends ``[e]``.
        hops: How far messages travel.
    """

    nodes: Ints
    distance: Ints
    edges: Ints
    source: Ints
    target: Ints
    hops: int

    @cached_property
    def links(self) -> tuple[tuple[int, ...], ...]:
        """Edges that come and go together: an edge and, where there is one, its reverse.

        The k-th of several equal edges goes with the k-th of their reverses. Self loops are part
        of their node and no links.
        """
        waiting: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        found: list[list[int]] = []
        for edge, ends in enumerate(zip(self.source.tolist(), self.target.tolist(), strict=True)):
            start, end = ends
            if start == end:
                continue
            if waiting[end, start]:
                found[waiting[end, start].pop(0)].append(edge)
            else:
                waiting[start, end].append(len(found))
                found.append([edge])
        return tuple(tuple(edges) for edges in found)


def neighbourhood(graph: GraphInputs, node: int, hops: int) -> Neighbourhood:
    """Cut out what reaches a node.

    Args:
        graph: The graph.
        node: The explained node.
        hops: Message-passing layers of the module.

    Raises:
        GraphInputError: For a node out of range.
    """
    count = len(graph.x)
    if not 0 <= node < count:
        raise GraphInputError(f"node {node} is not in the graph; nodes are 0 to {count - 1}")
    indptr, sources, number = graph.by_target.arrays()
    found, seen = [np.array([node])], {node}
    edges, ends = [], []
    for _ in range(hops):
        frontier = found[-1]
        places = [np.arange(indptr[v], indptr[v + 1]) for v in frontier]
        ends.append(np.repeat(frontier, [len(p) for p in places]))
        edges.append(np.concatenate([np.zeros(0, np.int64), *places]))
        fresh = np.unique(sources[edges[-1]])
        fresh = np.array([v for v in fresh.tolist() if v not in seen], dtype=np.int64)
        seen.update(fresh.tolist())
        found.append(fresh)
    nodes = np.concatenate(found)
    by_number = np.argsort(nodes, kind="stable")

    def local(ids: NDArray[np.integer[Any]]) -> Ints:
        return by_number[np.searchsorted(nodes[by_number], ids)]

    places = np.concatenate(edges)
    return Neighbourhood(
        nodes,
        np.repeat(np.arange(len(found)), [len(part) for part in found]),
        number[places].astype(np.int64),
        local(sources[places]),
        local(np.concatenate(ends)),
        hops,
    )
