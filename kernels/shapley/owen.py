"""Coalitions of the other unions, for values of players within one union (Owen 1977).

Where players come in unions, a union's Shapley value is divided among its members by a game of
their own: a part S of the union is worth the Shapley value that S has among the other unions. That
is a mean of ``v(T with S) - v(T)`` over coalitions T of the other unions, of which there are all,
or some drawn in pairs with their complements.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OuterCoalitions:
    """Coalitions of U other unions and their weights.

    Attributes:
        members: bool ``[R, U]``; where drawn, the second half are the first's complements.
        weights: float64 ``[R]``, sum 1.
        drawn: Whether some were drawn, not all taken.
    """

    members: NDArray[np.bool_]
    weights: NDArray[np.float64]
    drawn: bool

    def mean(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return means and their standard errors by the draw ``[c]`` of values ``[R, c]``."""
        means = self.weights @ values
        if not self.drawn:
            return means, np.zeros_like(means)
        pairs = values.reshape(2, len(values) // 2, -1).mean(axis=0)
        return means, pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs))


def outer_coalitions(others: int, most: int, seed: tuple[int, ...]) -> OuterCoalitions:
    """Take all coalitions of some unions, or draw some where there are more than ``most``.

    Args:
        others: Number of unions beside the divided one, U.
        most: Most coalitions, at least 4.
        seed: Of the draw; whole numbers >= 0.

    Raises:
        ValueError: On fewer than 4 coalitions, which leave no error to estimate.

    >>> outer_coalitions(1, 4, (0,)).weights.tolist()
    [0.5, 0.5]
    """
    if most < 4:
        raise ValueError(f"{most} coalitions leave no error to estimate; allow 4 or more")
    if others < 63 and 2**others <= most:
        bits = (np.arange(2**others)[:, None] >> np.arange(others)) & 1 == 1
        by_size = np.array([1 / ((others + 1) * comb(others, size)) for size in range(others + 1)])
        return OuterCoalitions(bits, by_size[bits.sum(axis=1)], drawn=False)
    rng = np.random.default_rng(seed)
    pairs = most // 2
    # Every size from none to all is as likely as any other: the place in a random order.
    sizes = ((np.arange(pairs) + rng.random()) / pairs * (others + 1)).astype(np.int64)
    rank = rng.random((pairs, others)).argsort(axis=1).argsort(axis=1)
    half = rank < sizes[:, None]
    return OuterCoalitions(
        np.concatenate([half, ~half]), np.full(2 * pairs, 0.5 / pairs), drawn=True
    )
