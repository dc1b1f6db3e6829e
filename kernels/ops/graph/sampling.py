"""Compiled loops of temporal sampling: memory is asked for ahead, and nothing is shared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.jit import compiled_releasing, prefetch_line

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

SCANNED = 32
"""Edges that are compared one and all rather than searched by halves."""


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
    while size > SCANNED:
        half = size // 2
        older = time[low + half] < before
        low = low + half + 1 if older else low
        size = size - half - 1 if older else half
    # Counting is vector code without branches to guess.
    count = 0
    for e in range(low, low + size):
        count += time[e] < before
    return low + count


@compiled_releasing
def _place(table: Longs, tag: int, node: int, fresh: int) -> int:
    """Return the position filed for ``node`` under ``tag``; file ``fresh`` if there is none.

    An entry holds tag, node and position in two words; entries of other tags count as free.
    """
    mask = len(table) - 1
    key = (tag << 32) | np.int64(node)
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
                if chosen[other] == pick:
                    pick = top
                    break
        chosen[t] = pick
    return state


@compiled_releasing
def sample_roots(
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
