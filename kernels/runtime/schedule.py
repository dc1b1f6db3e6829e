"""Learning rate as a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate goes over a run.

    Attributes:
        name: ``cosine``, ``linear`` or ``constant`` after the warm-up.
        warmup: Share of the steps in which the rate rises linearly to its peak.
        final: Share of the peak that is left at the end.
    """

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.1
    final: float = 0.01

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.name not in {"cosine", "linear", "constant"}:
            raise ValueError(
                f"schedule.name is {self.name!r}; take 'cosine', 'linear' or 'constant'"
            )
        if not 0 <= self.warmup < 1 or not 0 <= self.final <= 1:
            raise ValueError(
                f"schedule.warmup must lie in [0, 1) and schedule.final in [0, 1], "
                f"got {self.warmup} and {self.final}"
            )


def factor_at(step: int, steps: int, config: ScheduleConfig) -> float:
    """Return the share of the peak rate at a step: linear warm-up, then the decay.

    Cosine: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017
    (one cycle, no restart).

    Args:
        step: 0-based optimizer step.
        steps: Steps of the whole run.
        config: The schedule.

    >>> config = ScheduleConfig(warmup=0.2, final=0.0)
    >>> [round(factor_at(s, 10, config), 2) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.04]
    """
    rising = round(steps * config.warmup)
    if step < rising:
        return (step + 1) / rising
    if config.name == "constant":
        return 1.0
    progress = min((step - rising) / max(steps - rising, 1), 1.0)
    share = (
        1.0 - progress if config.name == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    )
    return config.final + (1.0 - config.final) * share
