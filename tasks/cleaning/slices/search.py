"""The worst slices of a table, looked for among all values and bands of all columns, and pairs.

After SliceFinder (Chung et al., ICDE 2019): slices of one condition first; one of two conditions
counts only where it is worse than the rest *and* than what remains of both its parents, so that a
bad town is not told again as every pair that it is part of. The largest of the three p-values is a
valid one of that claim; Benjamini and Hochberg over all slices looked at bounds the share of false
ones among the told by ``alpha``. Depth is two: with more, slices are too small to be sure of.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tasks.cleaning.slices.groups import Slices
from tasks.cleaning.slices.intervals import Comparison, Floats, adjusted
from tasks.cleaning.slices.table import (
    Figure,
    SliceConfig,
    SliceTable,
    against_rest,
    enough,
    frame_of,
)


def worst_slices(
    figure: Figure,
    slices: Slices,
    config: SliceConfig | None = None,
    *,
    name: str = "score",
    most: int = 20,
) -> SliceTable:
    """Find slices whose scores are worse than those of the rest by more than the floor.

    Args:
        figure: Scores.
        slices: With pairs, if two conditions are to be looked at together.
        config: ``alpha`` is the share of false ones among the slices returned.
        name: What the figure is called.
        most: Slices returned at most; those that are surely the farthest from the rest come first.

    Raises:
        ValueError: When neither high nor low scores are bad, or scores do not fit the slices.
    """
    if figure.worse == "neither":
        raise ValueError("worst slices need to know whether high or low scores are bad")
    config = config or SliceConfig()
    comparison = against_rest(figure, slices)
    tested, p = enough(comparison, config), _worse(comparison, figure)
    parents = slices.parents()
    for side in (0, 1):
        rows = np.flatnonzero(parents[:, side] >= 0)
        here = comparison.here[rows]
        remains = comparison.here[parents[rows, side]] - here
        beside = Comparison(here, remains, figure.rate)
        tested[rows] &= enough(beside, config)
        # Cheap first: what is no worse than the rest needs no second test.
        open_ = np.flatnonzero(p[rows] <= config.alpha)
        p[rows[open_]] = np.maximum(
            p[rows[open_]], _worse(Comparison(here[open_], remains[open_], figure.rate), figure)
        )
    q = np.full(len(p), np.nan)
    q[tested], level = adjusted(p[tested], config.alpha)
    limits = comparison.limits(level)
    members = slices.members()
    frame = frame_of(name, figure, members, comparison, limits, q, config)
    distance = limits[0] if figure.worse == "high" else -limits[1]
    found = np.flatnonzero(np.nan_to_num(q, nan=1.0) <= config.alpha)
    found = found[np.argsort(-distance[found], kind="stable")][:most]
    frame = frame[found.tolist()].with_columns(pl.lit("worse").alias("verdict"))
    kept = [members[i] for i in found]
    return SliceTable(frame, kept, int(tested.sum()), level, config.alpha)


def _worse(comparison: Comparison, figure: Figure) -> Floats:
    if figure.worse == "high":
        return comparison.above(figure.least)
    return comparison.below(figure.least)
