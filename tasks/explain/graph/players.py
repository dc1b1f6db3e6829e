"""Who shares the credit in a neighbourhood: telling neighbours alone, the others in groups.

Groups are by distance, relation and time bucket of the edge over which a node is first reached.
Where there are more than fit, they are made coarser from the far end: first buckets and relations
of distant ones go, then their distances, then the buckets and relations of direct neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.explain.graph.inputs import GraphInputs, Ints
from tasks.explain.graph.neighbourhood import Neighbourhood

Buckets = tuple[tuple[str, float], ...]
Changes = Callable[[Sequence[Ints]], NDArray[np.float64]]
"""How far the score moves without each of some sets of nodes."""

SCREENED = 64
"""Sets of nodes left out at a time."""
NOTHING = 1e-6
"""Change, relative to ``1 + |score|``, below which a neighbour is not named."""


@dataclass(frozen=True)
class NeighbourPlayers:
    """A division of the neighbours among players.

    Attributes:
        names: Of the players.
        owner: Player of each node of the neighbourhood, -1 for the explained one ``[n]``.
    """

    names: tuple[str, ...]
    owner: Ints


def divide(
    graph: GraphInputs,
    around: Neighbourhood,
    buckets: Buckets,
    telling: Sequence[int],
    most: int,
) -> NeighbourPlayers:
    """Divide the neighbours among at most so many players.

    Args:
        graph: The graph.
        around: The neighbourhood.
        buckets: Name and greatest age of each time bucket, youngest first; older ones are "older".
        telling: Neighbours that should stand alone, the most telling first.
        most: Players to share; at least one for each distance.
    """
    reached = _reached_by(graph, around)
    relation, bucket, when = _kinds(graph, around, buckets, reached)
    neighbours = range(1, len(around.nodes))
    if len(neighbours) <= most:
        telling = neighbours
    reserved = min(len(telling), max(1, most // 2)) if len(neighbours) > most else len(telling)
    groups = _groups(around.distance, relation, bucket, most - reserved)
    alone = set(telling[:reserved])
    # Groups that the telling ones have emptied make room for more of them.
    for node in telling[reserved:]:
        if len(alone) + len({groups[v] for v in neighbours if v not in alone}) >= most:
            break
        alone.add(node)
    names: dict[str, int] = {}
    owner = np.full(len(around.nodes), -1)
    for node in [*sorted(alone), *(v for v in neighbours if v not in alone)]:
        if node in alone:
            told = [graph.relations[relation[node]]]
            told += [] if when is None else [graph.clock(int(when[node]))]
            name = f"{graph.name(int(around.nodes[node]))} ({', '.join(told)})"
            if name in names:  # two nodes of one key
                name = f"{name}, node {around.nodes[node]}"
        else:
            name = _named(graph, buckets, groups[node])
        owner[node] = names.setdefault(name, len(names))
    return NeighbourPlayers(tuple(names), owner)


def most_telling(changes: Changes, nodes: Ints, least: float) -> list[int]:
    """Return neighbours by how far the score moves without them, the farthest first.

    Up to ``SCREENED`` are left out one by one. Of more, sets are left out, the telling quarter of
    the sets is split in four, and so on: two that cancel out in one set are overlooked.
    """
    sets = np.array_split(nodes, min(SCREENED, len(nodes))) if len(nodes) else []
    while sets:
        change = changes(sets)
        order = np.argsort(-change, kind="stable")
        if all(len(part) == 1 for part in sets):
            return [int(sets[i][0]) for i in order if change[i] > least]
        kept = [sets[i] for i in order[: SCREENED // 4]]
        sets = [p for part in kept for p in np.array_split(part, min(4, len(part)))]
    return []


def _reached_by(graph: GraphInputs, around: Neighbourhood) -> Ints:
    """Return the edge over which each node is first reached ``[n]``; the latest of several."""
    nearer = around.distance[around.source] == around.distance[around.target] + 1
    edges = np.flatnonzero(nearer)
    if graph.time is not None:
        edges = edges[np.argsort(graph.time[around.edges[edges]], kind="stable")]
    found = np.full(len(around.nodes), -1)
    found[around.source[edges]] = edges
    return found


def _kinds(
    graph: GraphInputs, around: Neighbourhood, buckets: Buckets, reached: Ints
) -> tuple[Ints, Ints, NDArray[np.int64] | None]:
    """Return relation and bucket of each node ``[n]``, and the time of its edge."""
    relation = np.zeros(len(around.nodes), np.int64)
    bucket = np.zeros(len(around.nodes), np.int64)
    if not len(around.edges):
        return relation, bucket, None
    edge = around.edges[reached]  # the explained node's is never read
    if graph.relation is not None:
        relation = graph.relation[edge]
    if graph.time is None:
        return relation, bucket, None
    when = graph.time[edge]
    if buckets:
        now = graph.time[around.edges].max() if graph.now is None else graph.now
        age = now - when
        bucket = np.searchsorted([limit for _, limit in buckets], age)
    return relation, bucket, when


Group = tuple[int, int, int]


def _groups(distance: Ints, relation: Ints, bucket: Ints, most: int) -> list[Group]:
    """Return the group of each node: distance (-d: d or more), relation and bucket (-1: any)."""
    kinds = np.stack([distance, relation, bucket], axis=1)
    far = int(distance.max())
    coarser = [(column, d) for d in range(far, 1, -1) for column in (2, 1)]
    coarser += [(0, d) for d in range(far - 1, 1, -1)]
    for column, least in [*coarser, (2, 1), (1, 1), (0, 1)]:
        if len({tuple(row) for row in kinds[1:].tolist()}) <= most:
            break
        far_ones = distance >= least
        kinds[far_ones, column] = -least if column == 0 else -1
    return [(row[0], row[1], row[2]) for row in kinds.tolist()]


def _named(graph: GraphInputs, buckets: Buckets, group: Group) -> str:
    distance, relation, bucket = group
    hops = f"{-distance} or more hops" if distance < 0 else f"{distance} hop{'s' * (distance > 1)}"
    told = [f"{hops} away"]
    told.append("any relation" if relation < 0 else graph.relations[relation])
    if buckets:
        ages = [*(name for name, _ in buckets), "older"]
        told.append("any age" if bucket < 0 else ages[bucket])
    return ", ".join(told)
