"""Columns of numbers inside a frame of texts, and how far from its column a number lies.

Distances are robust (somewhat less than a quarter may be wrong on either side), have a scale of
their own on either side of the median, and are taken on a logarithmic scale where that makes the
column symmetrical.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_CELLS = 5
NUMERIC_SHARE = 0.8
NORMAL_QUARTILE = 0.6745  # upper quartile of the standard normal distribution
NORMAL_RATIO = 1.75  # of |z|: upper quartile over median; 1.71 for normal columns
FARTHEST = 1e6


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one column.

    Attributes:
        name: The column.
        rows: Row of each number [n].
        values: The numbers [n], finite.
        decimals: Written digits after the point, trailing zeros left out [n].
        counts: How often each number occurs in the column [n].
    """

    name: str
    rows: NDArray[np.int64]
    values: Floats
    decimals: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def distinct(self) -> int:
        """How many different numbers there are."""
        return len(np.unique(self.values))


def numbers_of(column: pl.Series) -> Numbers | None:
    """Return the numbers of a column of texts, None where they are few or most cells are words."""
    filled = column.len() - column.null_count()
    text = column.cast(pl.String).str.strip_chars()
    parsed = text.cast(pl.Float64, strict=False)
    keep = parsed.is_finite().fill_null(value=False)
    if filled < LEAST_CELLS or keep.sum() < max(LEAST_CELLS, NUMERIC_SHARE * filled):
        return None
    decimals = (
        text.filter(keep)
        .str.extract(r"\.(\d*)", 1)
        .fill_null("")
        .str.strip_chars_end("0")
        .str.len_chars()
    )
    values = parsed.filter(keep).to_numpy()
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return Numbers(
        column.name,
        np.flatnonzero(keep.to_numpy()),
        values,
        decimals.to_numpy().astype(np.int64),
        counts[place],
    )


def robust_z(values: Floats) -> Floats:
    """Return (value - median) / scale of its side, scales from the quartiles; zero scales kept up.

    A side's scale is at least a quarter of the other's. Where both quartiles equal the median,
    every other value is FARTHEST away.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    right, left = (high - middle) / NORMAL_QUARTILE, (middle - low) / NORMAL_QUARTILE
    least = max(0.25 * max(right, left), 1e-12 * max(1.0, abs(middle)))
    z = (values - middle) / np.where(values >= middle, max(right, least), max(left, least))
    return np.asarray(np.clip(z, -FARTHEST, FARTHEST), np.float64)


def skewness(values: Floats) -> float:
    """Return how unlike the two sides are, 0..1 (Kelly's measure on the middle 80 %)."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return float(abs((high - middle) - (middle - low)) / max(high - low, 1e-300))


def magnitudes(values: Floats) -> Floats:
    """Return how many robust deviations each value lies from the median, log scale where apt."""
    plain = np.abs(robust_z(values))
    positive = values > 0
    if positive.mean() <= NUMERIC_SHARE:
        return plain
    logs = np.log(values[positive])
    if skewness(logs) >= skewness(values) - 0.1:
        return plain
    scaled = plain.copy()
    scaled[positive] = np.abs(robust_z(logs))
    return scaled


def heaviness(magnitude: Floats) -> float:
    """Return by how much the middle of a column is more peaked than a normal one, from 0."""
    middle, upper = np.quantile(magnitude, [0.5, 0.75])
    return max(0.0, float(upper / max(middle, 1e-9)) - NORMAL_RATIO)


def normal_scores(values: Floats) -> Floats:
    """Return the normal quantile of each value's rank [n]."""
    ranks = pl.Series(values).rank("average").to_numpy()
    return np.asarray(ndtri((ranks - 0.375) / (len(values) + 0.25)), np.float64)
