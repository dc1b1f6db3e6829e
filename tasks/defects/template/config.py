"""Settings of a comparison with golden samples."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.defects.detect.config import DetectError


class AlignError(DetectError):
    """An image that shows no such product, or too far off its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateConfig:
    """How images are laid on the golden sample, and what may differ.

    Attributes:
        shift: Largest shift, as a share of the sides.
        turn: Largest rotation in degrees, either way.
        zoom: Largest relative change of size, either way.
        alike: Least correlation of an image's detail with the golden sample's after alignment;
            below, the image is refused.
        light: Pixels over which light may change, as a share of the longer side.
        edge: Pixels that an edge may be off its place.
        spreads: Difference from which a pixel counts as a defect, in spreads of good images.
        least: Fewest pixels of a box.
    """

    shift: float = 0.15
    turn: float = 5.0
    zoom: float = 0.03
    alike: float = 0.5
    light: float = 0.25
    edge: int = 1
    spreads: float = 5.0
    least: int = 4

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not (0 <= self.shift <= 0.5 and 0 <= self.turn <= 30 and 0 <= self.zoom <= 0.2):
            raise ValueError(
                f"shift {self.shift}, turn {self.turn}, zoom {self.zoom}: give at most half of an "
                "image, 30 degrees and .2"
            )
        if not (0 < self.alike < 1 and 0 < self.light <= 1):
            raise ValueError(f"alike {self.alike}, light {self.light}: give shares above 0")
        if self.edge < 0 or self.least < 1 or not self.spreads > 0:
            raise ValueError(
                f"edge {self.edge}, least {self.least}, spreads {self.spreads}: give edge 0 or "
                "more, the others above 0"
            )
