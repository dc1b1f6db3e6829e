"""Samples of unequal cost shared out over workers, so that none waits for the others.

Two classic heuristics: longest processing time first (Graham, "Bounds on multiprocessing timing
anomalies", 1969), and the largest differencing method (Karmarkar and Karp, "The differencing method
of set partitioning", 1982), which is nearer to the best where samples are few.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["differences", "longest-first"]
Load = tuple[float, list[int]]
"""Summed cost and samples of a worker."""


def share_out(
    costs: Sequence[float] | NDArray[np.float64], workers: int, method: Method = "differences"
) -> list[list[int]]:
    """Share samples out.

    Args:
        costs: Cost of each sample, not negative: tokens, edges, pixels.
        workers: Number of workers.
        method: ``differences`` or ``longest-first``.

    Returns:
        For each worker the numbers of its samples, ascending; every sample goes to one worker.

    Raises:
        ValueError: For no worker, an unknown method, or a cost below 0 or not finite.

    >>> share_out([8, 7, 6, 5, 4], 2)
    [[0, 2], [1, 3, 4]]
    """
    found = np.asarray(costs, np.float64)
    if workers < 1:
        raise ValueError(f"share_out: workers must be at least 1, got {workers}")
    if not bool(np.isfinite(found).all()) or bool((found < 0).any()):
        raise ValueError("share_out: costs must be finite and not negative")
    if method == "differences":
        sets = _by_differences(found, workers)
    elif method == "longest-first":
        sets = _longest_first(found, workers)
    else:
        raise ValueError(f"share_out: unknown method {method!r}; differences or longest-first")
    return [sorted(each) for each in sets]


def balance(costs: Sequence[float] | NDArray[np.float64], sets: Sequence[Sequence[int]]) -> float:
    """Return mean cost of the workers over the largest: the share of time in which they work.

    >>> balance([8, 7, 6, 5, 4], [[0, 1], [2, 3, 4]])
    1.0
    """
    sums = [float(np.asarray(costs, np.float64)[list(each)].sum()) for each in sets]
    most = max(sums)
    # Divided one by one: the mean of the smallest numbers there are would be 0.
    return float(np.mean([each / most for each in sums])) if most > 0 else 1.0


def _longest_first(costs: NDArray[np.float64], workers: int) -> list[list[int]]:
    sets: list[list[int]] = [[] for _ in range(workers)]
    loads = [(0.0, worker) for worker in range(workers)]
    for sample in np.argsort(-costs, kind="stable"):
        load, worker = heapq.heappop(loads)
        sets[worker].append(int(sample))
        heapq.heappush(loads, (load + float(costs[sample]), worker))
    return sets


def _by_differences(costs: NDArray[np.float64], workers: int) -> list[list[int]]:
    """Join the two most uneven partial solutions, largest loads to smallest, until one is left."""
    order = count()
    heap = []
    for sample in np.argsort(-costs, kind="stable"):
        # Loads ascending: all but the last worker are idle.
        loads: list[Load] = [(0.0, []) for _ in range(workers - 1)]
        loads.append((float(costs[sample]), [int(sample)]))
        heap.append((-float(costs[sample]), next(order), loads))
    if not heap:
        return [[] for _ in range(workers)]
    heapq.heapify(heap)
    while len(heap) > 1:
        _, _, one = heapq.heappop(heap)
        _, _, other = heapq.heappop(heap)
        joined = [(a + b, x + y) for (a, x), (b, y) in zip(one, reversed(other), strict=True)]
        joined.sort(key=lambda each: each[0])
        heapq.heappush(heap, (joined[0][0] - joined[-1][0], next(order), joined))
    return [samples for _, samples in heap[0][2]]
