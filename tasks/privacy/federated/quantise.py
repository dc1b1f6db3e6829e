"""Real numbers as whole steps, so that masked sums modulo 2**64 are exact.

A value outside the range is refused: clipped, it would bend the average unseen, and wrapped it
would ruin it. The range times the number of branches is proved to fit before anything is summed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Steps = NDArray[np.int64]

MOST = (1 << 63) - 1
"""Largest sum that is told from a negative one modulo 2**64."""


class RangeError(ValueError):
    """A value that the quantiser does not cover.

    Attributes:
        branch: Whose value it is.
        parameter: What it is.
    """

    def __init__(self, branch: str, parameter: str, value: float, limit: float) -> None:
        self.branch, self.parameter = branch, parameter
        super().__init__(
            f"branch {branch!r}: {parameter} is {value:g}, outside the {limit:g} that sums"
            " cover; lower the learning rate, or raise the limit in the plan of all branches"
        )


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Steps of 2**-bits within plus and minus a limit.

    Attributes:
        limit: Largest absolute value.
        bits: Binary digits behind the point.
    """

    limit: float
    bits: int = 24

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not (np.isfinite(self.limit) and self.limit > 0 and 0 <= self.bits <= 48):
            raise ValueError(f"quantiser: a positive limit and 0 to 48 bits, not {self}")

    @property
    def largest(self) -> int:
        """Largest absolute value in steps."""
        return int(np.ceil(self.limit * 2.0**self.bits))

    def require_room(self, weights: int, what: str) -> None:
        """Check that sums cannot wrap.

        Args:
            weights: Largest sum of the absolute whole weights of all branches.
            what: What is summed, for the message.

        Raises:
            ValueError: When they could.
        """
        if self.largest * weights > MOST:
            spare = (self.largest * weights).bit_length() - 63
            raise ValueError(
                f"{what}: {weights:,} times {self.limit:g} in steps of 2**-{self.bits} does not fit"
                f" 64 bits; take {spare} bits fewer, or a smaller limit or fewer rows"
            )

    def steps(self, values: Reals, branch: str, name: Callable[[int], str]) -> Steps:
        """Return values in steps, to the nearest.

        Args:
            values: float64 [d].
            branch: Whose they are.
            name: What the value at a place is called.

        Raises:
            RangeError: On the first that is not finite or beyond the limit.
        """
        within = np.abs(values) <= self.limit  # false for NaN
        if not within.all():
            place = int(np.argmin(within))
            raise RangeError(branch, name(place), float(values[place]), self.limit)
        steps: Steps = np.rint(values * 2.0**self.bits).astype(np.int64)
        return steps

    def values(self, steps: Steps) -> Reals:
        """Return steps as numbers."""
        values: Reals = steps * 2.0**-self.bits
        return values
