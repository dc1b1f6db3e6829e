"""A small model, its batches and its loss, for the tests of the runtime."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kernels.runtime.accumulation import AccumulationConfig
from kernels.runtime.checkpoint import CheckpointConfig
from kernels.runtime.config import RunConfig
from kernels.runtime.optimizer import OptimizerConfig


def make_model(*, norm: bool = False) -> nn.Module:
    """A net with dropout and, if wished, with buffers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        middle = [nn.BatchNorm1d(8)] if norm else []
        return nn.Sequential(nn.Linear(4, 8), *middle, nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))


def batches(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(16, 4, generator=generator)
    return x, x.sum(dim=1, keepdim=True).tanh()


def squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    x, y = batch
    return ((model(x) - y) ** 2).sum(), len(x)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def config(
    steps: int,
    learning_rate: float = 2e-3,
    *,
    every: int = 0,
    batches: int = 1,
    decay: float = 1e-2,
    **more: Any,
) -> RunConfig:
    """A config with the settings that tests change most."""
    more.setdefault("checkpoint", CheckpointConfig(every=every))
    more.setdefault("accumulation", AccumulationConfig(batches=batches))
    optimizer = OptimizerConfig(learning_rate=learning_rate, weight_decay=decay)
    return RunConfig(steps=steps, optimizer=optimizer, **more)


class Stop:
    """Ends a run after some steps, as Ctrl-C would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step(self, metrics: Any) -> None:
        if metrics.step == self.after:
            raise KeyboardInterrupt
