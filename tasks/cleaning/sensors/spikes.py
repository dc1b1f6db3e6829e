"""Spikes: a few readings that leave their neighbours and come back.

A reading is judged by the line between the readings before and after: a ramp, a wave, a step of the
process stay near it on one side at least, a spike does not. Distances are measured in local robust
deviations (median of second differences), so a process may be calm here and restless there. The
usual filters (median, Hampel) take a step's edges and the peaks of waves for spikes.

Excursions longer than a spike's are the decoys: they are held by several readings, so that the
process did make them. As many as there are of them, as many short ones may be true, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.cleaning.sensors.readings import Bools, Floats, rolling_median
from tasks.cleaning.sensors.tails import tail_of

NORMAL_QUARTILE = 0.6745
SCALE_WINDOW = 101
SLOPE_WINDOW = 11
LEVEL_WINDOW = 21
ROUNDS = 4
BACK = 0.5
"""How far from where it left an excursion may return, in parts of its height."""
LEAST_READINGS = 30


@dataclass(frozen=True, slots=True)
class Spikes:
    """What left its neighbours.

    Attributes:
        score: Robust deviations of each reading's excursion, 0 where there is none [n].
        found: Readings in an excursion of at most the length of a spike above the threshold [n].
        held: Readings in excursions up to twice as long that are as high: the process's own [n].
    """

    score: Floats
    found: Bools
    held: Bools


def deviation(values: Floats, resolution: float) -> Floats:
    """Return the local robust deviation of a series without trend [n], at least half a step."""
    second = np.abs(np.diff(values, 2)) / np.sqrt(6.0) / NORMAL_QUARTILE
    padded = np.concatenate([second[:1], second, second[-1:]])
    scale = rolling_median(padded, SCALE_WINDOW)
    least = max(0.5 * resolution, 1e-9 * float(np.abs(values).max(initial=0.0)), 1e-12)
    return np.maximum(scale, least)


def find_spikes(
    times: Floats,
    values: Floats,
    *,
    threshold: float,
    length: int,
    resolution: float = 0.0,
    gap: float = 0.0,
) -> Spikes:
    """Find spikes of one series.

    Args:
        times: Seconds, never falling [n].
        values: Readings, all finite [n].
        threshold: Robust deviations.
        length: Most readings of one spike.
        resolution: Smallest step of the sensor.
        gap: Seconds between two readings that are no neighbours any more; 0 for any.
    """
    n = len(values)
    score, found, held = np.zeros(n), np.zeros(n, bool), np.zeros(n, bool)
    if n < LEAST_READINGS or threshold <= 0:
        return Spikes(score, found, held)
    left, usual = np.arange(n), 0.0
    for _ in range(ROUNDS):
        part, new = _part(times[left], values[left], resolution), np.zeros(len(left), bool)
        for size in range(1, length + 1):
            height = _excursions(part, size, gap)
            usual = usual or _usual(height)
            cells = _cells(_comparable(height, usual), size, threshold, new)
            score[left] = np.maximum(score[left], cells)
            new |= cells > 0
        found[left[new]] = True
        left = left[~new]
        if not new.any() or len(left) < LEAST_READINGS:
            break
    if new.any():
        part = _part(times[left], values[left], resolution)
    for size in range(length + 1, 2 * length + 1):
        height = _comparable(_excursions(part, size, gap), usual)
        held[left] |= _cells(height, size, threshold, held[left]) > 0
    return Spikes(score, found, held)


def inferred_threshold(times: Floats, values: Floats, resolution: float) -> float:
    """Return the height that no ordinary reading of the series is expected to reach."""
    if len(values) < LEAST_READINGS:
        return 0.0
    height = _excursions(_part(times, values, resolution), 1, 0.0)
    return max(6.0, tail_of(height).bound(0.05))


@dataclass(frozen=True, slots=True)
class _Part:
    """Readings and what is usual around each [n]: deviation, slope of a step, level."""

    times: Floats
    values: Floats
    scale: Floats
    slope: Floats
    level: Floats


def _part(times: Floats, values: Floats, resolution: float) -> _Part:
    return _Part(
        times,
        values,
        deviation(values, resolution),
        rolling_median(np.concatenate([[0.0], np.diff(values)]), SLOPE_WINDOW),
        rolling_median(values, LEVEL_WINDOW),
    )


def _excursions(part: _Part, size: int, gap: float) -> Floats:
    """Return the height of the excursion of ``size`` readings that begins at each one [n].

    Its height is the least distance of its readings from the line between the reading before and
    the one after, all on the same side; 0 where it does not come back.
    """
    t, x, scale = part.times, part.values, part.scale
    n = len(x)
    height = np.zeros(n)
    if n < size + 2:
        return height
    before, after = x[: n - size - 1], x[size + 1 :]
    spread = t[size + 1 :] - t[: n - size - 1]
    inside = np.stack([x[k : n - size - 1 + k] for k in range(1, size + 1)])
    parts = np.stack([t[k : n - size - 1 + k] - t[: n - size - 1] for k in range(1, size + 1)])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(spread > 0, parts / spread, 0.5)
    away = inside - (before + share * (after - before))
    one_side = np.where((away > 0).all(0) | (away < 0).all(0), np.abs(away).min(0), 0.0)
    returned = np.abs(after - before - (size + 1) * part.slope[1 : n - size]) <= BACK * one_side
    # Of a spike and the reading between two of them, the one nearer to the level is the good one.
    level = part.level[1 : n - size]
    farther = np.abs(inside.mean(0) - level) > np.abs((before + after) / 2.0 - level)
    fits = returned & farther
    if gap:
        fits &= spread <= gap + (size + 1) * float(np.median(np.diff(t)))
    height[1 : n - size] = np.where(fits, one_side / scale[1 : n - size], 0.0)
    return height


def _usual(height: Floats) -> float:
    return float(np.median(height[height > 0])) if (height > 0).any() else 0.0


def _comparable(height: Floats, usual: float) -> Floats:
    """Return heights on the scale of single readings: longer excursions are higher by nature."""
    mine = height[height > 0]
    if usual == 0.0 or len(mine) < LEAST_READINGS:
        return height
    return height * min(1.0, usual / float(np.median(mine)))


def _cells(height: Floats, size: int, threshold: float, taken: Bools) -> Floats:
    """Return the height of each reading's excursion; 0 where it is low or overlaps a taken one."""
    cells = np.zeros(len(height))
    for start in np.flatnonzero(height >= threshold).tolist():
        if not taken[start : start + size].any():
            part = cells[start : start + size]
            np.maximum(part, height[start], out=part)
    return cells
