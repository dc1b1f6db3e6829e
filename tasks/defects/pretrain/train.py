"""Runs the pre-training and packs what it learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from kernels.runtime.callbacks import Callback
from kernels.runtime.job import run_job
from kernels.runtime.report import Report
from tasks.defects.pretrain.heads import Pretrained
from tasks.defects.pretrain.job import pretrain_job
from tasks.defects.pretrain.recipe import PretrainConfig
from tasks.defects.pretrain.worker import drawn_beside
from tasks.defects.weights import pack


def pretrain(
    config: PretrainConfig, checkpoints: Path | None = None, callbacks: Sequence[Callback] = ()
) -> tuple[Report, bytes]:
    """Train on one thread beside one process that draws, so that two cores are used.

    Args:
        config: The recipe.
        checkpoints: Folder for them, in which a killed run is continued; None for none.
        callbacks: Hear of every step.

    Returns:
        The runtime's report, and the file of the weights as `weights.pack` makes it.
    """
    with _one_thread(), drawn_beside(config) as batches:
        model = Pretrained.fresh(config.seed)
        job = pretrain_job(config, model, batches)
        report = run_job(job, checkpoints, callbacks)
    notes = {"steps": str(report.finished), "seed": str(config.seed)}
    return report, pack(model.net, model.mask, notes)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are split over threads: only a fixed number of them gives the same weights again."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
