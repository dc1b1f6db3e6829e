"""How stable the reasons are when the background is drawn again (arXiv 2204.11351 measured it)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background

Float = NDArray[np.float64]
Values = Callable[[Background], Float]
"""Contributions ``[n, P]`` of fixed rows against a background."""


@dataclass(frozen=True, slots=True)
class Stability:
    """Agreement of rankings over redraws of the background.

    Attributes:
        draws: Redraws.
        top: Places compared.
        overlap: Mean share of the top players of the frozen background that stay in the top.
        first: Share of rows whose first reason stays.
        spread: Standard deviation of each player's mean absolute contribution ``[P]``.
    """

    draws: int
    top: int
    overlap: float
    first: float
    spread: Float


def stability(
    values: Values, background: Background, *, draws: int = 5, top: int = 4, seed: int = 0
) -> Stability:
    """Explain the same rows against bootstrap draws of the background.

    Args:
        values: Explains the rows.
        background: The frozen one; draws are of its rows, with replacement.
        draws: How many.
        top: Places compared; at most one fewer than players, or all would always stay.
        seed: Of the draws.

    Raises:
        ValueError: On fewer than one draw or no rows.
    """
    frozen = values(background)
    if draws < 1 or not len(frozen):
        raise ValueError("stability needs at least one draw and one explained row")
    places = max(1, min(top, frozen.shape[1] - 1))
    rng = np.random.default_rng(seed)
    mine = _top(frozen, places)
    overlaps, firsts, strengths = [], [], []
    for _ in range(draws):
        rows = rng.integers(len(background.values), size=len(background.values))
        drawn = values(Background(background.names, background.values[rows]))
        theirs = _top(drawn, places)
        common = (mine[:, :, None] == theirs[:, None, :]).any(axis=2)
        overlaps.append(common.mean())
        firsts.append((mine[:, 0] == theirs[:, 0]).mean())
        strengths.append(np.abs(drawn).mean(axis=0))
    return Stability(
        draws, places, float(np.mean(overlaps)), float(np.mean(firsts)), np.std(strengths, axis=0)
    )


def _top(values: Float, places: int) -> NDArray[np.intp]:
    return np.argsort(-values, axis=1, kind="stable")[:, :places]
