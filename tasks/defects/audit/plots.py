"""Plots of the record as SVG, for the page and as files of their own."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.cleaning.report.page import style_sheet
from tasks.cleaning.report.svg import (
    Axes,
    Drawing,
    Scale,
    decades,
    linear,
    logarithmic,
    num,
    ticks,
)
from tasks.defects.audit.figures import Curve, Table
from tasks.defects.judgement import Thresholds
from tasks.defects.promise.cost import CostCurve

PACKAGE, OWN_STYLE = "tasks.defects.audit", "audit.css"
WIDTH, HEIGHT = 480.0, 320.0
LEAST = 1e-3
"""Where logarithmic axes of error rates begin; a rate of none lies on the edge."""
CELL, MOST_LABEL = 64.0, 18


def roc_plot(curve: Curve, at: tuple[float, float]) -> Drawing:
    """Return found defects over false rejects; ``at`` is where the thresholds lie."""
    drawing = Drawing(
        "roc",
        WIDTH,
        HEIGHT,
        "Found defects over false rejects",
        f"Share of defective parts from a threshold on, over that of good ones; area "
        f"{curve.auroc:.4f}.",
    )
    axes = Axes(drawing)
    x, y = linear(0, 1, axes.x0, axes.x1), linear(0, 1, axes.y0, axes.y1)
    axes.y_axis(y, ticks(0, 1), "Defective parts found", _percent)
    axes.x_axis(x, ticks(0, 1), "Good parts rejected", _percent)
    drawing.line(x(0), y(0), x(1), y(1), "chance")
    drawing.path(_placed(curve.false_rejects, 1 - curve.misses, x, y), "line s0")
    _dot(drawing, x(at[0]), y(1 - at[1]))
    return drawing


def det_plot(curve: Curve, at: tuple[float, float]) -> Drawing:
    """Return misses over false rejects on logarithmic axes (detection error trade-off)."""
    drawing = Drawing(
        "det",
        WIDTH,
        HEIGHT,
        "Misses over false rejects",
        f"Both on logarithmic axes, rates below {LEAST:.1%} on their edges; at the thresholds "
        f"{at[1]:.2%} of defective parts pass and {at[0]:.2%} of good ones are rejected.",
    )
    axes = Axes(drawing)
    x, y = logarithmic(LEAST, 1, axes.x0, axes.x1), logarithmic(LEAST, 1, axes.y0, axes.y1)
    axes.y_axis(y, decades(LEAST, 1), "Defective parts passed", _percent)
    axes.x_axis(x, decades(LEAST, 1), "Good parts rejected", _percent)
    drawing.path(_placed(curve.false_rejects, curve.misses, x, y), "line s0")
    _dot(drawing, x(at[0]), y(at[1]))
    return drawing


def cost_plot(curve: CostCurve, thresholds: Thresholds) -> Drawing:
    """Return cost over a single threshold, with its interval and the thresholds in use."""
    best = int(curve.cost.argmin())
    drawing = Drawing(
        "cost",
        WIDTH,
        HEIGHT,
        "Cost of one image over a single threshold",
        f"Without review; least {curve.cost[best]:.4g} at a threshold of {curve.at[best]:.4g}.",
    )
    axes = Axes(drawing)
    top = float(curve.high.max()) * 1.05 or 1.0
    first, last = float(curve.at[0]), float(curve.at[-1])
    x, y = linear(first, last, axes.x0, axes.x1), linear(0, top, axes.y0, axes.y1)
    axes.y_axis(y, ticks(0, top), "Cost per image", _short)
    axes.x_axis(x, ticks(first, last), "Threshold", _short)
    band = [*_placed(curve.at, curve.low, x, y), *reversed(_placed(curve.at, curve.high, x, y))]
    drawing.add("polygon", points=" ".join(f"{num(a)},{num(b)}" for a, b in band), class_="band")
    drawing.path(_placed(curve.at, curve.cost, x, y), "line s0")
    marks = ((thresholds.ok_below, "OK below"), (thresholds.ng_from, "NG from"))
    shown = [one for one in marks if first <= one[0] <= last]
    for place, (value, name) in enumerate(shown):
        drawing.line(x(value), axes.y1, x(value), axes.y0, "mark")
        drawing.text(x(value) + 5, axes.y1 + 12 + 15 * place, name, class_="tl")
    return drawing


def matrix_plot(key: str, title: str, table: Table) -> Drawing:
    """Return counts as a grid, the darker the larger their share of the row."""
    left, top = 140.0, 44.0
    drawing = Drawing(
        key,
        left + CELL * len(table.columns) + 14,
        top + CELL * len(table.rows) + 14,
        title,
        "Rows are true, columns what was said.",
    )
    drawing.text(left - 8, top - 10, "true ↓ said →", class_="tl", text_anchor="end")
    for place, name in enumerate(table.columns):
        middle = left + CELL * (place + 0.5)
        drawing.text(middle, top - 10, _label(name, 10), class_="tl", text_anchor="middle")
    for row, (name, counts) in enumerate(table.rows):
        y = top + CELL * row
        drawing.text(left - 8, y + CELL / 2 + 4, _label(name), class_="tl", text_anchor="end")
        for place, count in enumerate(counts):
            x, share = left + CELL * place, count / max(sum(counts), 1)
            drawing.add(
                "rect", x=x, y=y, width=CELL - 2, height=CELL - 2, rx=4.0, class_="cell",
                fill_opacity=f"{0.05 + 0.75 * share:.3f}",
            )  # fmt: skip
            drawing.text(
                x + CELL / 2 - 1, y + CELL / 2 + 4, f"{count:,}", class_="cn", text_anchor="middle"
            )
    return drawing


def document(drawing: Drawing) -> str:
    """Return a plot as an SVG file of its own, with its style."""
    return drawing.document(style_sheet(PACKAGE, OWN_STYLE))


def _placed(
    xs: Iterable[float], ys: Iterable[float], x: Scale, y: Scale
) -> list[tuple[float, float]]:
    return [(x(float(a)), y(float(b))) for a, b in zip(xs, ys, strict=True)]


def _dot(drawing: Drawing, x: float, y: float) -> None:
    drawing.add("circle", cx=x, cy=y, r=5.0, class_="dot")


def _label(text: str, most: int = MOST_LABEL) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _short(value: float) -> str:
    return f"{value:.4g}"
