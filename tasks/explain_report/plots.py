"""The plots of explanation pages as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tasks.cleaning.report.numbers import brief
from tasks.cleaning.report.svg import Axes, Drawing, linear, ticks
from tasks.explain.drift import Drift

Float = NDArray[np.float64]

LINE = 26.0
LEFT, RIGHT, WIDTH = 250.0, 690.0, 760.0
TINTS = 5
"""Colours from the lowest to the highest value of a feature (``v0`` .. ``v4``)."""

SHORT = 34
"""Letters of a label."""

SEEN = 400
"""Most points of a row of the swarm."""


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of a waterfall.

    Attributes:
        label: The player in words.
        value: Its contribution.
        error: Standard error.
    """

    label: str
    value: float
    error: float = 0.0


def waterfall(steps: Sequence[Step], base: float, score: float, unit: str) -> Markup:
    """Draw how a score comes about: the base, a bar for each player, the score."""
    height = LINE * (len(steps) + 2) + 40
    drawing = Drawing(
        "waterfall", WIDTH, height, "How the score comes about",
        f"From {base:+.3f} before anything is known to {score:+.3f}, in {len(steps)} steps.",
    )  # fmt: skip
    ends = [base, score, *np.cumsum([base, *(s.value for s in steps)]).tolist()]
    low, high = min(ends), max(ends)
    pad = (high - low) * 0.08 or 0.1
    x = linear(low - pad, high + pad, LEFT, RIGHT)
    _end(drawing, 0, "before anything is known", x(base), base)
    at = base
    for place, step in enumerate(steps, 1):
        y = 6 + LINE * place
        start, end = x(at), x(at + step.value)
        kind = "up" if step.value >= 0 else "down"
        drawing.text(LEFT - 12, y + 15, brief(step.label, SHORT), class_="bl", text_anchor="end")
        drawing.tip(
            f"{step.label}: {step.value:+.4f}, standard error {step.error:.2g}", "rect",
            x=min(start, end), y=y + 3, width=max(1.5, abs(end - start)), height=16.0, rx=2.0,
            class_=f"bar {kind}",
        )  # fmt: skip
        if step.error > 0:
            drawing.line(x(at + step.value - step.error), y + 11,
                         x(at + step.value + step.error), y + 11, "whisker")  # fmt: skip
        drawing.line(end, y + 19, end, y + LINE + 3, "join")
        right = max(start, end, x(at + step.value + step.error))
        drawing.text(right + 8, y + 15, f"{step.value:+.2f}", class_="tl")
        at += step.value
    _end(drawing, len(steps) + 1, "score", x(score), score)
    name = f"Score ({unit})" if unit != "score" else "Score"
    drawing.text((LEFT + RIGHT) / 2, height - 8, name, class_="an", text_anchor="middle")
    return drawing.render()


def _end(drawing: Drawing, place: int, label: str, x: float, value: float) -> None:
    y = 6 + LINE * place
    drawing.text(LEFT - 12, y + 15, label, class_="bl strong", text_anchor="end")
    drawing.add("circle", cx=x, cy=y + 11, r=5.0, class_="dot")
    drawing.text(x + 10, y + 15, f"{value:+.2f}", class_="tl")


def bars(labels: Sequence[str], strengths: Sequence[float], spread: Sequence[float]) -> Markup:
    """Draw mean absolute contributions, strongest first, with their spread over redraws."""
    strongest = max(strengths, default=0.0) or 1.0
    drawing = Drawing(
        "bars", WIDTH, LINE * len(labels) + 34, "What drives the scores",
        f"Strongest: {labels[0]}, {strengths[0]:.3g} on average." if labels else "No player.",
    )  # fmt: skip
    for place, (label, strength, off) in enumerate(zip(labels, strengths, spread, strict=True)):
        y = 6 + LINE * place
        width = max(1.5, (RIGHT - LEFT) * strength / strongest)
        drawing.text(LEFT - 12, y + 15, brief(label, SHORT), class_="bl", text_anchor="end")
        drawing.tip(f"{label}: {strength:.4g}", "rect", x=LEFT, y=y + 3, width=width, height=16.0,
                    rx=3.0, class_="bar b0")  # fmt: skip
        half = (RIGHT - LEFT) * off / strongest
        if off > 0:
            drawing.line(LEFT + width - half, y + 11, LEFT + width + half, y + 11, "whisker")
        drawing.text(LEFT + width + half + 10, y + 15, f"{strength:.3g}", class_="tl")
    drawing.text((LEFT + RIGHT) / 2, LINE * len(labels) + 26, "Mean absolute contribution",
                 class_="an", text_anchor="middle")  # fmt: skip
    return drawing.render()


def swarm(labels: Sequence[str], values: Float, data: Float) -> Markup:
    """Draw contributions ``[n, P]`` as points, coloured by the feature values ``[n, P]``.

    Players without a value (groups, NaN) are grey. At most ``SEEN`` rows are drawn, evenly.
    """
    step = 40.0
    height = step * len(labels) + 44
    drawing = Drawing(
        "swarm", WIDTH, height, "Contributions of the rows",
        f"{min(len(values), SEEN)} of {len(values):,} rows for each of {len(labels)} players; "
        "blue: low value of the feature, orange: high, grey: a group.",
    )  # fmt: skip
    shown = np.unique(np.linspace(0, len(values) - 1, min(len(values), SEEN)).astype(int))
    low, high = float(values[shown].min()), float(values[shown].max())
    pad = (high - low) * 0.04 or 0.1
    x = linear(low - pad, high + pad, LEFT, RIGHT)
    drawing.line(x(0.0), 4, x(0.0), height - 40, "axis")
    for place, label in enumerate(labels):
        middle = step * place + 24
        drawing.text(LEFT - 12, middle + 4, brief(label, SHORT), class_="bl", text_anchor="end")
        column = values[shown, place]
        tint = _tints(data[:, place])[shown]
        shifts = _shifts(column, (high - low + 2 * pad) / 90)
        for value, shift, colour in zip(column, shifts, tint, strict=True):
            drawing.add("circle", cx=x(float(value)), cy=middle + float(shift), r=2.4,
                        class_=f"pt {colour}")  # fmt: skip
    for value in ticks(low, high):
        drawing.text(x(value), height - 24, f"{value:g}", class_="tl", text_anchor="middle")
    drawing.text((LEFT + RIGHT) / 2, height - 6, "Contribution", class_="an", text_anchor="middle")
    return drawing.render()


def _tints(column: Float) -> NDArray[np.str_]:
    """Return a colour class for each value by its rank; grey for missing and constant ones."""
    known = np.isfinite(column)
    if not known.any() or np.ptp(column[known]) == 0:
        return np.full(len(column), "none")
    ends = np.quantile(column[known], np.linspace(0, 1, TINTS + 1)[1:-1])
    place = np.searchsorted(ends, column, side="left")
    return np.where(known, np.char.add("v", place.astype(str)), "none")


def _shifts(column: Float, width: float) -> Float:
    """Return vertical shifts that keep points of one bin apart, at most 15 each way."""
    bins = np.floor(column / width).astype(np.int64)
    shifts = np.zeros(len(column))
    for one in np.unique(bins):
        members = np.flatnonzero(bins == one)
        turn = (np.arange(len(members)) + 1) // 2 * np.where(np.arange(len(members)) % 2, 1, -1)
        shifts[members] = turn * min(3.0, 30.0 / max(len(members), 1))
    return shifts


def dependence(key: str, label: str, feature: str, data: Float, values: Float) -> Markup:
    """Draw a player's contribution over a feature of it ``[n]``; the line joins bin means."""
    drawing = Drawing(
        f"dep-{key}", 380, 250, f"{label} over {feature}",
        f"Contribution of {label} by {feature}, {len(data):,} rows.",
    )  # fmt: skip
    axes = Axes(drawing, left=58)
    known = np.isfinite(data)
    data, values = data[known], values[known]
    if not len(data):
        return drawing.render()
    left, right = (float(v) for v in np.quantile(data, [0.01, 0.99]))
    low, high = float(values.min()), float(values.max())
    x = linear(left, right, axes.x0, axes.x1)
    y = linear(low, high, axes.y0, axes.y1)
    axes.y_axis(y, ticks(low, high, 4), "Contribution", lambda v: f"{v:g}")
    axes.x_axis(x, ticks(left, right, 4), brief(feature, 44), lambda v: f"{v:g}")
    shown = np.unique(np.linspace(0, len(data) - 1, min(len(data), SEEN)).astype(int))
    for place in shown:
        at = min(max(float(data[place]), left), right)
        drawing.add("circle", cx=x(at), cy=y(float(values[place])), r=2.2, class_="pt v2")
    ends = np.unique(np.quantile(data, np.linspace(0, 1, 11)))
    bins = np.searchsorted(ends[1:-1], data, side="left")
    line = []
    for one in np.unique(bins):
        at = min(max(float(data[bins == one].mean()), left), right)
        line.append((x(at), y(float(values[bins == one].mean()))))
    drawing.path(line, "line s1")
    return drawing.render()


def drift_lines(found: Drift, most: int = 6) -> Markup:
    """Draw each player's share of all contributions by period; alarms are ringed."""
    shares = np.stack([p.profile.share for p in found.periods])
    order = np.argsort(-shares.mean(axis=0), kind="stable")[:most]
    drawing = Drawing(
        "drift", WIDTH, 320, "Reasons over time",
        f"{len(found.periods)} periods, {len(found.alarms)} beyond chance.",
    )  # fmt: skip
    axes = Axes(drawing, right=190)
    top = float(shares[:, order].max()) * 1.08 or 1.0
    x = linear(0, max(len(shares) - 1, 1), axes.x0 + 10, axes.x1 - 10)
    y = linear(0, top, axes.y0, axes.y1)
    axes.y_axis(y, ticks(0, top), "Share of contributions", lambda v: f"{v:.0%}")
    names = [p.text[:10] for p in found.periods]
    every = max(1, len(names) // 7)
    axes.x_axis(x, list(range(0, len(names), every)), "Week of", lambda v: names[int(v)][5:])
    levels: list[float] = []
    for place, player in enumerate(order.tolist()):
        points = [(x(w), y(float(shares[w, player]))) for w in range(len(shares))]
        drawing.path(points, f"line s{place % 6}")
        level = points[-1][1]
        while any(abs(level - other) < 14 for other in levels):
            level += 2
        levels.append(level)
        drawing.text(axes.x1 + 6, level + 4, brief(found.labels[player], 26), class_="lg")
    for week, period in enumerate(found.periods):
        if period.alarm:
            drawing.tip(period.text, "circle", cx=x(week), cy=axes.y1 + 4, r=5.0, class_="alarm")
    return drawing.render()
