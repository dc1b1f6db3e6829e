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
MOST_HIDDEN, LEAST_HIDDEN = 400, 20


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
    """Tell the readings inside one gap, on the line between both its ends.

    The interval has the shape of a Brownian bridge. Its width is taken from stretches as long as
    the gap that are there: hidden and told, 95 % of their readings lie within (split conformal);
    where fewer than twenty fit in, from the robust size of single steps. It stays within what the
    speed allows from both ends.

    Args:
        times: Seconds of the good readings, rising [n], n at least 2.
        values: Good readings [n].
        wanted: Seconds inside one gap [m].
        max_rate: Units per second, 0 for any.
    """
    after = int(np.clip(np.searchsorted(times, wanted[0]), 1, len(times) - 1))
    ends = np.array([after - 1]), np.array([after])
    made, shape = _line(times, values, *ends, wanted[None, :])
    reach = _hidden_width(times, values, len(wanted)) * shape[0]
    low, high = made[0] - reach, made[0] + reach
    if max_rate:
        since, until = wanted - times[after - 1], times[after] - wanted
        for value, far in ((values[after - 1], since), (values[after], until)):
            low = np.maximum(low, value - max_rate * far)
            high = np.minimum(high, value + max_rate * far)
    return Told(made[0], np.minimum(low, made[0]), np.maximum(high, made[0]))


def _line(t: Floats, x: Floats, left: Ints, right: Ints, at: Floats) -> tuple[Floats, Floats]:
    """Return the lines between pairs of readings at some times, and their bridges' deviation."""
    since, until = at - t[left][:, None], t[right][:, None] - at
    whole = np.maximum(since + until, 1e-12)
    made = (x[left][:, None] * until + x[right][:, None] * since) / whole
    return made, np.sqrt(np.maximum(since * until, 0.0) / whole)


def _hidden_width(times: Floats, values: Floats, size: int) -> float:
    """Return by how many deviations of a bridge hidden stretches of ``size`` readings differ."""
    usual = float(np.median(np.diff(times)))
    starts = np.arange(0, len(times) - size - 1, max(1, len(times) // MOST_HIDDEN))
    spans = times[starts + size + 1] - times[starts]
    starts = starts[spans <= 1.1 * usual * (size + 1)]  # none with a gap inside
    if len(starts) < LEAST_HIDDEN:
        pace = np.abs(np.diff(values)) / np.sqrt(np.maximum(np.diff(times), 1e-12))
        return NORMAL_95 * float(np.median(pace)) / NORMAL_QUARTILE
    inside = starts[:, None] + np.arange(1, size + 1)
    made, shape = _line(times, values, starts, starts + size + 1, times[inside])
    off = np.abs(values[inside] - made) / np.maximum(shape, 1e-12)
    return float(np.quantile(off, min(1.0, COVERAGE * (len(starts) + 1) / len(starts))))


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
