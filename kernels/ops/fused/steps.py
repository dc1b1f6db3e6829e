"""The steps an element-wise chain is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

UNARY = ("neg", "abs", "square", "relu", "exp", "sigmoid", "tanh", "silu", "gelu")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")
MOST_OPERANDS = 4


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that is given with every call.

    Attributes:
        index: Its place among the given ones.
    """

    index: int


@dataclass(frozen=True, slots=True)
class Step:
    """One element-wise operation.

    Attributes:
        name: ``neg abs square relu exp sigmoid tanh silu gelu`` of the value so far, or
            ``add sub mul div maximum minimum`` of it and ``other``. ``gelu`` is the one by tanh
            (Hendrycks and Gimpel 2016), as ``gelu(approximate="tanh")``.
        other: A number, or a tensor that is given with every call.
    """

    name: str
    other: float | Operand | None = None

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.name not in (*UNARY, *BINARY):
            raise ValueError(f"step {self.name!r} is unknown; take one of {[*UNARY, *BINARY]}")
        if self.name in UNARY and self.other is not None:
            raise ValueError(f"step {self.name!r} takes no other value")
        if self.name in BINARY and self.other is None:
            raise ValueError(f"step {self.name!r} needs another value: a number or Operand(0)")
        if isinstance(self.other, float | int) and not math.isfinite(self.other):
            raise ValueError(f"step {self.name!r} with {self.other}: give a finite number")
        if isinstance(self.other, Operand) and not 0 <= self.other.index < MOST_OPERANDS:
            raise ValueError(
                f"Operand({self.other.index}): a chain takes at most {MOST_OPERANDS} tensors"
            )
