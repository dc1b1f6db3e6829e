"""The Fellegi-Sunter model: how much each level of each comparison speaks for one entity.

``m`` is how often rows of the same entity reach a level, ``u`` how often rows of different ones do.
Random pairs give ``u`` (less what true pairs among them contribute), expectation maximisation over
the blocked pairs gives ``m`` and how many pairs of all are true. No labels are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.duplicates.comparison import Levels

Array = NDArray[np.float64]
_FLOOR = 1e-6
_START = 0.7  # m of equal values before anything is known
MOST_UNLIKE = (0.5, 0.05)
"""Largest m of "nothing alike"; the second where true pairs would be unlike in half of the columns.

Rows of one entity are alike in most columns. Without this, where there are few duplicates, the
rows of one town (place and postcode depend on each other) become the entity that is found.
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted model.

    Attributes:
        m: float64 [levels] of each comparison.
        u: The same.
        prior: Share of all pairs that are true.
        rounds: Of expectation maximisation.
        plausible: Whether true pairs are alike in most columns, as rows of one entity must be.
    """

    m: tuple[Array, ...]
    u: tuple[Array, ...]
    prior: float
    rounds: int
    plausible: bool = True

    def log_odds(self, levels: Sequence[Levels], frequency: Sequence[Array | None]) -> Array:
        """Return natural log-odds that pairs are one entity: float64 [pairs].

        Args:
            levels: int8 [pairs] of each comparison.
            frequency: float64 [pairs] share of rows with the value where both are equal, else NaN;
                null for a comparison that does not count it.
        """
        total = np.full(len(levels[0]), np.log(self.prior) - np.log1p(-self.prior))
        for m, u, level, shares in zip(self.m, self.u, levels, frequency, strict=True):
            # The last entry is what level -1 finds: a missing value says nothing.
            total += np.append(np.log(m) - np.log(u), 0.0)[level]
            if shares is not None:
                rare = np.log(u[-1]) - np.log(shares)
                total += np.where(np.isnan(shares), 0.0, rare)
        return total


def probability(log_odds: Array) -> Array:
    """Return match probabilities."""
    return 1.0 / (1.0 + np.exp(-np.clip(log_odds, -500, 500)))


def fit(
    counts: Sequence[int],
    levels: Sequence[Levels],
    frequency: Sequence[Array | None],
    random_levels: Sequence[Levels],
    *,
    all_pairs: float,
    rounds: int = 100,
    tolerance: float = 1e-4,
) -> Model:
    """Fit a model to blocked pairs; the pairs left out count as different.

    Args:
        counts: Number of levels of each comparison.
        levels: int8 [pairs] of each comparison, of the blocked pairs.
        frequency: See :meth:`Model.log_odds`.
        random_levels: int8 [random pairs] of each comparison.
        all_pairs: Number of all pairs, blocked or not.
        rounds: At most.
        tolerance: Largest change of any ``m`` that ends it.
    """
    mixed = [_shares(n, its, None) for n, its in zip(counts, random_levels, strict=True)]
    first = Model(
        tuple(_first_guess(n) for n in counts), tuple(mixed), min(1 / all_pairs, 0.5), rounds=0
    )
    for most in MOST_UNLIKE:
        model = _maximised(
            first, mixed, counts, levels, frequency, all_pairs, most, rounds, tolerance
        )
        weight = probability(model.log_odds(levels, frequency))
        if _plausible([_shares(n, its, weight) for n, its in zip(counts, levels, strict=True)]):
            return model
    return replace(model, plausible=False)


def _maximised(
    model: Model,
    mixed: Sequence[Array],
    counts: Sequence[int],
    levels: Sequence[Levels],
    frequency: Sequence[Array | None],
    all_pairs: float,
    most: float,
    rounds: int,
    tolerance: float,
) -> Model:
    for number in range(1, rounds + 1):
        weight = probability(model.log_odds(levels, frequency))
        prior = min(max(float(weight.sum()) / all_pairs, 1e-12), 0.5)
        m = tuple(
            _alike(_shares(n, its, weight), most) for n, its in zip(counts, levels, strict=True)
        )
        # Random pairs are true ones to that share, which counts in small tables.
        u = tuple(_normal((x - prior * y) / (1 - prior)) for x, y in zip(mixed, m, strict=True))
        change = max(float(np.abs(x - y).max()) for x, y in zip(m, model.m, strict=True))
        model = Model(m, u, prior, number)
        if change < tolerance:
            break
    return model


def _first_guess(n: int) -> Array:
    guess = np.full(n, (1 - _START) / 2 ** np.arange(n, 0, -1))
    guess[-1] = _START
    return _normal(guess)


def _alike(m: Array, most: float) -> Array:
    if len(m) == 2 or m[0] <= most:
        return m
    return np.append(most, m[1:] / m[1:].sum() * (1 - most))


def _plausible(m: Sequence[Array]) -> bool:
    unlike = np.array([its[0] for its in m if len(its) > 2])
    return bool((unlike >= MOST_UNLIKE[0]).sum() * 2 < max(len(unlike), 1))


def _shares(n: int, level: Levels, weight: Array | None) -> Array:
    known = level >= 0
    found = np.bincount(level[known], None if weight is None else weight[known], minlength=n)
    return _normal(found / max(float(found.sum()), _FLOOR))


def _normal(shares: Array) -> Array:
    raised = np.maximum(shares, _FLOOR)
    return np.asarray(raised / raised.sum(), np.float64)
