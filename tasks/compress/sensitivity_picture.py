"""What each layer loses in 8 and 4 bits and the bytes it saves, as a picture for a tracked run."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Literal

from kernels.compression.sensitivity import LayerSensitivity

ROW_INCHES = 0.24
HEAD_INCHES = 1.3
WIDTH_INCHES = 9.0
LONGEST_NAME = 40
BLUE, ORANGE, GREY = "#2c6fbb", "#d9822b", "#8a8f98"


def sensitivity_picture(
    layers: Sequence[LayerSensitivity], title: str, kind: Literal["svg", "png"] = "svg"
) -> bytes:
    """Return the picture's file; the same bytes for the same numbers.

    Args:
        layers: In the order in which they shall stand, from the top.
        title: Line above.
        kind: Format.

    Raises:
        ValueError: When there are no layers.
    """
    if not layers:
        raise ValueError("no layers to draw; measure_sensitivity() gives them")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(WIDTH_INCHES, HEAD_INCHES + ROW_INCHES * len(layers)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    losses, sizes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    rows = range(len(layers))
    eight = [one.loss_int8 for one in layers]
    four = [0.0 if math.isnan(one.loss_int4) else one.loss_int4 for one in layers]
    losses.barh([row - 0.2 for row in rows], eight, 0.38, color=BLUE, label="8 bits")
    losses.barh([row + 0.2 for row in rows], four, 0.38, color=ORANGE, label="4 bits")
    losses.set_yticks(list(rows), [_short(one.layer) for one in layers], fontsize=7)
    losses.set_xlabel("loss when a layer alone is rounded")
    losses.legend(loc="lower right", fontsize=7)
    losses.invert_yaxis()
    saved = [one.saved_int8 / 1024 for one in layers]
    more = [one.saved_int4 / 1024 for one in layers]
    sizes.barh(list(rows), saved, 0.7, color=GREY)
    sizes.barh(list(rows), more, 0.7, left=saved, color=ORANGE)
    sizes.set_xlabel("KiB saved: 8 bits, 4 more")
    figure.suptitle(title, fontsize=10)
    held = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "penstock", "svg.fonttype": "none"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(held, format=kind, metadata=metadata, dpi=120)
    return held.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"
