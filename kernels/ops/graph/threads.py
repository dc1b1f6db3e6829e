"""Rows shared out between threads, by edges rather than by rows: degrees are skewed.

Every row is computed by one thread in a fixed order, so results do not depend on how many there
are. Threads start with the call: a pool of numba's own would wait in spins beside torch's. They
take the next small part when they have done one, because torch's threads, done with a product,
keep spinning on a core for a while: a thread that shares its core with one does less.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from threading import Thread

import numpy as np
import torch
from numpy.typing import NDArray

PARTS = 8
"""Parts per thread."""
WORTH = 200_000
"""Elements of work below which a thread costs more (some 0.1 ms) than it brings."""


def by_edges(indptr: NDArray[np.int32], width: int) -> list[int]:
    """Return row bounds of parts of about equal work, several for each of torch's threads.

    Args:
        indptr: int32 [rows + 1].
        width: Elements per edge.
    """
    rows = len(indptr) - 1
    work = (int(indptr[-1]) + rows) * width
    threads = min(torch.get_num_threads(), work // WORTH)
    parts = threads * PARTS if threads > 1 else 1
    shares = int(indptr[-1]) * np.arange(1, parts) // parts
    return [0, *np.searchsorted(indptr, shares).tolist(), rows]


def fixed_parts(indptr: NDArray[np.int32], targets: int) -> list[int]:
    """Return row bounds of parts of about equal edges, the same for any number of threads.

    For sums that several rows add to: each part has its own and they are added up in order. There
    are at most eight, and few enough that all of them are no larger than a number per edge.

    Args:
        indptr: int32 [rows + 1].
        targets: How many sums there are.
    """
    edges = int(indptr[-1])
    parts = max(1, min(8, edges // max(targets, 1)))
    shares = edges * np.arange(1, parts) // parts
    return [0, *np.searchsorted(indptr, shares).tolist(), len(indptr) - 1]


def by_columns(width: int, work: int) -> list[int]:
    """Return column bounds of parts of about equal size.

    Args:
        width: Number of columns.
        work: Elements of work in all.
    """
    parts = max(1, min(torch.get_num_threads(), work // WORTH, width))
    return [width * i // parts for i in range(parts + 1)]


def share(call: Callable[[int, int], None], bounds: list[int]) -> None:
    """Run ``call(start, stop)`` over every part, in this thread and others.

    Args:
        call: Releases the interpreter's lock; parts must not write the same places.
        bounds: Ascending bounds of the parts.

    Raises:
        Exception: What the first part that failed raised, after all threads have ended.
    """
    failed: list[BaseException] = []
    waiting = iter(list(pairwise(bounds)))

    def work() -> None:
        try:
            for start, stop in waiting:
                call(start, stop)
        except BaseException as error:  # noqa: BLE001 - raised again below, by the caller's thread
            failed.append(error)

    others = min(torch.get_num_threads(), len(bounds) - 1) - 1
    threads = [Thread(target=work) for _ in range(others)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
