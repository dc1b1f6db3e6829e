"""What each layer loses alone in 8 and in 4 bits, and the bytes that saves, as SVG bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kernels.compression.sensitivity import LayerSensitivity
from tasks.cleaning.report.svg import Axes, Drawing, linear, ticks

WIDTH = 660.0
LONGEST_NAME = 32
_ROW, _BAR = 20.0, 7.0
_NAMES, _SAVED = 240.0, 120.0
"""Room at the left and at the right."""


def sensitivity_plot(layers: Sequence[LayerSensitivity]) -> Drawing:
    """Return the drawing, a row per layer in the order given.

    Raises:
        ValueError: When there are no layers.
    """
    if not layers:
        raise ValueError("no layers to draw; measure_sensitivity() gives them")
    worst = max(layers, key=lambda one: one.loss_int8)
    drawing = Drawing(
        "sensitivity",
        WIDTH,
        _ROW * len(layers) + 60,
        "Loss of each layer alone",
        f"{len(layers)} layers; in 8 bits {worst.layer} loses most, {worst.loss_int8:.4f}.",
    )
    axes = Axes(drawing, left=_NAMES, right=_SAVED)
    losses = [loss for one in layers for loss in (one.loss_int8, one.loss_int4)]
    high = max((loss for loss in losses if math.isfinite(loss)), default=0.0) or 1.0
    x = linear(0, high, axes.x0, axes.x1)
    name = "Loss when all others stay float: in 8 bits (upper), in 4 bits (lower)"
    axes.x_axis(x, ticks(0, high), name, "{:g}".format)
    for place, one in enumerate(layers):
        top = axes.y1 + _ROW * place
        drawing.text(axes.x0 - 8, top + 11, _short(one.layer), class_="tl", text_anchor="end")
        for number, (bits, loss) in enumerate(((8, one.loss_int8), (4, one.loss_int4))):
            if math.isnan(loss):
                continue
            drawing.tip(
                f"{one.layer} in {bits} bits: {loss:.4f}",
                "rect",
                x=axes.x0,
                y=top + 1 + _BAR * number,
                width=max(1.0, x(min(loss, high)) - axes.x0),
                height=_BAR,
                class_=f"bits{bits}",
            )
        drawing.text(axes.x1 + 8, top + 11, _saved(one), class_="tl")
    return drawing


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else "..." + name[3 - LONGEST_NAME :]


def _saved(layer: LayerSensitivity) -> str:
    more = f" + {layer.saved_int4 / 1024:.1f}" if layer.saved_int4 else ""
    return f"{layer.saved_int8 / 1024:.1f}{more} KiB"
