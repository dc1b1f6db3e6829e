"""Settings of the network that learns explanations, and what it promises."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.explain.errors import ExplanationError


class AmortisedError(ExplanationError):
    """The network does not keep its promise, or belongs to another model or background."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmortisedConfig:
    """How the network is trained and what it must keep.

    Attributes:
        promise: Mean relative L2 error of the rows that the gate lets through.
        hidden: Width of each hidden layer.
        steps: Optimizer steps.
        batch: Rows of a step.
        learning_rate: Peak of warm-up and cosine.
        weight_decay: Decoupled penalty on the weights.
        held_out: Share of the rows that are kept from training, by which the gate is set.
        seed: Seed of weights, order and which rows are held out.
    """

    promise: float = 0.05
    hidden: tuple[int, ...] = (256, 256)
    steps: int = 8_000
    batch: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    held_out: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 < self.promise < 1:
            raise ValueError(f"promise must lie between 0 and 1, got {self.promise}; 0.05 is usual")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must list widths of at least 1, got {self.hidden}")
        if min(self.steps, self.batch) < 1 or not self.learning_rate > 0:
            raise ValueError("steps, batch and learning_rate must be positive")
        if self.weight_decay < 0 or self.seed < 0:
            raise ValueError("weight_decay and seed must not be negative")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie between 0 and 1, got {self.held_out}")
