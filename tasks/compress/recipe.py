"""What is done to a model, in which order, and what of it a plan tries first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.compress.device import CompressError, Device

Bits = Literal["float", "int8", "int8+int4", "dynamic"]
"""Of the weights: as trained, 8 bits, 8 and 4 bits mixed by sensitivity, 8 bits with ranges of the
activations found while running."""
_RISK: dict[Bits, float] = {"float": 0.0, "dynamic": 1.0, "int8": 1.5, "int8+int4": 2.5}
"""What usually loses more; pruned nets lose by what is taken out."""
PRUNED = (0.0, 0.25, 0.4, 0.5, 0.6)
"""Shares of the products that plans try to take out."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Methods in the order in which they are applied: channels out, training, fewer bits.

    Attributes:
        prune: Share of the products that goes with the channels; 0 for none.
        bits: Of the weights.
    """

    prune: float = 0.0
    bits: Bits = "float"

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 0 <= self.prune < 1:
            raise CompressError(f"prune={self.prune:g}: give a share from 0 to below 1, as 0.3")
        if self.bits not in _RISK:
            raise CompressError(f"bits={self.bits!r} is none of {', '.join(_RISK)}")

    @property
    def name(self) -> str:
        """A short name, as ``pruned 40 % + int8``."""
        parts = [f"pruned {self.prune:.0%}".replace("%", " %")] if self.prune else []
        parts += [self.bits] if self.bits != "float" or not parts else []
        return " + ".join(parts)

    @property
    def methods(self) -> tuple[str, ...]:
        """What is done, in order."""
        first = (f"prune {self.prune:.0%} of the products", "repair by distillation")
        bits = {"float": (), "dynamic": ("quantise weights to 8 bits, activations while running",)}
        bits["int8"] = ("quantise to 8 bits by calibration",)
        bits["int8+int4"] = (*bits["int8"], "weights to 4 bits where the layer bears it")
        return (*(first if self.prune else ()), *bits[self.bits])

    @property
    def risk(self) -> float:
        """How much is usually lost, to order by."""
        return _RISK[self.bits] + 10 * self.prune


def recipes(can: Mapping[str, str], device: Device) -> Iterator[tuple[Recipe, str]]:
    """Yield every recipe that changes something, with what rules it out, "" where nothing does.

    Args:
        can: Methods of the model's family -> why not, "" where it can: ``prune``, and each of
            `Bits`.
        device: What it must run on.
    """
    for share in PRUNED:
        for bits in _RISK:
            recipe = Recipe(share, bits)
            if recipe == Recipe():
                continue
            why = can.get(bits, "not known to this family") or (can["prune"] if share else "")
            if bits == "int8+int4" and not device.four_bits:
                why = f"the runtime of {device.name} reads no weights of 4 bits"
            yield recipe, why
