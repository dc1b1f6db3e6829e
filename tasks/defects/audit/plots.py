"""Plots of the record as plain numbers; ``plot.html`` writes them as SVG, with all text escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.defects.audit.figures import Curve
from tasks.defects.judgement import Thresholds
from tasks.defects.promise.cost import CostCurve
from tasks.defects.promise.parts import Floats

WIDTH, HEIGHT = 480.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 466.0, 12.0, 276.0
LEAST = 1e-3
"""Where logarithmic axes of error rates begin; a rate of none lies on the edge."""

Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis.

    Attributes:
        name: What it counts.
        ticks: Place in pixels and label of each tick.
    """

    name: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points.

    Attributes:
        points: As SVG wants them.
        kind: Class of the style sheet.
    """

    points: str
    kind: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot.

    Attributes:
        key: Unique on the page.
        title: Read aloud first.
        description: What it shows, in a sentence with its main numbers.
        x: Horizontal axis.
        y: Vertical axis.
        lines: In drawing order.
        marks: Horizontal places of upright lines, with their names.
        dots: Places of points.
    """

    key: str
    title: str
    description: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    marks: tuple[tuple[float, str], ...] = ()
    dots: tuple[tuple[float, float], ...] = ()


def roc_plot(curve: Curve, at: tuple[float, float]) -> Plot:
    """Return found defects over false rejects; ``at`` is where the thresholds lie."""
    x, y = _linear(0, 1, LEFT, RIGHT), _linear(0, 1, BOTTOM, TOP)
    shares = tuple(k / 5 for k in range(6))
    line = _line(curve.false_rejects, 1 - curve.misses, x, y, "line s0")
    return Plot(
        "roc",
        "Found defects over false rejects",
        f"Share of defective parts from a threshold on, over that of good ones; area "
        f"{curve.auroc:.4f}.",
        Axis("Good parts rejected", tuple((x(v), f"{v:.0%}") for v in shares)),
        Axis("Defective parts found", tuple((y(v), f"{v:.0%}") for v in shares)),
        (Line(f"{x(0):.1f},{y(0):.1f} {x(1):.1f},{y(1):.1f}", "chance"), line),
        dots=((x(at[0]), y(1 - at[1])),),
    )


def det_plot(curve: Curve, at: tuple[float, float]) -> Plot:
    """Return misses over false rejects on logarithmic axes (detection error trade-off)."""
    x, y = _logarithmic(LEAST, 1, LEFT, RIGHT), _logarithmic(LEAST, 1, BOTTOM, TOP)
    shares = (0.001, 0.01, 0.1, 1.0)
    labels = ("0.1%", "1%", "10%", "100%")
    return Plot(
        "det",
        "Misses over false rejects",
        "Both on logarithmic axes, rates below 0.1% on their edges; at the thresholds "
        f"{at[1]:.2%} of defective parts pass and {at[0]:.2%} of good ones are rejected.",
        Axis("Good parts rejected", tuple((x(v), t) for v, t in zip(shares, labels, strict=True))),
        Axis(
            "Defective parts passed", tuple((y(v), t) for v, t in zip(shares, labels, strict=True))
        ),
        (_line(curve.false_rejects, curve.misses, x, y, "line s0"),),
        dots=((x(at[0]), y(at[1])),),
    )


def cost_plot(curve: CostCurve, thresholds: Thresholds) -> Plot:
    """Return cost over a single threshold, with its interval and the thresholds in use."""
    top = float(curve.high.max()) * 1.05 or 1.0
    x = _linear(float(curve.at[0]), float(curve.at[-1]), LEFT, RIGHT)
    y = _linear(0, top, BOTTOM, TOP)
    best = int(curve.cost.argmin())
    marks = [
        (x(value), name)
        for value, name in ((thresholds.ok_below, "OK below"), (thresholds.ng_from, "NG from"))
        if math.isfinite(value) and curve.at[0] <= value <= curve.at[-1]
    ]
    there, back = zip(curve.at, curve.low, strict=True), zip(curve.at, curve.high, strict=True)
    band = [*there, *reversed(list(back))]
    return Plot(
        "cost",
        "Cost of one image over a single threshold",
        f"Without review; least {curve.cost[best]:.4g} at a threshold of {curve.at[best]:.4g}.",
        Axis("Threshold", tuple((x(v), f"{v:.4g}") for v in _ticks(*curve.at[[0, -1]]))),
        Axis("Cost per image", tuple((y(v), f"{v:.4g}") for v in _ticks(0, top))),
        (
            Line(" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in band), "band"),
            _line(curve.at, curve.cost, x, y, "line s0"),
        ),
        marks=tuple(marks),
    )


def _line(xs: Floats, ys: Floats, x: Scale, y: Scale, kind: str) -> Line:
    pairs = zip(xs.tolist(), ys.tolist(), strict=True)
    return Line(" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in pairs), kind)


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    span = (high - low) or 1.0
    return lambda v: start + (v - low) / span * (end - start)


def _logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    inner = _linear(math.log10(low), math.log10(high), start, end)
    return lambda v: inner(math.log10(max(v, low)))


def _ticks(low: float, high: float, count: int = 5) -> Sequence[float]:
    """Return round numbers inside, about so many."""
    raw = (high - low) / count
    if not raw > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [
        float(v) for v in np.round(np.arange(first, math.floor(high / step + 1e-9) + 1) * step, 12)
    ]
