"""What should have stood there, from the good readings on either side, with an interval.

How many readings of either side are averaged is chosen on the good readings themselves: each is
left out in turn and told from its neighbours, and the errors made there are the interval, too
(split conformal: no shape of noise is assumed). A process that wanders is told best by one reading
of either side, one that is steady under noise by several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.cleaning.sensors.readings import Bools, Floats, Ints

SIDES = (1, 2, 3, 5)
COVERAGE = 0.95
NORMAL_95 = 1.96
NORMAL_QUARTILE = 0.6745
MOST_TRIED = 20_000


@dataclass(frozen=True, slots=True)
class Told:
    """Values for some readings.

    Attributes:
        values: The values [m].
        low: Lower end of the 95 % interval [m].
        high: Upper end [m].
    """

    values: Floats
    low: Floats
    high: Floats


def interpolate(times: Floats, values: Floats, good: Bools, wanted: Ints) -> Told | None:
    """Tell readings of a series from the good ones around them; None with fewer than ten.

    Args:
        times: Seconds, never falling [n].
        values: Readings [n]; only the good ones are looked at.
        good: Which readings may be relied on [n].
        wanted: Places of the readings to be told.
    """
    rest = np.flatnonzero(good)
    if len(rest) < 10:
        return None
    t, x = times[rest], values[rest]
    inner = np.arange(1, len(rest) - 1)
    inner = inner[:: max(1, len(inner) // MOST_TRIED)]
    trials = {k: np.abs(x[inner] - _between(t, x, inner, inner + 1, t[inner], k)) for k in SIDES}
    best = min(SIDES, key=lambda k: float(np.median(trials[k])))
    rank = min(1.0, COVERAGE * (len(inner) + 1) / len(inner))
    error = float(np.quantile(trials[best], rank))
    after = np.searchsorted(rest, wanted)
    made = _between(t, x, after, after, times[wanted], best)
    # Farther from both sides an error grows as the spread of a walk does, from one step's.
    low, high = np.clip(after - 1, 0, None), np.clip(after, None, len(rest) - 1)
    nearest = np.minimum(np.abs(times[wanted] - t[low]), np.abs(t[high] - times[wanted]))
    usual = max(float(np.median(np.diff(t))), 1e-12)
    reach = error * np.sqrt(np.maximum(nearest / usual, 1.0))
    return Told(made, made - reach, made + reach)


def bridge(times: Floats, values: Floats, wanted: Floats, max_rate: float = 0.0) -> Told:
    """Tell readings inside gaps, on the line between both ends.

    The interval is that of a Brownian bridge with the robust variance of the series, and within
    what the speed allows from both ends.

    Args:
        times: Seconds of the good readings, rising [n], n at least 2.
        values: Good readings [n].
        wanted: Seconds, within the series [m].
        max_rate: Units per second, 0 for any.
    """
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    before = after - 1
    since, until = wanted - times[before], times[after] - wanted
    whole = np.maximum(since + until, 1e-12)
    made = (values[before] * until + values[after] * since) / whole
    steps = np.diff(times)
    pace = np.abs(np.diff(values)) / np.sqrt(np.maximum(steps, 1e-12))
    reach = NORMAL_95 * float(np.median(pace)) / NORMAL_QUARTILE * np.sqrt(since * until / whole)
    low, high = made - reach, made + reach
    if max_rate:
        low = np.maximum(
            low, np.maximum(values[before] - max_rate * since, values[after] - max_rate * until)
        )
        high = np.minimum(
            high, np.minimum(values[before] + max_rate * since, values[after] + max_rate * until)
        )
    return Told(made, np.minimum(low, made), np.maximum(high, made))


def _between(t: Floats, x: Floats, left_end: Ints, right_start: Ints, at: Floats, k: int) -> Floats:
    """Return the line through the middles of k readings before and k from ``right_start`` on."""
    totals, clocks = (np.concatenate([[0.0], np.cumsum(part - part[0])]) for part in (x, t))
    n = len(x)
    low, end = np.clip(left_end - k, 0, None), np.clip(right_start + k, None, n)
    have_left, have_right = left_end - low, end - right_start

    def side(sums: Floats, start: Ints, stop: Ints, base: float) -> Floats:
        return np.asarray(base + (sums[stop] - sums[start]) / np.maximum(stop - start, 1))

    x_left, x_right = side(totals, low, left_end, x[0]), side(totals, right_start, end, x[0])
    t_left, t_right = side(clocks, low, left_end, t[0]), side(clocks, right_start, end, t[0])
    share = np.clip((at - t_left) / np.maximum(t_right - t_left, 1e-12), 0.0, 1.0)
    line = x_left + share * (x_right - x_left)
    return np.where(have_left == 0, x_right, np.where(have_right == 0, x_left, line))
