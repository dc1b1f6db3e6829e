"""Batches drawn in a process beside, so that the net never waits for its images."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from kernels.runtime.prefetch import prefetched
from kernels.runtime.source import Batches
from tasks.defects.pretrain.images import Drawn, draw_batch
from tasks.defects.pretrain.recipe import PretrainConfig


@contextmanager
def drawn_beside(config: PretrainConfig, *, ahead: int = 4) -> Iterator[Batches[Drawn]]:
    """Give batches that a process of its own draws; it ends with the block."""
    # Spawned: a fork would copy the locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:

        def drawn(index: int) -> Drawn:
            return pool.submit(draw_batch, config, index).result()

        with prefetched(drawn, ahead=ahead) as batches:
            yield batches
