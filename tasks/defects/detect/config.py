"""Settings of a detector, and the error that says why none can be made."""

from __future__ import annotations

from dataclasses import dataclass


class DetectError(ValueError):
    """Samples that no detector can be made of, or an image that none can judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectConfig:
    """How a detector is fitted.

    Attributes:
        steps: Steps of training of net and segmentation head, some .15 s each on one core; 0 keeps
            the net as it is, which takes seconds and finds much less.
        fold_steps: The most steps of each of two more trainings, by which the score is calibrated.
        batch: Pieces of images per step.
        piece: Height and width of a square piece in pixels, a multiple of 16.
        rate: Highest learning rate.
        real: Share of pieces around labelled defects, where there are any.
        synthetic: Share of pieces with a synthetic defect.
        memory: Patches remembered.
        projected: Numbers per patch.
        folds: Groups of parts that are held out in turn to weigh the evidence.
        self_train: Rounds of training on the unlabelled images among the samples.
        side: Longest side judged in one go; larger images are judged in tiles.
        seed: Of everything random.
    """

    steps: int = 2_000
    fold_steps: int = 400
    batch: int = 8
    piece: int = 144
    rate: float = 2e-3
    real: float = 0.35
    synthetic: float = 0.4
    memory: int = 512
    projected: int = 48
    folds: int = 4
    self_train: int = 0
    side: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.steps, self.fold_steps, self.self_train) < 0:
            raise ValueError(
                f"steps {self.steps}, fold_steps {self.fold_steps}, self_train {self.self_train}: "
                "give 0 (none) or more"
            )
        if self.piece < 32 or self.piece % 16:
            raise ValueError(f"piece is {self.piece}; give a multiple of 16, at least 32")
        if min(self.real, self.synthetic) < 0 or self.real + self.synthetic > 1:
            raise ValueError(
                f"real {self.real}, synthetic {self.synthetic}: give shares of at most 1 together"
            )
        if not self.rate > 0:
            raise ValueError(f"rate is {self.rate}; give a learning rate above 0, such as 0.002")
        if min(self.batch, self.memory, self.projected) < 1 or self.folds < 2:
            raise ValueError("batch, memory and projected must be at least 1, folds at least 2")
        if self.side < 128 or self.side % 16:
            raise ValueError(f"side is {self.side}; give a multiple of 16, at least 128")
