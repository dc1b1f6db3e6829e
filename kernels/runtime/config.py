"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a model is trained; everything that decides the result is here.

    Attributes:
        steps: Optimizer steps.
        learning_rate: Peak learning rate.
        warmup: Share of the steps in which the rate rises linearly to its peak.
        final_rate: Share of the peak that is left at the last step of the cosine.
        weight_decay: Decoupled weight decay (AdamW); biases, norms and scalars are left out.
        betas: Decay of AdamW's moments.
        clip_norm: Gradients are scaled down to this global L2 norm; 0 switches clipping off.
        accumulate: Micro-batches per step; the loss is divided by their summed item count.
        seed: Seed of initial noise, dropout and batches.
        checkpoint_every: Steps between checkpoints; 0 writes one at the end only.
    """

    steps: int
    learning_rate: float = 2e-3
    warmup: float = 0.1
    final_rate: float = 0.01
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    accumulate: int = 1
    seed: int = 0
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.steps < 1 or self.accumulate < 1:
            raise ValueError("run.steps and run.accumulate must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"run.learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.warmup < 1 or not 0 <= self.final_rate <= 1:
            raise ValueError("run.warmup must lie in [0, 1) and run.final_rate in [0, 1]")
        if self.weight_decay < 0 or self.clip_norm < 0 or self.checkpoint_every < 0:
            raise ValueError(
                "run.weight_decay, run.clip_norm and run.checkpoint_every must not be negative"
            )
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"run.betas must lie in [0, 1), got {self.betas}")
