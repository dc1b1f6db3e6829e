"""What hundreds of probes have in common: principal components of their series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.scheduling.series import Series


@dataclass(frozen=True, slots=True)
class Direction:
    """One principal component.

    Attributes:
        share: Share of the variance of all series, each scaled to variance 1.
        names: The series that it moves most, strongest first.
        loads: Their correlations with it.
    """

    share: float
    names: tuple[str, ...]
    loads: tuple[float, ...]


def directions(series: Series, count: int = 3, names: int = 5) -> tuple[Direction, ...]:
    """Return the main directions in which the load moves.

    Series that never change are left out; all others are centred and scaled (Pearson 1901).

    Args:
        series: Readings.
        count: How many directions at most.
        names: How many series of each are named.
    """
    moving = series.values.std(0) > 1e-12 * np.maximum(1.0, np.abs(series.values).max(0))
    if not bool(moving.any()):
        return ()
    kept = [name for name, moves in zip(series.names, moving.tolist(), strict=True) if moves]
    values = series.values[:, moving]
    scaled = (values - values.mean(0)) / values.std(0)
    _, sizes, vectors = np.linalg.svd(scaled, full_matrices=False)
    shares = sizes**2 / (sizes**2).sum()
    found = []
    for share, size, vector in zip(shares[:count], sizes, vectors, strict=False):
        loads = vector * size / np.sqrt(len(scaled))
        order = np.argsort(-np.abs(loads), kind="stable")[:names]
        sign = 1.0 if loads[order[0]] > 0 else -1.0
        found.append(
            Direction(
                float(share),
                tuple(kept[i] for i in order),
                tuple(round(float(sign * loads[i]), 3) for i in order),
            )
        )
    return tuple(found)
