"""One training per seed, some at the same time, on the CPU or a GPU: what benchmarks share.

What is timed is timed afterwards, in the process that asked: trainings beside each other would
slow each other down.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def add_trainings(made: argparse.ArgumentParser) -> None:
    """Give a parser the options of trainings over seeds."""
    made.add_argument("--seeds", type=int, default=5, help="trainings (default %(default)s)")
    made.add_argument("--jobs", type=int, default=1, help="seeds at the same time, a core each")
    made.add_argument("--device", default="cpu", help="where nets train; times are of the CPU")


def over_seeds(job: Callable[[int], T], args: argparse.Namespace) -> tuple[list[T], float]:
    """Return what a job found for each seed, in their order, and CPU seconds of all of them.

    Args:
        job: A function of a module, or a partial of one: processes of its own call it.
        args: With `add_trainings` and the seed to begin at.
    """
    seeds = range(args.seed, args.seed + args.seeds)
    timed = partial(_timed, job)
    if args.jobs == 1:
        done = [timed(seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
            done = list(pool.map(timed, seeds))
    return [result for result, _ in done], sum(cpu for _, cpu in done)


def _timed(job: Callable[[int], T], seed: int) -> tuple[T, float]:
    torch.set_num_threads(1)
    begun = time.process_time()
    found = job(seed)
    cpu = time.process_time() - begun
    # At once, so that a run that is stopped leaves what it had found.
    figures = _without_nets(found)
    print(f"seed {seed}, {cpu:.0f} CPU s: {figures}", file=sys.stderr, flush=True)
    return found, cpu


def _without_nets(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _without_nets(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_without_nets(value) for value in found]
    return type(found).__name__ if isinstance(found, torch.nn.Module) else found
