"""How far from a model the truth lies, by rows that the model had not seen.

Weighted split-conformal prediction (Tibshirani et al., NeurIPS 2019): where which cells are missing
depends on other columns, held-out rows count by how likely a row like them is to miss its value, as
far as that can be learnt. Where they are missing at random the weights are equal and the coverage
is exact (Vovk et al., 2005).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
MOST_ODDS = 20.0
LEAST_GAIN = 0.005
"""Nats a row by which missing cells must be told apart before the odds are believed."""


def missing_odds(
    x: Floats, filled: Rows, empty: Rows, fit: Callable[[Rows, Floats], Any]
) -> Floats:
    """Return by how much likelier each row is to miss its value than the average row.

    Args:
        x: float64 [rows, features] of the table.
        filled: Rows that have a value.
        empty: Rows that miss it.
        fit: Returns a classifier of scikit-learn's kind for rows and whether each misses its value.

    Returns:
        float64 [rows], at most MOST_ODDS; ones where a model that has not seen them cannot tell the
        two apart.
    """
    empty = empty[:: max(1, len(empty) // len(filled))]
    rows = np.concatenate([filled, empty])
    missed = np.concatenate([np.zeros(len(filled)), np.ones(len(empty))])
    prior = missed.mean() / (1 - missed.mean())
    part = np.random.default_rng(1).integers(0, 2, len(rows))
    unseen = np.zeros(len(rows))
    odds = np.ones(len(x))
    for side in (0, 1):
        seen = rows[part == side]
        if len(np.unique(missed[part == side])) < 2:
            return odds
        model = fit(seen, missed[part == side])
        p = np.clip(model.predict_proba(x)[:, 1], 1e-3, 1 - 1e-3)
        unseen[part != side] = p[rows[part != side]]
        odds *= np.sqrt(p / (1 - p) / prior)
    guess = missed.mean()
    loss = -np.mean(missed * np.log(unseen) + (1 - missed) * np.log(1 - unseen))
    base = -(guess * np.log(guess) + (1 - guess) * np.log(1 - guess))
    return np.minimum(odds, MOST_ODDS) if loss < base - LEAST_GAIN else np.ones(len(x))


def _needed(scores: Floats, weights: Floats, own: Floats, coverage: float) -> Floats:
    """Return the score within which each cell's truth lies, by weighted conformal prediction.

    Args:
        scores: float64 [held out] what each would have needed.
        weights: float64 [held out] of them.
        own: float64 [cells] weight of each cell to fill.
        coverage: Share of truths inside.

    Returns:
        float64 [cells]; infinite where too few were held out.
    """
    order = np.argsort(scores, kind="stable")
    rising = np.append(np.cumsum(weights[order]), np.inf)
    wanted = coverage * (weights.sum() + own)
    place = np.searchsorted(rising, wanted - 1e-9 * wanted)
    return np.asarray(np.append(scores[order], np.inf)[np.minimum(place, len(scores))])


def needed_by_group(
    scores: Floats, weights: tuple[Floats, Floats], groups: tuple[Rows, Rows], coverage: float
) -> Floats:
    """Return :func:`_needed` by group, of all rows together where a group is too small.

    Args:
        scores: float64 [held out].
        weights: Of held-out rows and of cells to fill.
        groups: Likewise; below 0 for none.
        coverage: Share of truths inside, in every group that is large enough.
    """
    (of_held, of_cells), (held, cells) = weights, groups
    needed = np.full(len(cells), np.inf)
    for group in np.unique(cells):
        mine, like = cells == group, held == group
        if group < 0 or like.sum() < 2 / (1 - coverage):
            like = np.ones(len(held), bool)
        needed[mine] = _needed(scores[like], of_held[like], of_cells[mine], coverage)
    return needed
