"""The recipe of the shipped weights: how much, of what, and how strongly each head pulls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """What is trained.

    Attributes:
        steps: Optimizer steps.
        seed: Of the images and the first weights.
        surfaces: Pairs of siblings per batch; a batch has four times as many images.
        crop: Height and width of an image in pixels, a multiple of 16.
        flawless: Share of the surfaces without a defect.
        strength: Weakest and strongest contrast of defects, in spreads of their surface.
        mask: Weight of the head that draws masks.
        kind: Weight of the heads that name the type of a defect, from its place and at large.
        family: Weight of the head that names the layers of a surface.
        instance: Weight of telling surfaces apart by two renderings of each.
        temperature: Of that comparison.
        learning_rate: Peak of AdamW's.
        checkpoint_every: Steps between two checkpoints.
        compute: Number format of the forward pass; bf16 halves the time where the CPU has it.
    """

    steps: int = 9_000
    seed: int = 0
    surfaces: int = 8
    crop: int = 96
    flawless: float = 0.25
    strength: tuple[float, float] = (0.7, 6.0)
    mask: float = 2.0
    kind: float = 0.5
    family: float = 0.5
    instance: float = 0.5
    temperature: float = 0.15
    learning_rate: float = 2e-3
    checkpoint_every: int = 300
    compute: str = "bf16"

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.crop < 32 or self.crop % 16:
            raise ValueError(f"crop is {self.crop}; give a multiple of 16, at least 32")
        if self.surfaces < 2:
            raise ValueError(f"surfaces is {self.surfaces}; give at least 2 to tell apart")
        if not 0 <= self.flawless < 1:
            raise ValueError(f"flawless is {self.flawless}; give a share below 1")
        if min(self.mask, self.kind, self.family, self.instance) < 0 or self.temperature <= 0:
            raise ValueError("weights of heads must not be negative, the temperature above 0")


def with_changes(changes: Mapping[str, Any]) -> PretrainConfig:
    """Return the recipe with single settings changed, numbers also as text.

    Raises:
        ValueError: For a setting that is not there, or a value that does not fit.
    """
    known = {field.name: field.default for field in fields(PretrainConfig)}
    found: dict[str, Any] = {}
    for name, value in changes.items():
        default = known.get(name)
        if not isinstance(default, (int, float, str)):
            single = ", ".join(n for n, v in known.items() if not isinstance(v, tuple))
            raise ValueError(f"the recipe has no single setting {name!r}; it has {single}")  # noqa: TRY004 - a name, not a type
        try:
            found[name] = type(default)(value)
        except ValueError as error:
            raise ValueError(f"{name} is {value!r}; give a {type(default).__name__}") from error
    return PretrainConfig(**found)
