"""Speed constraints: no reading may change faster than its process can.

:func:`minimum_change` is the repair that moves the readings least in sum (L1) among all that keep
the speed, exactly, in O(n log n) by slope trick; where nothing is too fast nothing is computed.
:func:`screen` is the streaming one of Song, Zhang, Wang and Yu, "SCREEN: Stream Data Cleaning under
Speed Constraints", SIGMOD 2015: each reading is set once its window has passed.
"""

from __future__ import annotations

import heapq

import numpy as np

from tasks.cleaning.sensors.readings import Bools, Floats, runs_of

SLACK = 1e-9
"""Share by which rounding may exceed the bound."""
ROUNDING = 1e-14


def too_fast(times: Floats, values: Floats, rate: float) -> Bools:
    """Return which steps [n - 1] from one reading to the next break the bound."""
    bound = rate * np.diff(times)
    size = np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
    return np.asarray(np.abs(np.diff(values)) > bound + SLACK * (bound + size))


def minimum_change(times: Floats, values: Floats, rate: float) -> Floats:
    """Return the readings [n] nearest in sum that change at most ``rate`` a second.

    Only stretches around steps that are too fast are solved, each alone, and widened until both
    their ends stay as they were: then the whole is feasible, and no repair moves less, since each
    stretch alone costs at least what it costs here.

    Args:
        times: Seconds, never falling [n].
        values: Readings, all finite [n].
        rate: Units per second, positive.

    Raises:
        ValueError: For a rate that is not positive, falling times or readings that are none.
    """
    _check(times, values, rate)
    made, n = values.copy(), len(values)
    fast = too_fast(times, values, rate)
    wide = 8
    while fast.any():
        near = np.zeros(n, bool)
        for i in np.flatnonzero(fast).tolist():
            near[max(0, i - wide + 1) : i + wide + 1] = True
        made, unsettled = values.copy(), False
        for begin, end in runs_of(near):
            part = _solved(times[begin:end], values[begin:end], rate)
            made[begin:end] = part
            moved_first = begin > 0 and part[0] != values[begin]
            moved_last = end < n and part[-1] != values[end - 1]
            unsettled |= moved_first or moved_last
        if not unsettled:
            break
        wide *= 2
    return made


def _check(times: Floats, values: Floats, rate: float) -> None:
    if not rate > 0.0:
        raise ValueError(f"rate is {rate}; give the fastest change in units per second")
    if len(times) != len(values):
        raise ValueError(f"{len(times)} times and {len(values)} readings")
    if (np.diff(times) < 0).any() or not np.isfinite(values).all():
        raise ValueError("speed needs times that never fall and readings that are all numbers")


def _solved(times: Floats, values: Floats, rate: float) -> Floats:
    """Return the minimum-change repair of one stretch.

    The cost of ending at x is convex and piecewise linear; its breakpoints lie in two heaps, left
    and right of the least, which drift apart by the bound from reading to reading.
    """
    left: list[float] = []
    right: list[float] = []
    reach, leasts = 0.0, []
    steps = (rate * np.diff(times, prepend=times[0])).tolist()
    for value, step in zip(values.tolist(), steps, strict=True):
        reach += step  # left breakpoints lie at -left - reach, right ones at right + reach
        low = -left[0] - reach if left else -np.inf
        high = right[0] + reach if right else np.inf
        if value < low:
            heapq.heappush(left, -(value + reach))
            moved = -heapq.heappushpop(left, -(value + reach)) - reach
            heapq.heappush(right, moved - reach)
        elif value > high:
            heapq.heappush(right, value - reach)
            moved = heapq.heappushpop(right, value - reach) + reach
            heapq.heappush(left, -(moved + reach))
        else:
            heapq.heappush(left, -(value + reach))
            heapq.heappush(right, value - reach)
        leasts.append((-left[0] - reach, right[0] + reach))
    made = np.empty(len(values))
    ahead: float | None = None
    for i in range(len(values) - 1, -1, -1):
        low, high = leasts[i]
        wanted = min(max(values[i], low), high)
        if ahead is not None:
            step = steps[i + 1]
            # Within what the next reading allows, as near to the least as that goes.
            wanted = min(max(wanted, ahead - step), ahead + step)
        # What left the heaps comes back with the rounding of its way, and was not moved.
        same = abs(wanted - values[i]) <= ROUNDING * (reach + abs(values[i]))
        made[i] = ahead = float(values[i]) if same else wanted
    return made


def screen(times: Floats, values: Floats, rate: float, window: float) -> Floats:
    """Return the streaming repair [n]: a reading moves by its window at most, then is final.

    Each reading goes to the median of itself and of the bounds that the readings of the window
    ahead set for it, within what the reading before allows; O(n) for windows of a fixed number of
    readings.

    Args:
        times: Seconds, never falling [n].
        values: Readings, all finite [n].
        rate: Units per second, positive.
        window: Seconds to look ahead.

    Raises:
        ValueError: As of :func:`minimum_change`.
    """
    _check(times, values, rate)
    made = values.astype(np.float64).copy()
    ends = np.searchsorted(times, times + window, side="right")
    for k in range(len(values)):
        ahead = slice(k + 1, ends[k])
        reach = rate * (times[ahead] - times[k])
        bounds = np.concatenate([values[ahead] - reach, values[ahead] + reach, values[k : k + 1]])
        best = float(np.median(bounds))
        if k:
            step = rate * (times[k] - times[k - 1])
            best = min(max(best, made[k - 1] - step), made[k - 1] + step)
        made[k] = best
    return made
