"""Learning rate as a pure function of the step."""

from __future__ import annotations

import math

from kernels.runtime.config import RunConfig


def rate_at(step: int, config: RunConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine to ``final_rate``.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017 (one
    cycle, no restart).

    Args:
        step: 0-based optimizer step.
        config: The run.

    >>> config = RunConfig(steps=10, learning_rate=1.0, warmup=0.2, final_rate=0.0)
    >>> [round(rate_at(s, config), 2) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.04]
    """
    rising = round(config.steps * config.warmup)
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    progress = min((step - rising) / max(config.steps - rising, 1), 1.0)
    share = 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.learning_rate * (config.final_rate + (1.0 - config.final_rate) * share)
