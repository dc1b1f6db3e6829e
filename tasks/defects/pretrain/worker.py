"""Batches drawn in a process beside, so that the net never waits for its images."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch

from kernels.runtime.source import Batches
from tasks.defects.pretrain.images import Drawn, draw_batch
from tasks.defects.pretrain.recipe import PretrainConfig


class DrawnBeside:
    """Batches by index; the next ones are under way in another process."""

    def __init__(self, config: PretrainConfig, pool: ProcessPoolExecutor, ahead: int) -> None:
        self._draw, self._pool, self._ahead = partial(draw_batch, config), pool, ahead
        self._under_way: dict[int, Future[Drawn]] = {}

    def __call__(self, index: int) -> Drawn:
        """Return batch ``index`` and ask for those after it."""
        wanted = range(index, index + self._ahead + 1)
        for stale in self._under_way.keys() - set(wanted):
            self._under_way.pop(stale).cancel()
        for each in wanted:
            if each not in self._under_way:
                self._under_way[each] = self._pool.submit(self._draw, each)
        return self._under_way[index].result()


@contextmanager
def drawn_beside(config: PretrainConfig, *, ahead: int = 4) -> Iterator[Batches[Drawn]]:
    """Give batches that a process of its own draws; it ends with the block."""
    # Spawned: a fork would copy the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield DrawnBeside(config, pool, ahead)
    finally:
        pool.shutdown(cancel_futures=True)
