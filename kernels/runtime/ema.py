"""Exponential moving average of the weights, which evaluation and the finished model use.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the warm-up of
the decay is that of TensorFlow's ``ExponentialMovingAverage``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.runtime.group import local_of
from kernels.runtime.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class EmaConfig:
    """Whether weights are averaged.

    Attributes:
        decay: Share of the average that stays at every step, at most; 0 switches it off.
    """

    decay: float = 0.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 <= self.decay < 1:
            raise ValueError(f"ema.decay must lie in [0, 1), got {self.decay}")


class Ema:
    """The average of a model's floating-point parameters and buffers."""

    def __init__(self, spread: Spread, config: EmaConfig) -> None:
        self.decay = config.decay
        self._updates = 0
        self._spread = spread
        state = spread.model.state_dict(keep_vars=False)
        self._live = {name: local_of(t) for name, t in state.items() if t.is_floating_point()}
        # In bf16 a step of a thousandth would vanish.
        self._mean = {
            name: t.to(torch.promote_types(t.dtype, torch.float32), copy=True)
            for name, t in self._live.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights of now."""
        self._updates += 1
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates))
        means = list(self._mean.values())
        live = [t.to(m.dtype) for t, m in zip(self._live.values(), means, strict=True)]
        torch._foreach_lerp_(means, live, 1 - decay)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin from the weights of now."""
        _copy(self._live, self._mean)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the model have the average inside."""
        own = {name: t.clone() for name, t in self._live.items()}
        self.apply()
        try:
            yield
        finally:
            _copy(own, self._live)

    def apply(self) -> None:
        """Give the model the average for good."""
        _copy(self._mean, self._live)

    def state_dict(self) -> dict[str, Any]:
        """Return the average and how often it moved."""
        mean = {name: self._spread.as_spread(name, {"": t})[""] for name, t in self._mean.items()}
        return {"updates": self._updates, "mean": self._spread.collect(mean)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self._updates = int(state["updates"])
        mean = state["mean"]
        _copy({name: self._spread.part_of(name, mean[name]) for name in self._mean}, self._mean)


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
