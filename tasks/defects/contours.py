"""Boxes around the warm spots of a heat map."""

from __future__ import annotations

import numpy as np

from tasks.defects.judgement import Heat
from tasks.defects.samples import Box

WARM = 0.5
LEAST_SIDE = 4
"""Pixels below which a warm spot is no box."""
MOST = 20


def boxes_of_heat(heat: Heat, kind: str = "") -> tuple[Box, ...]:
    """Return the warm spots as boxes, the warmest first, at most `MOST`.

    Args:
        heat: float [h, w] in 0 to 1; no numbers count as 0.
        kind: Type of the defect, that of every box.
    """
    from scipy import ndimage

    spots, count = ndimage.label(heat >= WARM)
    if not count:
        return ()
    warmest = np.atleast_1d(ndimage.maximum(heat, spots, range(1, count + 1)))
    found = []
    for (rows, columns), score in zip(ndimage.find_objects(spots), warmest, strict=True):
        if max(rows.stop - rows.start, columns.stop - columns.start) >= LEAST_SIDE:
            edges = columns.start, rows.start, columns.stop, rows.stop
            found.append(Box(*edges, kind, float(min(score, 1.0))))
    return tuple(sorted(found, key=lambda box: -box.score)[:MOST])
