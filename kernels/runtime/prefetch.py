"""Batches made ready by threads, while the step before computes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic

from kernels.runtime.source import Batch, Batches


class Prefetched(Generic[Batch]):
    """Another source's batches, the next ones under way; see `prefetched`."""

    def __init__(self, batches: Batches[Batch], ahead: int, pool: ThreadPoolExecutor) -> None:
        self._batches, self._ahead, self._pool = batches, ahead, pool
        self._under_way: dict[int, Future[Batch]] = {}

    def __call__(self, index: int) -> Batch:
        """Return batch ``index`` and ask for those after it."""
        wanted = range(index, index + self._ahead + 1)
        for stale in self._under_way.keys() - set(wanted):
            self._under_way.pop(stale).cancel()
        for each in wanted:
            if each not in self._under_way:
                self._under_way[each] = self._pool.submit(self._batches, each)
        # Kept until the next index is asked for: a step may be done again.
        return self._under_way[index].result()


@contextmanager
def prefetched(
    batches: Batches[Batch], *, ahead: int = 2, threads: int = 1
) -> Iterator[Batches[Batch]]:
    """Make batches ready beforehand inside; an error shows at the batch that has it.

    Args:
        batches: A source that can be asked for any index; with several threads, at once.
        ahead: Batches that are made ready.
        threads: Threads that do it.

    Raises:
        ValueError: For fewer than one of either.
    """
    if min(ahead, threads) < 1:
        raise ValueError("prefetched: ahead and threads must be at least 1")
    pool = ThreadPoolExecutor(threads, "batches")
    try:
        yield Prefetched(batches, ahead, pool)
    finally:
        pool.shutdown(cancel_futures=True)
