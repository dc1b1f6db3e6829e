"""Changes of unit: a stretch of readings that, converted back, goes on where the others stopped.

A level that jumps is no fault. A level that jumps by 25.4, or from 20 to 68 with 1.8 times the
noise, and fits on to its neighbours once it is converted, is one. How likely a fit by accident is
follows from how wide a fit is beside the jump, and how many conversions were tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tasks.cleaning.sensors.readings import Floats

SIDE = 7
"""Readings on either side of a jump whose medians are compared."""
MOST_JUMPS = 40
LEAST_RUN = 12
LEAST_CONFIDENCE = 0.5


@dataclass(frozen=True, slots=True)
class Conversion:
    """``written = factor * usual + offset``.

    Attributes:
        name: What it is, for people.
        factor: Its factor.
        offset: Its offset.
    """

    name: str
    factor: float
    offset: float = 0.0

    def back(self, values: Floats) -> Floats:
        """Return written values in the usual unit."""
        return np.asarray((values - self.offset) / self.factor)


def _both_ways(name: str, other: str, factor: float, offset: float = 0.0) -> tuple[Conversion, ...]:
    return (
        Conversion(f"{name} written as {other}", factor, offset),
        Conversion(f"{other} written as {name}", 1.0 / factor, -offset / factor),
    )


CONVERSIONS: tuple[Conversion, ...] = (
    *_both_ways("degrees Celsius", "Fahrenheit", 1.8, 32.0),
    *_both_ways("degrees Celsius", "kelvin", 1.0, 273.15),
    *_both_ways("inches", "millimetres", 25.4),
    *_both_ways("inches", "centimetres", 2.54),
    *_both_ways("metres", "feet", 1.0 / 0.3048),
    *_both_ways("kilograms", "pounds", 1.0 / 0.45359237),
    *_both_ways("bar", "psi", 14.503774),
    *_both_ways("psi", "kilopascals", 6.894757),
    *_both_ways("metres per second", "kilometres per hour", 3.6),
    *_both_ways("units", "tenths", 10.0),
    *_both_ways("units", "hundredths", 100.0),
    *_both_ways("units", "thousandths", 1_000.0),
    *_both_ways("minutes", "seconds", 60.0),
)
"""Conversions that are tried, both ways (factors: NIST SP 811)."""


@dataclass(frozen=True, slots=True)
class UnitChange:
    """One stretch in another unit.

    Attributes:
        begin: First reading of it.
        end: Reading after its last one.
        conversion: What happened.
        confidence: That it did.
    """

    begin: int
    end: int
    conversion: Conversion
    confidence: float


def find_unit_changes(values: Floats) -> list[UnitChange]:
    """Find the stretches of one series in another unit than most of it.

    Args:
        values: Readings in order of time, all finite [n].
    """
    n = len(values)
    if n < 4 * SIDE:
        return []
    shift, usual = _shifts(values)
    jumps = _jumps(values, shift, usual)
    if not jumps:
        return []
    found: list[UnitChange] = []
    edges = [0, *jumps, n]
    taken = 0
    for i, begin in enumerate(edges[:-1]):
        if begin < taken:
            continue
        best = None
        # Regimes of the process may lie inside the stretch, so later jumps may end it.
        for end in edges[i + 1 : i + 4]:
            if not LEAST_RUN <= end - begin <= n // 2:
                continue
            for conversion in CONVERSIONS:
                sure = _fit(values, begin, end, conversion, usual)
                if sure > max(LEAST_CONFIDENCE, best.confidence if best else 0.0):
                    best = UnitChange(begin, end, conversion, sure)
        if best is not None:
            found.append(best)
            taken = best.end
    return found


def _shifts(values: Floats) -> tuple[Floats, float]:
    """Return the step of level at each reading [n], and how large one usually is at most."""
    windows = np.lib.stride_tricks.sliding_window_view(values, SIDE)
    middle = np.median(windows, axis=1)
    shift = np.zeros(len(values))
    shift[SIDE : len(values) - SIDE + 1] = middle[SIDE:] - middle[:-SIDE]
    return shift, float(np.quantile(np.abs(shift), 0.95))


def _jumps(values: Floats, shift: Floats, usual: float) -> list[int]:
    """Return where the level jumps and stays, at the reading of the largest single step."""
    large = np.abs(shift) > max(2.0 * usual, 1e-12)
    single = np.abs(np.diff(values, prepend=values[0]))
    high = large & (single >= 0.4 * np.abs(shift))
    order = np.flatnonzero(high)[np.argsort(-single[high], kind="stable")]
    chosen: list[int] = []
    for at in order.tolist():
        if all(abs(at - other) >= SIDE for other in chosen):
            chosen.append(at)
        if len(chosen) == MOST_JUMPS:
            break
    return sorted(chosen)


def _fit(values: Floats, begin: int, end: int, conversion: Conversion, usual: float) -> float:
    """Return how sure it is that a stretch was converted."""
    part = conversion.back(values[begin:end])
    # A step of level that is usual, and as much again for where the process went meanwhile.
    wide = max(1.5 * usual, 1e-9 * float(np.abs(values).max()))
    accident, ends = 1.0, 0
    for outside, inside, raw in (
        (values[max(0, begin - SIDE) : begin], part[:SIDE], values[begin : begin + SIDE]),
        (values[end : end + SIDE], part[-SIDE:], values[end - SIDE : end]),
    ):
        if len(outside) < SIDE:
            continue
        level = float(np.median(outside))
        if abs(float(np.median(inside)) - level) > wide:
            return 0.0
        jump = abs(float(np.median(raw)) - level)
        accident *= min(1.0, 2.0 * wide / max(jump, 1e-12))
        ends += 1
    if ends == 0 or not _same_noise(values, begin, end, conversion.factor):
        return 0.0
    return 1.0 - min(1.0, len(CONVERSIONS) * accident)


def _same_noise(values: Floats, begin: int, end: int, factor: float) -> bool:
    """Tell whether the noise grew by the factor, as far as there is noise."""
    inside = np.abs(np.diff(values[begin:end]))
    outside = np.abs(np.concatenate([np.diff(values[:begin]), np.diff(values[end:])]))
    a, b = float(np.median(inside)), float(np.median(outside))
    if a == 0.0 or b == 0.0:
        return a == b
    off = abs(np.log(a / b / factor))
    # It must be nearer to the factor than to no change at all, where the two can be told apart.
    return bool(off <= np.log(2.0) and off <= abs(np.log(a / b)) + 0.1)


def pieces(n: int, changes: list[UnitChange]) -> list[tuple[int, int]]:
    """Return begins and ends of the stretches that share a unit, in order."""
    edges = sorted({0, n, *(c.begin for c in changes), *(c.end for c in changes)})
    return list(pairwise(edges))
