"""Means and deviations of all branches' rows, from one secure sum of sums and squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.privacy.encoding import Encoding

Reals = NDArray[np.float64]

LIMIT = 8.0
"""Standardised values are cut here, as by the heads that one bank trains alone."""


def signed_log(x: NDArray[np.float32] | Reals) -> Reals:
    """Return ``sign(v) * ln(1 + |v|)`` in float64."""
    values = np.asarray(x, np.float64)
    logs: Reals = np.sign(values) * np.log1p(np.abs(values))
    return logs


def row_sums(x: NDArray[np.float32] | Reals) -> Reals:
    """Return number of rows, sums and sums of squares of signed logarithms, float64 [1 + 2F]."""
    z = signed_log(x)
    return np.concatenate([[len(z)], z.sum(axis=0), np.square(z).sum(axis=0)])


def moment_name(columns: Sequence[str], place: int) -> str:
    """Return what an entry of `row_sums` is, for messages."""
    if place == 0:
        return "number of rows"
    square, column = divmod(place - 1, len(columns))
    return f"{'sum of squares' if square else 'sum'} of {columns[column]!r}"


def encoding_of(columns: Sequence[str], mean: Reals, scale: Reals) -> Encoding:
    """Return the encoding that standardises signed logarithms."""
    limits = np.full(len(columns), LIMIT)
    return Encoding(tuple(columns), mean, scale, limits, signed_log=True, beyond="clip")


def encoding_from(columns: Sequence[str], sums: Reals) -> Encoding:
    """Return the encoding of what `row_sums` gave, summed over branches."""
    width = len(columns)
    count = max(float(sums[0]), 1.0)
    mean = sums[1 : 1 + width] / count
    variance = np.maximum(sums[1 + width :] / count - np.square(mean), 0.0)
    # What sums in whole steps cannot tell from a constant is one.
    scale = np.where(variance > 1e-6, np.sqrt(variance), 1.0)
    return encoding_of(columns, mean, scale)
