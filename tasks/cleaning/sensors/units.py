"""Changes of unit: a stretch of readings that, converted back, goes on where the others stopped.

A level that jumps is no fault. A level that jumps by 25.4, or from 20 to 68 with 1.8 times the
noise, and fits on to its neighbours once it is converted, is one. How likely a fit by accident is
follows from how wide a fit is beside the jump, and how many conversions were tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.cleaning.sensors.readings import Floats, rolling_median

SIDE = 7
"""Readings on either side of a jump whose medians are compared."""
MOST_JUMPS = 60
LEAST_RUN = 12
LEAST_CONFIDENCE = 0.8
BOTH = 2
NEARBY = 101
WIDE = 1.5
RESTLESS = 25.0  # times as restless as the whole a part of it may be
MOST_ACCIDENTS = 5.0  # what noise could still make up for
MOST_OFF, NOISE_ERROR = 0.9, 0.1  # of the logarithm of the noise
ALIKE = 0.8
USUAL = 4.0  # times the middle size of a step of level: about three deviations


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


def find_unit_changes(values: Floats, resolution: float = 0.0) -> list[UnitChange]:
    """Find the stretches of one series in another unit than most of it.

    Args:
        values: Readings in order of time, all finite [n].
        resolution: Smallest step of the sensor.
    """
    n = len(values)
    if n < 4 * SIDE:
        return []
    edges = _edges(values, resolution)
    heights = np.array([abs(edge.after - edge.before) for edge in edges])
    possible: list[tuple[int, UnitChange]] = []
    for conversion in CONVERSIONS:
        opens = [(0, 1.0, np.inf), *_fitting(edges, conversion, opening=True)]
        closes = [*_fitting(edges, conversion, opening=False), (n, 1.0, np.inf)]
        for begin, first, up in opens:
            for end, last, down in closes:
                if LEAST_RUN <= end - begin <= n // 2:
                    # Every other pair of jumps about as large might have fitted as well.
                    alike = int((heights >= ALIKE * min(up, down)).sum())
                    pairs = max(1, alike * (alike - 1) // 2) if begin and end < n else alike
                    accident = len(CONVERSIONS) * pairs * first * last
                    if accident < MOST_ACCIDENTS:
                        accident *= _noise_by_accident(values, begin, end, conversion)
                    sure = 1.0 - accident
                    if sure > LEAST_CONFIDENCE and _nearer(values, begin, end, conversion):
                        ends = (begin > 0) + (end < n)
                        possible.append((ends, UnitChange(begin, end, conversion, sure)))
    found: list[UnitChange] = []
    for ends, one in sorted(possible, key=_first_tried):
        touches = ends < BOTH
        if all(one.end + touches <= o.begin or one.begin >= o.end + touches for o in found):
            found.append(one)
    return sorted(found, key=lambda one: one.begin)


def _first_tried(possible: tuple[int, UnitChange]) -> tuple[int, float, int, int]:
    """Return the order: what fits at both ends, surer, shorter; the rest may only mirror it."""
    ends, one = possible
    return -ends, -round(one.confidence, 2), one.end - one.begin, one.begin


@dataclass(frozen=True, slots=True)
class _Edge:
    """A jump of the level that stays.

    Attributes:
        at: First reading after it.
        before: Level before.
        after: Level after.
        wide_before: How far the level before usually moves within its window.
        wide_after: The same after.
    """

    at: int
    before: float
    after: float
    wide_before: float
    wide_after: float


def _edges(values: Floats, resolution: float) -> list[_Edge]:
    """Return the largest jumps, each at the reading of its largest single step."""
    n = len(values)
    windows = np.lib.stride_tricks.sliding_window_view(values, SIDE)
    middle = np.median(windows, axis=1)
    shift = np.zeros(n)
    shift[SIDE : n - SIDE + 1] = middle[SIDE:] - middle[:-SIDE]
    least = max(2.0 * resolution, 1e-9 * float(np.abs(values).max()), 1e-12)
    usual = np.maximum(USUAL * rolling_median(np.abs(shift), NEARBY), least)
    calm = USUAL * float(np.median(np.abs(shift)))
    single = np.abs(np.diff(values, prepend=values[0]))
    high = (np.abs(shift) > max(calm, least)) & (single >= 0.4 * np.abs(shift))
    usual = np.minimum(usual, RESTLESS * calm + least)
    # By size against both sides: inside a stretch times 25 all steps are large.
    relative = single / np.minimum(np.roll(usual, NEARBY // 2), np.roll(usual, -(NEARBY // 2)))
    order = np.flatnonzero(high)[np.argsort(-relative[high], kind="stable")]
    chosen: list[_Edge] = []
    for at in order.tolist():
        if all(abs(at - other.at) >= SIDE for other in chosen):
            sides = (max(0, at - 1 - NEARBY // 2), min(n - 1, at + NEARBY // 2))
            chosen.append(
                _Edge(
                    at,
                    float(middle[at - SIDE]),
                    float(middle[at]),
                    float(usual[sides[0]]),
                    float(usual[sides[1]]),
                )
            )
        if len(chosen) == MOST_JUMPS:
            break
    return sorted(chosen, key=lambda edge: edge.at)


def _fitting(
    edges: list[_Edge], conversion: Conversion, *, opening: bool
) -> list[tuple[int, float, float]]:
    """Return the jumps that a conversion explains, how likely each is by accident, and heights."""
    found = []
    for edge in edges:
        outside, inside = (edge.before, edge.after) if opening else (edge.after, edge.before)
        wide = WIDE * (edge.wide_before if opening else edge.wide_after)
        off = (inside - conversion.offset) / conversion.factor - outside
        if abs(off) <= wide:
            height = abs(inside - outside)
            found.append((edge.at, min(1.0, 2.0 * wide / max(height, 1e-12)), height))
    return found


def _nearer(values: Floats, begin: int, end: int, conversion: Conversion) -> bool:
    """Tell whether a stretch lies nearer to all the rest once it is converted."""
    level = float(np.median(np.concatenate([values[:begin], values[end:]])))
    raw = float(np.median(values[begin:end]))
    return abs((raw - conversion.offset) / conversion.factor - level) < abs(raw - level)


def _noise_by_accident(values: Floats, begin: int, end: int, conversion: Conversion) -> float:
    """Return how likely the noise grew that much by accident, infinity if it did not grow so."""
    near = slice(max(0, begin - 2 * NEARBY), begin), slice(end, end + 2 * NEARBY)
    inside = _calm_mean(np.abs(np.diff(values[begin:end])))
    outside = _calm_mean(np.abs(np.concatenate([np.diff(values[part]) for part in near])))
    if inside == 0.0 or outside == 0.0:
        return 1.0
    ratio, wanted = np.log(inside / outside), np.log(conversion.factor)
    off = abs(ratio - wanted)
    # It must be nearer to the factor than to no change at all, where the two can be told apart.
    if off > MOST_OFF or off > abs(ratio) + NOISE_ERROR:
        return float(np.inf)
    return float(min(1.0, (off + NOISE_ERROR) / max(abs(wanted), 1e-12)))


def _calm_mean(moves: Floats) -> float:
    """Return the mean of all but the largest tenth."""
    ordered = np.sort(moves)[: max(1, int(0.9 * len(moves)))]
    return float(ordered.mean()) if len(ordered) else 0.0
