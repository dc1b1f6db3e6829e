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

from kernels.ops.graph.sampling import sample_roots
from kernels.ops.graph.threads import share

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
Ints = NDArray[np.int32]


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
        # Source and number side by side: one line of the cache brings both.
        self._link = np.empty(2 * len(order), np.int32)
        self._link[::2], self._link[1::2] = ends[0][order], order
        # Half the memory to search where the span of the times allows.
        self._first = int(when.min()) if len(when) else 0
        # To any later root all edges are past, and a greater difference might not fit.
        self._after = (int(when.max()) if len(when) else 0) + 1
        if self._after - self._first > INT64_MAX:
            raise ValueError("times span more than 64 bits; give them in a coarser unit")
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
        graph = self._indptr, self._link, self._time
        fan_outs = np.array(self.fan_outs, np.int64)
        start = nodes.astype(np.int32)
        since = np.clip(before, self._first, min(self._after, INT64_MAX)) - self._first
        node = np.empty(len(nodes) * (edges + 1), np.int32)
        ends = np.empty((3, len(nodes) * edges), np.int32)
        ptr = np.zeros((2, len(nodes) + 1), np.int32)

        def part(first: int, stop: int) -> None:
            sample_roots(
                *graph,
                start,
                since,
                fan_outs,
                self.last,
                seed,
                edges,
                node,
                ends,
                ptr,
                first,
                stop,
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
