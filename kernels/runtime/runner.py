"""The training loop: AdamW, warm-up and cosine, clipping, accumulation, checkpoints, callbacks.

A run is a pure function of (model, batches, loss, config): batches are asked for by step, so the
position of a run is one integer, and a killed run continues bit for bit from its checkpoint.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from kernels.runtime import checkpoint
from kernels.runtime.callbacks import Callback, StepMetrics
from kernels.runtime.config import RunConfig
from kernels.runtime.schedule import rate_at

logger = logging.getLogger(__name__)

Batch_co = TypeVar("Batch_co", covariant=True)
Batch = TypeVar("Batch")


class NonFiniteError(RuntimeError):
    """Loss or gradients became NaN or infinite; the model still holds the last good weights."""


class Batches(Protocol[Batch_co]):
    """Where batches come from."""

    def __call__(self, index: int) -> Batch_co:
        """Return micro-batch ``index`` (0-based over the run), always the same for an index."""


Loss = Callable[[nn.Module, Batch], tuple[Tensor, int]]
"""Returns the summed loss over the valid items of a batch, and how many there are."""


def run(
    model: nn.Module,
    batches: Batches[Batch],
    loss: Loss[Batch],
    config: RunConfig,
    callbacks: Sequence[Callback] = (),
    checkpoint_dir: Path | None = None,
) -> int:
    """Train ``model`` in place and leave it in evaluation mode.

    Args:
        model: The model; its initial weights are the caller's business.
        batches: Source of micro-batches by index.
        loss: Summed loss and item count of a batch.
        config: Settings.
        callbacks: Listeners, called after each step.
        checkpoint_dir: Folder of checkpoints. A whole checkpoint found there is continued from,
            a finished one only loaded.

    Returns:
        Steps done by this call (0 when the run had finished before).

    Raises:
        NonFiniteError: Before an update that would spoil the weights.
        checkpoint.CheckpointError: When a checkpoint belongs to another run.
    """
    optimizer = torch.optim.AdamW(
        _groups(model, config.weight_decay), lr=config.learning_rate, betas=config.betas
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        start = _resume(checkpoint_dir, model, optimizer, config)
        model.train()
        for step in range(start, config.steps):
            began = time.perf_counter()
            rate = rate_at(step, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            mean, norm, items = _step(model, batches, loss, optimizer, config, step)
            seconds = max(time.perf_counter() - began, 1e-9)
            metrics = StepMetrics(step + 1, config.steps, mean, rate, norm, items, items / seconds)
            if checkpoint_dir is not None and _due(step + 1, config):
                checkpoint.save(checkpoint_dir, step + 1, model, optimizer, config)
            for callback in callbacks:
                callback.on_step(metrics)
    model.eval()
    return config.steps - start


def _step(
    model: nn.Module,
    batches: Batches[Batch],
    loss: Loss[Batch],
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    step: int,
) -> tuple[float, float, int]:
    """Return mean loss, gradient norm before clipping and item count of one update."""
    optimizer.zero_grad(set_to_none=True)
    total, items = 0.0, 0
    for micro in range(config.accumulate):
        value, count = loss(model, batches(step * config.accumulate + micro))
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        total += float(value.detach())
        items += count
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    # Micro-batches may hold different numbers of valid items: divide once, by all of them.
    for gradient in gradients:
        gradient.div_(max(items, 1))
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise NonFiniteError(
            f"step {step + 1}: loss {total / max(items, 1):.4g}, gradient norm {norm:.4g}; "
            "lower the learning rate or look for values that are not finite in the batch"
        )
    if config.clip_norm and norm > config.clip_norm:
        for gradient in gradients:
            gradient.mul_(config.clip_norm / norm)
    optimizer.step()
    return total / max(items, 1), norm, items


def _resume(
    folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig
) -> int:
    found = checkpoint.latest(folder) if folder is not None else None
    if found is None:
        return 0
    step = checkpoint.load(found, model, optimizer, config)
    logger.info("resuming at step %d of %d from %s", step, config.steps, found)
    return step


def _due(step: int, config: RunConfig) -> bool:
    every = config.checkpoint_every
    return step == config.steps or (every > 0 and step % every == 0)


def _groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Return two parameter groups: matrices with weight decay, the rest without."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, object]] = [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]
