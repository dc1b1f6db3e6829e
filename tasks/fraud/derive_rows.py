"""The derived features row by row, compiled: a request has one row, a stream has ten thousand."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kernels.entity_state.fields import LAST_FIELDS, WINDOW_FIELDS
from kernels.jit import compiled
from tasks.fraud.derive import DAY_MS, NEVER

Float = NDArray[np.float64]

_FIELDS = len(WINDOW_FIELDS)
_N, _SUM, _SQUARES, _MOST, _KNOWN, _FRAUDS = (
    WINDOW_FIELDS.index(name) for name in ("n", "sum", "sumsq", "max", "known", "frauds")
)
_GAP, _LABEL, _SINCE, _AGE, _LENGTH = range(len(LAST_FIELDS))
_NEVER_DAYS = NEVER / 86_400.0


@compiled
def derive_rows(
    state: Float,
    amount: NDArray[np.int64],
    time: NDArray[np.int64],
    lengths: Float,
    unit: float,
    out: Float,
) -> None:
    """Fill ``out`` [m, G] from ``state`` [m, F]; see ``tasks.fraud.derive.derive_column``.

    ``lengths`` float64 [W] are the windows in milliseconds, ascending; ``unit`` minor units make
    a major one.
    """
    windows = len(lengths)
    first_z = 1 if windows > 1 else 0
    for i in range(len(state)):
        raw, row = state[i], out[i]
        now = amount[i] / unit
        longest = (windows - 1) * _FIELDS
        n_longest = max(raw[longest + _N], 1.0)
        before_longest = _before(raw, longest, now, unit)
        floor_longest = max(before_longest, 1.0)
        at = 0
        for w in range(windows):
            base = w * _FIELDS
            n, before = max(raw[base + _N], 1.0), _before(raw, base, now, unit)
            known = raw[base + _KNOWN]
            row[at] = n
            row[at + 1] = raw[base + _SUM] / unit / n
            # One major unit as floor keeps ratios of tiny averages finite and comparable.
            row[at + 2] = now / max(before, 1.0)
            row[at + 3] = now / max(raw[base + _MOST] / unit, now, 1.0)
            row[at + 4] = known
            row[at + 5] = raw[base + _FRAUDS] / max(known, 1.0)
            at += 6
        for w in range(windows - 1):
            base = w * _FIELDS
            n, before = max(raw[base + _N], 1.0), _before(raw, base, now, unit)
            highest = max(raw[base + _MOST] / unit, now)
            row[at] = n / n_longest * (lengths[windows - 1] / lengths[w])
            row[at + 1] = before / floor_longest
            row[at + 2] = highest / floor_longest
            at += 3
        for w in range(first_z, windows):
            base = w * _FIELDS
            before = _before(raw, base, now, unit)
            row[at] = (now - before) / _deviation(raw, base, now, before, unit)
            at += 1
        row[at] = before_longest
        row[at + 1] = _deviation(raw, longest, now, before_longest, unit)
        row[at + 2] = raw[longest + _FRAUDS]
        at += 3
        last = windows * _FIELDS
        row[at] = _duration(raw[last + _GAP])
        row[at + 1] = raw[last + _LABEL]
        row[at + 2] = _duration(raw[last + _SINCE])
        row[at + 3] = _duration(raw[last + _AGE])
        row[at + 4] = _run_days(raw[last + _AGE], time[i])
        row[at + 5] = raw[last + _LENGTH]


@compiled
def _before(raw: Float, base: int, now: float, unit: float) -> float:
    """Return the mean amount of the window without the event at hand; the event's own if alone."""
    n = max(raw[base + _N], 1.0)
    if n < 2:
        return now
    mean: float = (raw[base + _SUM] / unit - now) / (n - 1.0)
    return mean


@compiled
def _deviation(raw: Float, base: int, now: float, before: float, unit: float) -> float:
    """Return the standard deviation of the amounts before, at least one major unit."""
    n = max(raw[base + _N], 1.0)
    if n < 2:
        return 1.0
    variance = (raw[base + _SQUARES] / unit**2 - now * now) / (n - 1.0) - before**2
    return math.sqrt(max(variance, 1.0))


@compiled
def _duration(seconds: float) -> float:
    return NEVER if seconds < 0 else seconds


@compiled
def _run_days(age: float, time: int) -> float:
    """Return calendar days since the current run of known frauds began, ``NEVER`` if none."""
    if age < 0:
        return _NEVER_DAYS
    start = time - np.int64(np.round(age * 1000.0))
    days: float = float(time // DAY_MS - start // DAY_MS)
    return days
