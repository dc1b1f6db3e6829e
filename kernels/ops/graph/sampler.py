"""Temporal neighbour sampling: for every root its own past-only neighbourhood, hop by hop.

As in TGN (Rossi et al., 2020) and PyG's ``NeighborLoader`` with ``time_attr``, of which it takes
the place where pyg-lib has no build: every edge of a root's sample is older than the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.entity_state.jit import compiled_releasing, prefetch_line
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
        # Half the memory to search where the span of the times allows.
        self._first = int(when.min()) if len(when) else 0
        short = len(when) > 0 and int(when.max()) - self._first < INT32_MAX
        self._time = (when[order] - self._first).astype(np.int32 if short else np.int64)
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
        graph = self._indptr, self._source, self._time, self._edge
        fan_outs = np.array(self.fan_outs, np.int64)
        start, since = nodes.astype(np.int32), np.maximum(before, self._first) - self._first
        node = np.empty(len(nodes) * (edges + 1), np.int32)
        ends = np.empty((3, len(nodes) * edges), np.int32)
        ptr = np.zeros((2, len(nodes) + 1), np.int32)

        def part(first: int, stop: int) -> None:
            _sample(
                *graph, start, since, fan_outs, self.last, seed, edges, node, ends, ptr, first, stop
            )

        bounds = _parts(len(nodes), edges)
        share(part, bounds)
        return _joined(bounds, edges, node, ends, ptr)


def _joined(bounds: list[int], edges: int, node: Ints, ends: Ints, ptr: Ints) -> Sample:
    """Close the gaps between the parts' places in the arrays, in place."""
    nodes = taken = 0
    for first, stop in pairwise(bounds):
        used = ptr[:, stop].copy() if stop > first else np.zeros(2, np.int32)
        ptr[:, first + 1 : stop + 1] += np.array([[nodes], [taken]], np.int32)
        if first:
            at, place = first * (edges + 1), first * edges
            node[nodes : nodes + used[0]] = node[at : at + used[0]]
            ends[:, taken : taken + used[1]] = ends[:, place : place + used[1]]
            ends[:2, taken : taken + used[1]] += np.int32(nodes)
        nodes, taken = nodes + int(used[0]), taken + int(used[1])
    source, target, edge = ends[:, :taken]
    return Sample(node[:nodes], ptr[0], source, target, edge, ptr[1])


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
    low, seen, word = np.uint64(0xFFFFFFFF), np.uint64(0), np.uint64(0)
    for t in range(count):
        top = size - count + t
        if t % 2 == 0:
            state += np.uint64(0x9E3779B97F4A7C15)
            word = _mix(state)
        # Half a word is one draw; a bit per number tells what was drawn, while there are few.
        pick = np.int64(((word & low) * np.uint64(top + 1)) >> np.uint64(32))
        word >>= np.uint64(32)
        if size <= 64:
            pick = top if (seen >> np.uint64(pick)) & np.uint64(1) else pick
            seen |= np.uint64(1) << np.uint64(pick)
        else:
            for other in range(t):
                if chosen[other] == pick:
                    pick = top
                    break
        chosen[t] = pick
    return state


@compiled_releasing
def _sample(
    indptr: Ints,
    source: Ints,
    time: NDArray[Any],
    number: Ints,
    roots: Ints,
    before: Longs,
    fan_outs: Longs,
    last: bool,  # noqa: FBT001 - compiled functions take no keywords
    seed: int,
    most: int,
    node: Ints,
    ends: Ints,
    ptr: Ints,
    first_root: int,
    stop_root: int,
) -> None:
    """Sample the roots ``first_root`` to ``stop_root - 1``, one after the other.

    They begin where ``first_root`` would if every root before it took ``most`` edges; positions
    and ``ptr`` count from there.
    """
    slots = 4
    while slots < 4 * (most + 1):
        slots *= 2
    table = np.full((slots, 2), -1, np.int64)
    chosen = np.empty(fan_outs.max(), np.int64)
    sizes = np.empty(most + 1, np.int64)
    node = node[first_root * (most + 1) :]
    found, target = ends[0, first_root * most :], ends[1, first_root * most :]
    edge = ends[2, first_root * most :]
    nodes = edges = 0
    for root in range(first_root, stop_root):
        state = _mix(_mix(np.uint64(seed)) + np.uint64(root))
        low, begin_root = nodes, edges
        node[nodes] = roots[root]
        _place(table, root, roots[root], nodes)
        nodes += 1
        # Loops of one kind of memory access each: the processor waits for many at a time.
        for hop in range(len(fan_outs)):
            high, begin = nodes, edges
            for i in range(low, high):
                start, stop = indptr[node[i]], indptr[node[i] + 1]
                if stop > start:
                    prefetch_line(time, stop - 1)
                    prefetch_line(time, (start + stop) // 2)
                    prefetch_line(source, stop - 1)
                    prefetch_line(source, start)
            for i in range(low, high):
                start, stop = indptr[node[i]], indptr[node[i] + 1]
                sizes[i - low] = _past_end(time, start, stop, before[root]) - start
            for i in range(low, high):
                start, size = indptr[node[i]], sizes[i - low]
                count = min(size, fan_outs[hop])
                if size > count and not last:
                    state = _draw(chosen, count, size, state)
                    for t in range(count):
                        edge[edges + t] = start + chosen[t]
                else:
                    for t in range(count):
                        edge[edges + t] = start + size - 1 - t
                for t in range(count):
                    target[edges + t] = i
                edges += count
            for e in range(begin, edges):
                other = source[edge[e]]
                prefetch_line(number, edge[e])
                place = _place(table, root, other, nodes)
                if place == nodes:
                    node[nodes] = other
                    prefetch_line(indptr, other)
                    nodes += 1
                found[e] = place
            low = high
        for e in range(begin_root, edges):
            edge[e] = number[edge[e]]
        ptr[0, root + 1], ptr[1, root + 1] = nodes, edges
