"""Drift: a slow offset that other sensors do not share.

A single sensor cannot tell its drift from its process. Against peers it can: what the peers do not
explain is noise around zero until the sensor drifts. Without peers only a departure from the
series' own first part by more than a declared limit counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.cleaning.sensors.readings import Bools, Floats, rolling_median

WINDOW = 101
FIT_ROUNDS = 12
NORMAL_QUARTILE = 0.6745
LEAST_READINGS = 3 * WINDOW
DEVIATIONS = 6.0


@dataclass(frozen=True, slots=True)
class Drift:
    """The slow offset of a series.

    Attributes:
        offset: What to take away from each reading [n].
        found: Readings whose offset is beyond the limit, and those of its way there [n].
        limit: The limit.
    """

    offset: Floats
    found: Bools
    limit: float


def find_drift(values: Floats, peers: Floats | None, limit: float) -> Drift:
    """Find the drift of one series.

    Args:
        values: Readings in order of time, all finite [n].
        peers: Readings of the other sensors at the same times, NaN where there is none
            [n, peers]; None without any.
        limit: Largest offset, units; 0: six robust deviations of the slow part, with peers only.
    """
    n = len(values)
    nothing = Drift(np.zeros(n), np.zeros(n, bool), limit)
    if n < LEAST_READINGS:
        return nothing
    if peers is None:
        if limit <= 0:
            return nothing
        rest = values - np.median(values[: n // 5])
    else:
        explained = _explained(values, peers)
        if explained is None:
            return nothing
        rest = values - explained
    slow = rolling_median(rest, WINDOW)
    if peers is not None:
        slow = slow - _settled(slow)
    fast = float(np.median(np.abs(rest - rolling_median(rest, WINDOW)))) / NORMAL_QUARTILE
    # 1.25: a median's spread beside a mean's. Where errors keep together the slow part moves more.
    spread = max(1.25 * fast / np.sqrt(WINDOW), _calm_spread(slow))
    limit = limit or DEVIATIONS * spread
    beyond = np.abs(slow) > limit
    return Drift(slow, _backdated(beyond, slow, min(limit, 2.0 * spread)), limit)


def _explained(values: Floats, peers: Floats) -> Floats | None:
    """Return what the mean of the peers says, by a line of least absolute deviations."""
    known = ~np.isnan(peers)
    count = known.sum(1)
    if (count > 0).mean() < 0.5:
        return None
    mean = np.where(known, peers, 0.0).sum(1) / np.maximum(count, 1)
    places = np.flatnonzero(count > 0)
    mean = np.interp(np.arange(len(values)), places, mean[places])
    design = np.column_stack([mean - np.median(mean), np.ones(len(mean))])
    weight = np.ones(len(values))
    line = np.zeros(2)
    for _ in range(FIT_ROUNDS):
        root = np.sqrt(weight)
        line = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0]
        rest = np.abs(values - design @ line)
        weight = 1.0 / np.maximum(rest, max(float(np.median(rest)), 1e-12) * 0.1)
    gone = float(np.median(rest)) / max(float(np.median(np.abs(values - np.median(values)))), 1e-12)
    # A peer that explains hardly anything is no peer.
    return design @ line if gone < 0.8 else None


def _settled(slow: Floats) -> float:
    """Return the level that the slow part keeps longest: the middle of its shortest half."""
    ordered = np.sort(slow)
    half = (len(ordered) + 1) // 2
    widths = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
    at = int(np.argmin(widths))
    return float(np.median(ordered[at : at + half]))


def _calm_spread(slow: Floats) -> float:
    """Return the robust deviation of the slow part around the level that it keeps longest."""
    return float(np.quantile(np.abs(slow), 0.35)) / 0.4538  # 35 % of a normal lie within .4538


def _backdated(beyond: Bools, slow: Floats, least: float) -> Bools:
    """Extend what is beyond the limit to the readings of the way there and back."""
    same = np.abs(slow) > least
    labels = np.cumsum(np.diff(same, prepend=False) != 0)
    hit = np.unique(labels[beyond & same])
    return same & np.isin(labels, hit) | beyond
