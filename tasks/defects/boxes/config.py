"""Settings of a detector of boxes."""

from __future__ import annotations

from dataclasses import dataclass

WEIGHTS, FACTS, TYPES = "boxes.safetensors", "boxes.json", "boxes-types.npz"
FILES = (WEIGHTS, FACTS, TYPES)
"""Names of the files of a detector of boxes; the last only where several types are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxConfig:
    """How a detector of boxes is fitted, and how it judges.

    Attributes:
        steps: Steps of training, some .3 s each on one core.
        batch: Pieces of images per step.
        piece: Height and width of a square piece in pixels, a multiple of 16.
        rate: Highest learning rate.
        mosaic: Share of pieces put together from four images.
        side: Longest side of an image; longer ones are brought down to it, for fit and judgement.
        evidence: How much the types of the whole image count in a box's score: its factor is the
            type's probability to this power; 0 does without. Below 1 since images show other
            types, too.
        flips: Whether an image is judged in four mirrored positions, which takes four times as
            long and finds a little more.
        nms_iou: Intersection over union above which the lower of two boxes of a type is dropped.
        least: Score below which no box is proposed.
        told: Score from which a box is told beside a verdict.
        most: Boxes per image.
        seed: Of everything random.
    """

    steps: int = 450
    batch: int = 8
    piece: int = 192
    rate: float = 2e-3
    mosaic: float = 0.3
    side: int = 512
    evidence: float = 0.15
    flips: bool = False
    nms_iou: float = 0.5
    least: float = 0.01
    told: float = 0.4
    most: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.steps < 1 or self.batch < 1 or self.most < 1:
            raise ValueError(
                f"steps {self.steps}, batch {self.batch}, most {self.most}: give at least 1"
            )
        if self.piece < 32 or self.piece % 16:
            raise ValueError(f"piece is {self.piece}; give a multiple of 16, at least 32")
        if not self.rate > 0:
            raise ValueError(f"rate is {self.rate}; give a learning rate above 0, such as 0.002")
        if self.side < 32:
            raise ValueError(f"side is {self.side}; give at least 32 pixels")
        if not self.evidence >= 0:
            raise ValueError(f"evidence is {self.evidence}; give 0 (none) or more")
        shares = (self.mosaic, self.least, self.told, self.nms_iou)
        if not all(0 <= share <= 1 for share in shares) or not self.nms_iou or self.least == 1:
            raise ValueError(
                f"mosaic {self.mosaic}, least {self.least}, told {self.told}, nms_iou "
                f"{self.nms_iou}: give shares from 0 to 1"
            )
