"""Many series by name, read at equal steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of probes.

    Attributes:
        names: One for each series.
        every: Seconds between readings.
        values: Readings, shape (readings, series), float64.
    """

    names: tuple[str, ...]
    every: float
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise ValueError(
                f"series: values of shape (readings, {len(self.names)}) are needed, "
                f"got {self.values.shape}"
            )
        if self.every <= 0:
            raise ValueError(f"series: every must be above 0 s, got {self.every}")
        if not bool(np.isfinite(self.values).all()):
            raise ValueError("series: values must be finite; leave out what has gaps")
