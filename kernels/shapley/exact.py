"""Exact Shapley values of games of few players, as one matrix product over all coalitions.

Coalition number ``c`` holds player ``p`` where bit ``p`` of ``c`` is set.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

MOST_PLAYERS = 14
"""Beyond this 2^P coalitions cost more than a sample that is as good as exact."""


def members_of(coalitions: NDArray[np.int64], players: int) -> NDArray[np.bool_]:
    """Return which players ``[m, P]`` the numbered coalitions ``[m]`` hold.

    >>> members_of(np.array([5]), 3).tolist()
    [[True, False, True]]
    """
    bits: NDArray[np.bool_] = (coalitions[:, None] >> np.arange(players)) & 1 == 1
    return bits


def shapley_matrix(players: int) -> NDArray[np.float64]:
    """Return the matrix ``[P, 2^P]`` that turns the values of all coalitions into Shapley values.

    Shapley (1953): player p's value is the sum over coalitions S without p of
    ``|S|! (P - |S| - 1)! / P!`` times what p adds to S.

    Raises:
        ValueError: On fewer than 1 or more than ``MOST_PLAYERS`` players.

    >>> shapley_matrix(1).tolist()
    [[-1.0, 1.0]]
    """
    if not 1 <= players <= MOST_PLAYERS:
        raise ValueError(
            f"{players} players: all coalitions are enumerated for 1 to {MOST_PLAYERS}; "
            "group players or sample coalitions (kernels.shapley.paired)"
        )
    members = members_of(np.arange(2**players), players)
    size = members.sum(axis=1)
    joining = np.array([1 / (players * comb(players - 1, s)) for s in range(players)])
    gains = joining[np.maximum(size - 1, 0)]
    losses = joining[np.minimum(size, players - 1)]
    return np.where(members.T, gains, -losses)
