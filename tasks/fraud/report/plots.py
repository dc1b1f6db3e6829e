"""The plots of the fraud report. Each takes rows of the report's data and returns inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from tasks.cleaning.report.svg import Axes, Drawing, decades, linear, logarithmic, ticks
from tasks.fraud.report.rows import (
    CalibrationBin,
    Curve,
    DayPrecision,
    HeadRow,
    Importance,
    ScoreBin,
)

WIDTH, HEIGHT = 520.0, 320.0
SERIES = 6
"""Distinct line styles in the style sheet (``s0`` .. ``s5``)."""


def precision_recall(curves: Sequence[Curve], *, active: str, base_rate: float) -> Markup:
    """Draw precision over recall; the active head is the heavy line."""
    drawing = Drawing(
        "pr", WIDTH, HEIGHT, "Precision over recall",
        f"One line per head, {len(curves)} heads; the share of frauds is {base_rate:.2%}.",
    )  # fmt: skip
    axes = Axes(drawing)
    x, y = linear(0, 1, axes.x0, axes.x1), linear(0, 1, axes.y0, axes.y1)
    axes.y_axis(y, ticks(0, 1), "Precision", _percent)
    axes.x_axis(x, ticks(0, 1), "Recall (share of frauds found)", _percent)
    drawing.line(axes.x0, y(base_rate), axes.x1, y(base_rate), "chance")
    ranked = sorted(curves, key=lambda curve: curve.name != active)
    for place, curve in reversed(list(enumerate(ranked))):
        weight = " heavy" if curve.name == active else ""
        points = [(x(a), y(b)) for a, b in zip(curve.x, curve.y, strict=True)]
        drawing.path(points, f"line s{place % SERIES}{weight}")
    _legend(drawing, axes, [(c.name, c.name == active) for c in ranked])
    return drawing.render()


def _legend(drawing: Drawing, axes: Axes, names: Sequence[tuple[str, bool]]) -> None:
    # Below the curves of every head worth shipping.
    top = axes.y0 - 18 * len(names) - 4
    left = axes.x0 + 22
    drawing.add(
        "rect", x=left - 10, y=top - 14, width=142.0, height=18.0 * len(names) + 10,
        rx=6.0, class_="veil",
    )  # fmt: skip
    for place, (name, active) in enumerate(names):
        y = top + 18 * place
        weight = " heavy" if active else ""
        drawing.line(left, y, left + 24, y, f"line s{place % SERIES}{weight}")
        label = f"{name} (ships)" if active else name
        drawing.text(left + 32, y + 4, label, class_="lg")


def daily_precision(days: Sequence[DayPrecision], *, k: int) -> Markup:
    """Draw one bar per test day; a tick marks what a perfect ranking would reach."""
    mean = sum(d.precision for d in days) / len(days)
    drawing = Drawing(
        "cp", WIDTH, HEIGHT, f"Precision among the top {k} a day",
        f"{len(days)} days, mean {mean:.1%}.",
    )  # fmt: skip
    axes = Axes(drawing)
    highest = max(max(d.precision, d.best or 0.0) for d in days)
    top = min(1.0, max(0.1, highest * 1.12))
    y = linear(0, top, axes.y0, axes.y1)
    axes.y_axis(y, ticks(0, top), f"Frauds among the top {k}", _percent)
    step = (axes.x1 - axes.x0) / len(days)
    bar = min(44.0, step * 0.62)
    for place, day in enumerate(days):
        middle = axes.x0 + step * (place + 0.5)
        drawing.tip(
            f"{day.day}: {day.precision:.1%}", "rect", x=middle - bar / 2, y=y(day.precision),
            width=bar, height=axes.y0 - y(day.precision), rx=3.0, class_="bar b0",
        )  # fmt: skip
        inside = axes.y0 - y(day.precision) > 22
        drawing.text(
            middle, y(day.precision) + (16 if inside else -6), f"{day.precision * 100:.0f}",
            class_="vl" if inside else "vl out", text_anchor="middle",
        )  # fmt: skip
        if day.best is not None:
            drawing.line(
                middle - bar / 2 - 3, y(day.best), middle + bar / 2 + 3, y(day.best), "best"
            )
        drawing.text(middle, axes.y0 + 17, _short_day(day.day), class_="tl", text_anchor="middle")
    drawing.line(axes.x0, axes.y0, axes.x1, axes.y0, "axis")
    drawing.line(axes.x0, y(mean), axes.x1, y(mean), "mean")
    middle = (axes.x0 + axes.x1) / 2
    drawing.text(middle, axes.y0 + 35, "Test day", class_="an", text_anchor="middle")
    return drawing.render()


def calibration(bins: Sequence[CalibrationBin]) -> Markup:
    """Draw observed over predicted fraud share on log axes, with 95 % intervals."""
    drawing = Drawing(
        "cal", WIDTH, HEIGHT, "Calibration",
        f"Observed share of frauds over predicted probability in {len(bins)} bins; points on the "
        "diagonal are honest.",
    )  # fmt: skip
    axes = Axes(drawing, left=66)
    positive = [v for b in bins for v in (b.predicted, b.observed) if v > 0]
    low = 10.0 ** max(-5, math.floor(math.log10(min(positive, default=0.01))))
    low = min(low, 0.1)
    x, y = logarithmic(low, 1, axes.x0, axes.x1), logarithmic(low, 1, axes.y0, axes.y1)
    axes.y_axis(y, decades(low, 1), "Observed share of frauds", _percent)
    axes.x_axis(x, decades(low, 1), "Predicted probability", _percent)
    drawing.line(x(low), y(low), x(1), y(1), "chance")
    for b in bins:
        drawing.line(x(b.predicted), y(b.low), x(b.predicted), y(b.high), "whisker")
        drawing.tip(
            f"predicted {b.predicted:.2%}, observed {b.observed:.2%} of {b.rows:,}", "circle",
            cx=x(b.predicted), cy=y(b.observed), r=2.5 + min(4.0, math.log10(b.rows + 1)),
            class_="dot",
        )  # fmt: skip
    return drawing.render()


def score_histogram(
    bins: Sequence[ScoreBin], *, threshold: tuple[str, float] | None = None
) -> Markup:
    """Draw how many genuine and fraudulent rows got which score, counts on a log axis.

    Args:
        bins: The counts.
        threshold: Name and score of the policy to mark.
    """
    genuine, frauds = sum(b.genuine for b in bins), sum(b.frauds for b in bins)
    drawing = Drawing(
        "hist", WIDTH, HEIGHT, "Scores of genuine and fraudulent transactions",
        f"{genuine:,} genuine and {frauds:,} fraudulent transactions by score.",
    )  # fmt: skip
    axes = Axes(drawing, left=66)
    most = max(1, *(max(b.genuine, b.frauds) for b in bins))
    high = 10.0 ** math.ceil(math.log10(most * 1.05))
    x, y = linear(0, 1, axes.x0, axes.x1), logarithmic(0.5, high, axes.y0, axes.y1)
    axes.y_axis(y, decades(1, high), "Transactions (log)", _short)
    for b in bins:
        width = (x(b.high) - x(b.low)) / 2 - 1.0
        for count, left, kind in (
            (b.genuine, x(b.low) + 0.5, "genuine"),
            (b.frauds, x(b.low) + width + 1, "fraud"),
        ):
            if count:
                tip = f"{count:,} {kind}, score {b.low:.2f} to {b.high:.2f}"
                drawing.tip(
                    tip, "rect", x=left, y=y(count), width=width, height=axes.y0 - y(count),
                    class_=f"bar {kind}",
                )  # fmt: skip
    axes.x_axis(x, ticks(0, 1), "Score (calibrated probability)", lambda v: f"{v:.1f}")
    if threshold is not None and 0 <= threshold[1] <= 1:
        name, at = threshold
        drawing.line(x(at), axes.y0, x(at), axes.y1, "mark")
        anchor, shift = ("start", 5) if at < 0.7 else ("end", -5)
        drawing.text(x(at) + shift, axes.y1 + 6, name, class_="lg", text_anchor=anchor)
    for place, (kind, name) in enumerate((("genuine", "genuine"), ("fraud", "fraud"))):
        left = axes.x1 - 150 + 84 * place
        drawing.add("rect", x=left, y=axes.y1 + 16, width=10.0, height=10.0, rx=2.0,
                    class_=f"bar {kind}")  # fmt: skip
        drawing.text(left + 15, axes.y1 + 25, name, class_="lg")
    return drawing.render()


def importance(rows: Sequence[Importance]) -> Markup:
    """Draw feature groups as horizontal bars, strongest first."""
    strongest = max(r.strength for r in rows) or 1.0
    line = 26.0
    drawing = Drawing(
        "imp", 760, line * len(rows) + 34, "Feature groups by influence",
        f"Strongest: {rows[0].label}, {rows[0].strength:.2f} log-odds on average.",
    )  # fmt: skip
    left, right = 216.0, 700.0
    for place, row in enumerate(rows):
        y = 6 + line * place
        width = max(1.5, (right - left) * row.strength / strongest)
        drawing.text(left - 12, y + 15, row.label, class_="bl", text_anchor="end")
        drawing.tip(
            f"{row.label}: {row.strength:.3f}", "rect", x=left, y=y + 3, width=width, height=16.0,
            rx=3.0, class_="bar b0",
        )  # fmt: skip
        drawing.text(left + width + 8, y + 15, f"{row.strength:.2f}", class_="tl")
    middle = (left + right) / 2
    foot = line * len(rows) + 26
    drawing.text(
        middle, foot, "Mean absolute contribution (log-odds)", class_="an", text_anchor="middle"
    )
    return drawing.render()


def gain_interval(key: str, row: HeadRow, *, low: float, high: float) -> Markup:
    """Draw one head's gain with its interval on a common scale (a table cell)."""
    if row.gain is None or row.gain_low is None or row.gain_high is None:
        return Markup("")
    drawing = Drawing(
        f"gain-{key}", 180, 22, f"Gain of {row.name}",
        f"{row.gain:+.3f}, 95 % interval {row.gain_low:+.3f} to {row.gain_high:+.3f}.",
    )  # fmt: skip
    x = linear(low, high, 6, 174)
    drawing.line(x(0), 0, x(0), 22, "zero")
    clear = row.gain_low > 0 or row.gain_high < 0
    kind = "whisker" if not clear else ("whisker good" if row.gain > 0 else "whisker bad")
    drawing.line(x(row.gain_low), 11, x(row.gain_high), 11, kind)
    dot = "dot" if not clear else ("dot good" if row.gain > 0 else "dot bad")
    drawing.add("circle", cx=x(row.gain), cy=11.0, r=4.0, class_=dot)
    return drawing.render("spark")


def fold_strip(key: str, name: str, values: Sequence[float]) -> Markup:
    """Draw the folds of one metric as dots, oldest left (a headline tile)."""
    drawing = Drawing(
        f"strip-{key}", 160, 34, f"{name} by fold",
        "Oldest to newest: " + ", ".join(f"{v:.3f}" for v in values),
    )  # fmt: skip
    low, high = min(values), max(values)
    pad = max((high - low) * 0.25, 0.004)
    x, y = linear(0, max(len(values) - 1, 1), 6, 154), linear(low - pad, high + pad, 31, 3)
    points = [(x(i), y(v)) for i, v in enumerate(values)]
    drawing.path(points, "strip")
    for (a, b), value in zip(points, values, strict=True):
        drawing.tip(f"{value:.3f}", "circle", cx=a, cy=b, r=3.2, class_="dot")
    return drawing.render("spark")


def _percent(value: float) -> str:
    text = f"{value * 100:.3f}".rstrip("0").rstrip(".")
    return f"{text} %"


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:g}k" if value >= 1_000 else f"{value:g}"


def _short_day(day: str) -> str:
    return day[5:] if len(day) == 10 and day[4] == "-" else day
