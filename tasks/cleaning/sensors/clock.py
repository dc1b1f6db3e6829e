"""Faults of the clock: times that repeat, run backward, jump and come back, or never were.

Times are looked at in the order of the file. Where the sampling is regular, a step that is undone
by a later step of the same size means that the readings between carry a wrong time; a step forward
that is not undone is a gap (``gaps.py``), one backward shifts all that follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.sensors.readings import Bools, Floats, Ints

HOUR = 3_600.0
LEAST_REGULAR = 0.8
"""Share of steps near the interval from which a jump can be told from the sampling."""
MOST_JUMPS = 1_000
KINDS = ("clock-duplicate", "clock-backward", "clock-jump", "clock-dst", "clock-impossible")


@dataclass(frozen=True, slots=True)
class Clock:
    """What the times of one series are worth.

    Attributes:
        times: Seconds as they should have been, as far as that is known [n].
        fault: Place in ``KINDS`` of each reading's fault, -1 for none [n].
        shift: Seconds to add to the time that stands there, NaN where nobody knows [n].
        usable: Readings that have a time of their own [n].
    """

    times: Floats
    fault: Ints
    shift: Floats
    usable: Bools


def check_clock(times: Floats, filled: Bools, rules: SensorRules) -> Clock:
    """Look at the times of one series.

    Args:
        times: Seconds in the order of the file [n]; NaN where there is none.
        filled: Whether a text stood there [n].
        rules: ``interval`` and ``clock_tolerance`` count.
    """
    fault = np.full(len(times), -1)
    shift = np.full(len(times), np.nan)
    made = times.copy()
    fault[filled & np.isnan(times)] = KINDS.index("clock-impossible")
    place = np.flatnonzero(~np.isnan(times))
    again = np.zeros(len(place), bool)
    again[1:] = np.diff(times[place]) == 0.0
    _repeated(times, place, again, rules, fault, shift)
    made[fault >= 0] += np.nan_to_num(shift[fault >= 0])
    usable = ~np.isnan(times)
    usable[place[again & np.isnan(shift[place])]] = False
    kept = np.flatnonzero(usable)
    if len(kept) > 2:
        _jumps(made, kept, rules, fault, shift)
    return Clock(made, fault, shift, usable)


def _repeated(
    times: Floats,
    place: Ints,
    again: Bools,
    rules: SensorRules,
    fault: Ints,
    shift: Floats,
) -> None:
    """Note repeated times; a missing step after one tells a wrong stamp from a copy."""
    rows = np.flatnonzero(again)
    fault[place[rows]] = KINDS.index("clock-duplicate")
    inner = rows[rows + 1 < len(place)]
    if rules.interval and len(inner):
        after = times[place[inner + 1]] - times[place[inner]]
        stamp = np.abs(after - 2.0 * rules.interval) <= rules.tolerance
        shift[place[inner[stamp]]] = rules.interval


def _jumps(
    made: Floats,
    kept: Ints,
    rules: SensorRules,
    fault: Ints,
    shift: Floats,
) -> None:
    """Pair steps away with steps back, mark what lies between, and put ``made`` right."""
    times = made[kept]
    steps = np.diff(times)
    excess = steps - (rules.interval or 0.0)
    regular = rules.interval > 0 and np.mean(np.abs(excess) <= rules.tolerance) >= LEAST_REGULAR
    if not regular:
        behind = times < np.maximum.accumulate(times)
        fault[kept[behind]] = KINDS.index("clock-backward")
        return
    events = np.flatnonzero(np.abs(excess) > rules.tolerance)
    if len(events) > MOST_JUMPS:
        return
    events, moved = events.tolist(), np.zeros(len(kept))
    while events:
        i = events.pop(0)
        # A step back undoes a step forward; what a step back does is undone by a gap of its size.
        back = next((j for j in events if abs(excess[j] + excess[i]) <= rules.tolerance), None)
        if back is not None and (steps[i] < 0 or steps[back] < 0):
            events.remove(back)
            _mark(kept[i + 1 : back + 1], -excess[i], fault, shift)
            moved[i + 1 : back + 1] -= excess[i]
        elif steps[i] < 0:
            ahead = np.maximum.accumulate(times)[i]
            rows = kept[i + 1 :][times[i + 1 :] <= ahead]
            name = "clock-dst" if abs(excess[i] + HOUR) <= rules.tolerance else "clock-backward"
            fault[rows] = KINDS.index(name)
            moved[i + 1 :] -= excess[i]
    made[kept] += moved


def _mark(
    rows: Ints,
    amount: float,
    fault: Ints,
    shift: Floats,
) -> None:
    fault[rows] = KINDS.index("clock-jump" if amount < 0 else "clock-backward")
    shift[rows] = amount
