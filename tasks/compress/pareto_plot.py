"""Time over size of what a plan tried, as SVG; what no other beats stands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.cleaning.report.svg import Axes, Drawing, linear, num, ticks

WIDTH, HEIGHT = 560.0, 340.0
_LABEL = 14.0
"""Least distance of two labels."""


def pareto_plot(whole: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Drawing:
    """Return the drawing.

    Args:
        whole: ``mb`` and ``ms`` of the float file.
        trials: Each with ``name``, ``mb``, ``ms``, ``loss``, ``front`` and ``taken``.
    """
    best = next(one for one in trials if one["taken"])
    drawing = Drawing(
        "pareto",
        WIDTH,
        HEIGHT,
        "Time over size",
        f"{len(trials)} files beside the float one of {whole['mb']:.2f} MB and {whole['ms']:.2f} "
        f"ms; taken is {best['name']} with {best['mb']:.2f} MB and {best['ms']:.2f} ms.",
    )
    axes = Axes(drawing, right=150)
    points = [{"name": "as trained", "loss": 0.0, "front": False, "taken": False, **whole}, *trials]
    high = [1.1 * max(float(one[key]) for one in points) for key in ("mb", "ms")]
    x, y = linear(0, high[0], axes.x0, axes.x1), linear(0, high[1], axes.y0, axes.y1)
    axes.y_axis(y, ticks(0, high[1]), "Milliseconds of one item", num)
    axes.x_axis(x, ticks(0, high[0]), "Megabytes", num)
    front = sorted((x(one["mb"]), y(one["ms"])) for one in points if one["front"])
    if len(front) > 1:
        drawing.path(front, "line")
    heights = _apart([y(one["ms"]) for one in points])
    for one, height in zip(points, heights, strict=True):
        style = "dot taken" if one["taken"] else "dot front" if one["front"] else "dot"
        tip = f"{one['name']}: {one['mb']:.2f} MB, {one['ms']:.2f} ms, loss {one['loss']:+.4f}"
        drawing.tip(
            tip,
            "circle",
            cx=x(one["mb"]),
            cy=y(one["ms"]),
            r=7 if one["taken"] else 5,
            class_=style,
        )
        drawing.text(x(one["mb"]) + 11, height + 4, str(one["name"]), class_="tl")
    return drawing


def _apart(heights: Sequence[float]) -> list[float]:
    """Return the heights of labels, moved down where they would cover each other."""
    found = list(heights)
    before = float("-inf")
    for place in sorted(range(len(found)), key=lambda one: heights[one]):
        before = found[place] = max(found[place], before + _LABEL)
    return found
