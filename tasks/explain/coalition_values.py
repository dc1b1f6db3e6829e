"""What coalitions are worth: a row's own features for who is in, a background row's for the rest.

Any function is asked for the scores of mixed rows; torch modules that begin with a linear layer go
a shorter way (``split_linear.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.explain.players import Players
from tasks.explain.scores import Rows, ScoreFunction, TorchScores, checked_scores


class CoalitionValues(Protocol):
    """Values of coalitions, many at a time."""

    @property
    def at_once(self) -> int:
        """Coalitions that one call should bring."""

    def values(
        self, members: NDArray[np.bool_], owners: NDArray[np.intp], rows: Rows
    ) -> NDArray[np.float64]:
        """Return the values ``[n, m]`` for rows ``[n, F]``.

        Args:
            members: Players that are in, ``[m, P]``.
            owners: Background row that each coalition is mixed with, ``[m]``.
            rows: The explained rows.

        Raises:
            ScoreError: When a value is not finite.
        """


@dataclass(frozen=True)
class MixedRows:
    """Values by any function: it scores the mixed rows themselves.

    Attributes:
        function: The function.
        background: ``[B, F]``.
        owner: Player of each feature, ``[F]``.
        memory_bytes: Most that the mixed rows of one call take.
    """

    function: ScoreFunction
    background: Rows
    owner: NDArray[np.intp]
    memory_bytes: int

    @property
    def at_once(self) -> int:
        """Coalitions that one call should bring."""
        return max(1, self.memory_bytes // (8 * len(self.owner)))

    def values(
        self, members: NDArray[np.bool_], owners: NDArray[np.intp], rows: Rows
    ) -> NDArray[np.float64]:
        """Return the values ``[n, m]``."""
        own, others = members[:, self.owner], self.background[owners]
        step = max(1, self.at_once // len(members))
        found = np.empty((len(rows), len(members)))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            mixed = np.where(own, some[:, None, :], others).reshape(-1, len(self.owner))
            scores = checked_scores(self.function, mixed, "mixture")
            found[start : start + step] = scores.reshape(len(some), -1)
        return found


def coalition_values(
    function: ScoreFunction, background: Rows, players: Players, memory_bytes: int
) -> CoalitionValues:
    """Choose how coalitions are valued: by the split first layer where there is one."""
    owner = np.array(players.owner, dtype=np.intp)
    if isinstance(function, TorchScores):
        from tasks.explain.split_linear import SplitLinear, splits  # imports torch

        if splits(function.module):
            return SplitLinear(function, background, owner)
    return MixedRows(function, background, owner, memory_bytes)
