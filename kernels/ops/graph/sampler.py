"""Temporal neighbour sampling: for every root its own past-only neighbourhood, hop by hop.

As in TGN (Rossi et al., 2020) and PyG's ``NeighborLoader`` with ``time_attr``, of which it takes
the place where pyg-lib has no build: every edge of a root's sample is older than the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.entity_state.jit import compiled_releasing
from kernels.ops.graph.threads import share

INT32_MAX = 2**31 - 1
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sample:
    """Neighbourhoods of some roots, one after the other; all arrays are int32.

    Attributes:
        node: [nodes] node numbers of the graph; root r owns ``node[node_ptr[r]:node_ptr[r + 1]]``
            and stands first.
        node_ptr: [roots + 1].
        source: [edges] source of each sampled edge, as a position in ``node``.
        target: [edges] its target, likewise.
        edge: [edges] position of the edge in the list that the sampler was made from.
        edge_ptr: [roots + 1]; edges of a root lie together, hop by hop.
    """

    node: Ints
    node_ptr: Ints
    source: Ints
    target: Ints
    edge: Ints
    edge_ptr: Ints


class TemporalSampler:
    """Samples in-neighbours along edges older than the root.

    Attributes:
        n_nodes: Number of nodes.
        fan_outs: Most edges per node, for each hop.
        last: Whether the most recent edges are taken, or any older ones with equal chances.
    """

    def __init__(
        self,
        source: ArrayLike,
        target: ArrayLike,
        time: ArrayLike,
        n_nodes: int,
        fan_outs: Sequence[int],
        *,
        last: bool = False,
    ) -> None:
        """Sort the edges by target and time.

        Args:
            source: int [edges], 0..n_nodes - 1.
            target: int [edges], 0..n_nodes - 1.
            time: int64 [edges], in any unit.
            n_nodes: Number of nodes.
            fan_outs: Most edges per node, for each hop, each at least 1.
            last: Take the most recent edges instead of drawing (without replacement).

        Raises:
            ValueError: For lengths that differ, nodes out of range, more nodes or edges than
                int32 can number, or fan-outs below 1.
        """
        ends = np.asarray(source), np.asarray(target)
        when = np.ascontiguousarray(time, np.int64)
        if ends[0].ndim != 1 or not ends[0].shape == ends[1].shape == when.shape:
            raise ValueError(
                f"source, target and time must be [edges] alike; got {ends[0].shape}, "
                f"{ends[1].shape}, {when.shape}"
            )
        if max(n_nodes, len(when)) > INT32_MAX:
            raise ValueError(f"more than {INT32_MAX} nodes or edges; split the graph")
        _in_range("source", ends[0], n_nodes)
        _in_range("target", ends[1], n_nodes)
        if not fan_outs or min(fan_outs) < 1:
            raise ValueError(f"fan_outs must name at least 1 edge per hop, got {list(fan_outs)}")
        order = np.lexsort((when, ends[1]))
        self.n_nodes, self.fan_outs, self.last = n_nodes, tuple(fan_outs), last
        self._edge = order.astype(np.int32)
        self._source = ends[0][order].astype(np.int32)
        self._time = when[order]
        self._indptr = np.zeros(n_nodes + 1, np.int32)
        np.cumsum(np.bincount(ends[1], minlength=n_nodes), out=self._indptr[1:])

    def sample(self, roots: ArrayLike, time: ArrayLike, *, seed: int = 0) -> Sample:
        """Return the neighbourhoods of some roots, each as of its own time.

        The draws of a root depend on ``seed``, on its position and on nothing else: any number of
        threads gives the same sample.

        Args:
            roots: int [roots], nodes; one may occur several times.
            time: int64 [roots]; only edges with a smaller time are seen, at every hop.
            seed: Seed of the draws, at least 0.

        Raises:
            ValueError: For roots out of range, lengths that differ, or a negative seed.
        """
        nodes, before = np.asarray(roots), np.ascontiguousarray(time, np.int64)
        if nodes.ndim != 1 or nodes.shape != before.shape:
            raise ValueError(f"roots {nodes.shape} and time {before.shape} must be [roots] alike")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        _in_range("roots", nodes, self.n_nodes)
        edges = int(np.cumprod(self.fan_outs).sum())
        if len(nodes) * (edges + 1) > INT32_MAX:
            raise ValueError(f"{len(nodes)} roots of {edges} edges each overflow int32; take fewer")
        room = _Room.of(len(nodes), edges)
        graph = self._indptr, self._source, self._time, self._edge
        fan_outs = np.array(self.fan_outs, np.int64)
        start = nodes.astype(np.int32)

        def part(first: int, stop: int) -> None:
            _sample(*graph, start, before, fan_outs, self.last, seed, *room.arrays(), first, stop)

        share(part, _parts(len(nodes), edges))
        return room.packed()


@dataclass(frozen=True, slots=True)
class _Room:
    """Place for the largest sample possible, root by root, and how much of it is used."""

    node: Ints
    source: Ints
    target: Ints
    edge: Ints
    used: Ints

    @classmethod
    def of(cls, roots: int, edges: int) -> _Room:
        """Return room for ``edges`` edges and one node more, for every root."""
        node, used = np.empty((roots, edges + 1), np.int32), np.empty((roots, 2), np.int32)
        source, target, edge = (np.empty((roots, edges), np.int32) for _ in range(3))
        return cls(node, source, target, edge, used)

    def arrays(self) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Return the arrays in the order of the fields."""
        return self.node, self.source, self.target, self.edge, self.used

    def packed(self) -> Sample:
        """Return what is used, without gaps."""
        starts = np.zeros((len(self.used) + 1, 2), np.int32)
        np.cumsum(self.used, axis=0, out=starts[1:])
        nodes, edges = starts[-1].tolist()
        node = np.empty(nodes, np.int32)
        source, target, edge = (np.empty(edges, np.int32) for _ in range(3))

        def part(first: int, stop: int) -> None:
            _pack(*self.arrays(), starts, node, source, target, edge, first, stop)

        share(part, _parts(len(self.used), self.edge.shape[1]))
        columns = np.ascontiguousarray(starts.T)
        return Sample(node, columns[0], source, target, edge, columns[1])


def _parts(roots: int, edges: int) -> list[int]:
    import torch

    parts = max(1, min(torch.get_num_threads(), roots * edges // 20_000))
    return [roots * i // parts for i in range(parts + 1)]


def _in_range(name: str, nodes: NDArray[Any], n_nodes: int) -> None:
    if nodes.size and (nodes.min() < 0 or nodes.max() >= n_nodes):
        raise ValueError(f"{name} must lie in 0..{n_nodes - 1}, got {nodes.min()}..{nodes.max()}")


@compiled_releasing
def _mix(state: np.uint64) -> np.uint64:
    """Return the state scrambled (SplitMix64's finaliser, Steele et al., OOPSLA 2014)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled_releasing
def _past_end(time: Longs, first: int, stop: int, before: int) -> int:
    """Return the place after the last edge older than ``before``; times ascend."""
    if first == stop or time[stop - 1] < before:
        return stop
    low, size = first, stop - first
    while size > 0:
        half = size // 2
        older = time[low + half] < before
        low = low + half + 1 if older else low
        size = size - half - 1 if older else half
    return low


@compiled_releasing
def _place(table: Longs, tag: int, node: int, fresh: int) -> int:
    """Return the position filed for ``node`` under ``tag``; file ``fresh`` if there is none.

    An entry holds tag, node and position in two words; entries of other tags count as free.
    """
    mask = len(table) - 1
    key = (tag << 32) | node
    slot = int((np.uint64(node) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & mask
    while table[slot, 0] >> 32 == tag:
        if table[slot, 0] == key:
            return int(table[slot, 1])
        slot = (slot + 1) & mask
    table[slot, 0], table[slot, 1] = key, fresh
    return fresh


@compiled_releasing
def _draw(chosen: Longs, count: int, size: int, state: np.uint64) -> np.uint64:
    """Fill ``chosen[:count]`` with distinct numbers below ``size`` (Floyd, CACM 1987)."""
    for t in range(count):
        top = size - count + t
        state += np.uint64(0x9E3779B97F4A7C15)
        number = ((_mix(state) >> np.uint64(32)) * np.uint64(top + 1)) >> np.uint64(32)
        chosen[t] = pick = np.int64(number)
        for other in range(t):
            if chosen[other] == pick:
                chosen[t] = top
    return state


@compiled_releasing
def _sample(
    indptr: Ints,
    source: Ints,
    time: Longs,
    edge: Ints,
    roots: Ints,
    before: Longs,
    fan_outs: Longs,
    last: bool,  # noqa: FBT001 - compiled functions take no keywords
    seed: int,
    out_node: Ints,
    out_source: Ints,
    out_target: Ints,
    out_edge: Ints,
    used: Ints,
    first_root: int,
    stop_root: int,
) -> None:
    """Sample the roots ``first_root`` to ``stop_root - 1``, each into its row."""
    slots = 4
    while slots < 2 * out_node.shape[1]:
        slots *= 2
    table = np.full((slots, 2), -1, np.int64)
    chosen = np.empty(fan_outs.max(), np.int64)
    for root in range(first_root, stop_root):
        state = _mix(_mix(np.uint64(seed)) + np.uint64(root))
        out_node[root, 0] = roots[root]
        _place(table, root, roots[root], 0)
        low, nodes, edges = 0, 1, 0
        for hop in range(len(fan_outs)):
            high = nodes
            for i in range(low, high):
                v = out_node[root, i]
                start = indptr[v]
                size = _past_end(time, start, indptr[v + 1], before[root]) - start
                count = min(size, fan_outs[hop])
                draws = size > count and not last
                if draws:
                    state = _draw(chosen, count, size, state)
                for t in range(count):
                    e = start + (chosen[t] if draws else size - 1 - t)
                    found = _place(table, root, source[e], nodes)
                    if found == nodes:
                        out_node[root, nodes] = source[e]
                        nodes += 1
                    out_source[root, edges] = found
                    out_target[root, edges] = i
                    out_edge[root, edges] = edge[e]
                    edges += 1
            low = high
        used[root, 0], used[root, 1] = nodes, edges


@compiled_releasing
def _pack(
    node: Ints,
    source: Ints,
    target: Ints,
    edge: Ints,
    used: Ints,
    starts: Ints,
    out_node: Ints,
    out_source: Ints,
    out_target: Ints,
    out_edge: Ints,
    first: int,
    stop: int,
) -> None:
    """Copy the rows ``first`` to ``stop - 1`` to their places; positions count over all roots."""
    for r in range(first, stop):
        a, b = starts[r]
        for i in range(used[r, 0]):
            out_node[a + i] = node[r, i]
        for i in range(used[r, 1]):
            out_source[b + i] = source[r, i] + a
            out_target[b + i] = target[r, i] + a
            out_edge[b + i] = edge[r, i]
