"""Compiled loops of temporal sampling: memory is asked for ahead, and nothing is shared.

Roots are sampled in groups. Of every hop each stage runs over the whole group before the next one
does, so what a stage has asked for is on its way while the rest of the group is dealt with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.jit import compiled_releasing, prefetch_line

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

GROUP = 16
"""Most roots of a group: enough to hide memory's latency."""
GROUP_EDGES = 2_048
"""Most edges of a group of several roots: what is asked for must stay in the cache till read."""


class Group(NamedTuple):
    """Scratch memory of a group of roots; row j is the j-th root's.

    Attributes:
        node: int32 [group, most + 1] nodes found, the root first.
        start: int32 [group, most + 1] first edge of each node.
        size: int32 [group, most + 1] edges of each node; after the search, its older ones.
        source: int32 [group, most] source of each sampled edge, as a position in ``node``.
        target: int32 [group, most] its target, likewise.
        edge: int32 [group, most] its place in the sorted edges, then its number.
        reached: int64 [group, hops + 2]; hop h starts from the nodes
            ``reached[j, h]`` to ``reached[j, h + 1] - 1``.
        taken: int64 [group, hops + 1]; hop h takes the edges ``taken[j, h]`` to
            ``taken[j, h + 1] - 1``.
        table: int32 [group, slots] hash table of the nodes found; see ``_place``.
        base: int64 [group] what the table adds to positions.
        state: uint64 [group] state of the random words.
    """

    node: Ints
    start: Ints
    size: Ints
    source: Ints
    target: Ints
    edge: Ints
    reached: Longs
    taken: Longs
    table: Ints
    base: Longs
    state: NDArray[np.uint64]


@compiled_releasing
def _mix(state: np.uint64) -> np.uint64:
    """Return the state scrambled (SplitMix64's finaliser, Steele et al., OOPSLA 2014)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled_releasing
def _older(time: NDArray[Any], start: int, size: int, before: int) -> int:
    """Return how many of ``size`` ascending times from ``start`` on are below ``before``."""
    if size == 0:
        return 0
    # The number of steps depends on the size alone and none branches on a time: no step is
    # guessed wrongly, and the processor searches for several nodes at once.
    low = start
    while size > 1:
        half = size >> 1
        low = low + half if time[low + half - 1] < before else low
        size -= half
    return low - start + int(time[low] < before)


@compiled_releasing
def _place(table: Ints, base: int, known: Ints, node: int, fresh: int) -> int:
    """Return the position of ``node`` in ``known``; put it at ``fresh`` if it is not there yet.

    A slot holds base and position added up. Bases of later roots are larger than any entry of
    earlier ones, whose slots therefore count as free and are never cleared.
    """
    mask = len(table) - 1
    slot = int((np.uint64(node) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) & mask
    while table[slot] >= base:
        place = int(table[slot]) - base
        if known[place] == node:
            return place
        slot = (slot + 1) & mask
    table[slot] = base + fresh
    known[fresh] = node
    return fresh


@compiled_releasing
def _draw(edge: Ints, at: int, count: int, start: int, size: int, state: np.uint64) -> np.uint64:
    """Fill ``edge[at : at + count]`` with distinct numbers ``start`` to ``start + size - 1``.

    By Floyd (CACM 1987). Returns the new state. Takes no view of ``edge``: one made per node would
    cost two atomic counts of its references.
    """
    low, seen, word = np.uint64(0xFFFFFFFF), np.uint64(0), np.uint64(0)
    for t in range(count):
        top = np.int64(size - count + t)
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
                if edge[at + other] == start + pick:
                    pick = top
                    break
        edge[at + t] = start + pick
    return state


@compiled_releasing
def _scratch(roots: int, most: int, hops: int) -> Group:
    """Return memory for as many roots of at most ``most`` edges each."""
    slots = 8
    while slots < 8 * (most + 1):  # few nodes meet in a slot
        slots *= 2
    return Group(
        np.empty((roots, most + 1), np.int32),
        np.empty((roots, most + 1), np.int32),
        np.empty((roots, most + 1), np.int32),
        np.empty((roots, most), np.int32),
        np.empty((roots, most), np.int32),
        np.empty((roots, most), np.int32),
        np.zeros((roots, hops + 2), np.int64),
        np.zeros((roots, hops + 1), np.int64),
        np.full((roots, slots), -1, np.int32),
        np.zeros(roots, np.int64),
        np.zeros(roots, np.uint64),
    )


@compiled_releasing
def _begin(group: Group, roots: Ints, first: int, seed: int) -> None:
    """File the roots, numbers ``first`` on, as the only nodes of their neighbourhoods."""
    for j in range(len(roots)):
        root = roots[j]
        group.state[j] = _mix(_mix(np.uint64(seed)) + np.uint64(first + j))
        group.base[j] = (first + j) * group.node.shape[1]
        _place(group.table[j], group.base[j], group.node[j], root, 0)
        group.reached[j, 0], group.reached[j, 1], group.taken[j, 0] = 0, 1, 0


@compiled_releasing
def _span(group: Group, here: int, hop: int, indptr: Ints, time: NDArray[Any]) -> None:
    """Note where the edges of each node lie; ask for their times."""
    for j in range(here):
        for i in range(group.reached[j, hop], group.reached[j, hop + 1]):
            node = group.node[j, i]
            start, stop = indptr[node], indptr[node + 1]
            group.start[j, i], group.size[j, i] = start, stop - start
            # All of a short span, the first steps in a long one. Asking beside an array is safe.
            prefetch_line(time, start)
            prefetch_line(time, (start + stop) // 2)
            prefetch_line(time, stop - 1)


@compiled_releasing
def _search(group: Group, here: int, hop: int, time: NDArray[Any], before: Longs) -> None:
    """Cut the edges of each node down to those older than its root."""
    for j in range(here):
        for i in range(group.reached[j, hop], group.reached[j, hop + 1]):
            group.size[j, i] = _older(time, group.start[j, i], group.size[j, i], before[j])


@compiled_releasing
def _choose(
    group: Group,
    here: int,
    hop: int,
    link: Ints,
    fan_out: int,
    last: bool,  # noqa: FBT001 - compiled functions take no keywords
) -> None:
    """Choose edges of each node; ask for their sources and numbers."""
    for j in range(here):
        edge, target = group.edge[j], group.target[j]
        taken, state = group.taken[j, hop], group.state[j]
        for i in range(group.reached[j, hop], group.reached[j, hop + 1]):
            start, size = group.start[j, i], group.size[j, i]
            count = min(size, fan_out)
            if size > count and not last:
                state = _draw(edge, taken, count, start, size, state)
            else:
                for t in range(count):
                    edge[taken + t] = start + size - 1 - t
            for e in range(taken, taken + count):
                prefetch_line(link, 2 * edge[e])
                target[e] = i
            taken += count
        group.taken[j, hop + 1], group.state[j] = taken, state


@compiled_releasing
def _follow(group: Group, here: int, hop: int, link: Ints) -> None:
    """Find the node at the other end of each edge."""
    for j in range(here):
        edge, source, nodes = group.edge[j], group.source[j], group.reached[j, hop + 1]
        table, base, known = group.table[j], group.base[j], group.node[j]
        for e in range(group.taken[j, hop], group.taken[j, hop + 1]):
            at = 2 * edge[e]
            other, edge[e] = link[at], link[at + 1]
            place = _place(table, base, known, other, nodes)
            source[e] = place
            nodes += place == nodes
        group.reached[j, hop + 2] = nodes


@compiled_releasing
def _write(group: Group, j: int, shift: int, node: Ints, ends: Ints) -> None:
    """Write the j-th root's neighbourhood to the head of the arrays, positions shifted."""
    source, target, edge = ends[0], ends[1], ends[2]
    for i in range(group.reached[j, -1]):
        node[i] = group.node[j, i]
    for e in range(group.taken[j, -1]):
        source[e] = group.source[j, e] + shift
        target[e] = group.target[j, e] + shift
        edge[e] = group.edge[j, e]


@compiled_releasing
def sample_roots(
    indptr: Ints,
    link: Ints,
    time: NDArray[Any],
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
    """Sample the roots ``first_root`` to ``stop_root - 1``.

    ``link`` holds source and number of each edge side by side, so that both come with one line of
    the cache. The roots begin where ``first_root`` would if every root before it took ``most``
    edges; positions and ``ptr`` count from there.
    """
    hops = len(fan_outs)
    group = _scratch(max(1, min(GROUP, GROUP_EDGES // most)), most, hops)
    node, ends = node[first_root * (most + 1) :], ends[:, first_root * most :]
    nodes = edges = 0
    for first in range(first_root, stop_root, len(group.base)):
        here = min(len(group.base), stop_root - first)
        _begin(group, roots[first : first + here], first, seed)
        for hop in range(hops):
            _span(group, here, hop, indptr, time)
            _search(group, here, hop, time, before[first : first + here])
            _choose(group, here, hop, link, fan_outs[hop], last)
            _follow(group, here, hop, link)
        for j in range(here):
            _write(group, j, nodes, node[nodes:], ends[:, edges:])
            nodes, edges = nodes + group.reached[j, hops + 1], edges + group.taken[j, hops]
            ptr[0, first + j + 1], ptr[1, first + j + 1] = nodes, edges
