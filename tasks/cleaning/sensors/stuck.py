"""Stuck sensors: the same reading longer than a working one repeats it.

A coarse sensor repeats readings, and where its process stands still (a machine that is off, a
closed valve) for hours: a value that was held for long more than once is a state of the process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.cleaning.sensors.readings import Bools, Floats, Ints

FALSE_RUNS = 0.01
"""Runs as long that a working sensor is expected to show in the whole series."""
LEAST_RUN = 5
BLOCK = 200
UPPER = 0.9
STEADY = 0.9
"""Share of equal neighbours from which on a long run says nothing."""
STUCK_CONFIDENCE, STATE_CONFIDENCE = 0.95, 0.3


@dataclass(frozen=True, slots=True)
class Stuck:
    """Readings that stand still.

    Attributes:
        found: Readings of a run that is too long, but for its first, which was measured [n].
        seconds: Length of each one's run [n].
        state: Whether the same value is held for long elsewhere, too [n].
    """

    found: Bools
    seconds: Floats
    state: Bools


def equal_runs(values: Floats, resolution: float) -> tuple[Ints, Ints]:
    """Return begins and ends (not included) of the runs of equal readings."""
    new = np.abs(np.diff(values)) > 0.5 * resolution
    begins = np.concatenate([[0], np.flatnonzero(new) + 1])
    return begins, np.concatenate([begins[1:], [len(values)]])


def find_stuck(times: Floats, values: Floats, stuck_after: float, resolution: float = 0.0) -> Stuck:
    """Find the runs of one series that last ``stuck_after`` seconds or more.

    Args:
        times: Seconds, never falling [n].
        values: Readings, all finite [n].
        stuck_after: Seconds; 0 for no check.
        resolution: Smallest step of the sensor.
    """
    n = len(values)
    found, seconds, state = np.zeros(n, bool), np.zeros(n), np.zeros(n, bool)
    if n == 0 or stuck_after <= 0:
        return Stuck(found, seconds, state)
    begins, ends = equal_runs(values, resolution)
    long = np.flatnonzero(times[ends - 1] - times[begins] >= stuck_after)
    held = np.round(values[begins[long]] / max(resolution, 1e-12))
    kinds, counts = np.unique(held, return_counts=True)
    repeats = counts[np.searchsorted(kinds, held)] > 1
    for i, is_state in zip(long.tolist(), repeats.tolist(), strict=True):
        part = slice(begins[i] + 1, ends[i])
        found[part], state[part] = True, is_state
        seconds[part] = times[ends[i] - 1] - times[begins[i]]
    return Stuck(found, seconds, state)


def inferred_stuck_after(values: Floats, resolution: float, interval: float) -> float:
    """Return the seconds that a working sensor would not repeat itself for; 0 if it may do so.

    The share of equal neighbours is taken block by block, since it changes (a wave stands still at
    its peaks), and high among the blocks; few of them are stuck.
    """
    if len(values) < 2 * LEAST_RUN:
        return 0.0
    same = np.abs(np.diff(values)) <= 0.5 * resolution
    blocks = [part.mean() for part in np.array_split(same, max(1, len(same) // BLOCK))]
    share = float(np.quantile(blocks, UPPER)) if len(blocks) >= 5 else float(np.median(blocks))
    if share >= STEADY:
        return 0.0
    length = np.log(FALSE_RUNS / len(values)) / np.log(max(share, 0.02))
    return interval * float(max(LEAST_RUN, np.ceil(length)))
