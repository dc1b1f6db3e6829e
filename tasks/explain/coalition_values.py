"""What coalitions are worth: a row's own features for who is in, a background row's for the rest.

Any function is asked for the scores of mixed rows; torch modules that begin with a linear layer go
a shorter way (``split_linear.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.shapley.exact import members_of
from tasks.explain.players import Players
from tasks.explain.scores import (
    Rows,
    ScoreFunction,
    TorchScores,
    refuse_mixtures,
    shaped_scores,
)


class Mixtures(Protocol):
    """Coalitions, each before one background row, made ready for any explained rows."""

    def values(self, rows: Rows, numbers: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the values ``[n, m]`` of the coalitions for rows ``[n, F]``.

        Args:
            rows: The explained rows.
            numbers: Their numbers ``[n]``, for errors.

        Raises:
            ScoreError: When a value is not finite; names the row.
        """


class CoalitionValues(Protocol):
    """Values of coalitions, many at a time."""

    @property
    def at_once(self) -> int:
        """Coalitions that one call should bring."""

    @property
    def bytes_each(self) -> int:
        """Memory that a coalition takes in its mixtures."""

    def mixtures(self, members: NDArray[np.bool_], owners: NDArray[np.intp]) -> Mixtures:
        """Make coalitions ready.

        Args:
            members: Players that are in, ``[m, P]``.
            owners: Background row that each coalition is mixed with, ``[m]``.
        """

    def means(
        self, rows: Rows, numbers: NDArray[np.intp], check: Callable[[], None]
    ) -> NDArray[np.float64]:
        """Return every coalition's mean value over the background, ``[n, 2^P]``.

        They are in the order of ``kernels.shapley.exact``. Nobody's and everybody's are scores
        that are known; they may be left at 0.

        Args:
            rows: The explained rows ``[n, F]``.
            numbers: Their numbers ``[n]``, for errors.
            check: Called between calls of the model.

        Raises:
            ScoreError: When a value is not finite; names the row.
        """


@dataclass(frozen=True)
class MixedRows:
    """Values by any function: it scores the mixed rows themselves.

    Attributes:
        function: The function.
        background: ``[B, F]``.
        owner: Player of each feature, ``[F]``.
        memory_bytes: Most that the mixed rows of one call take, and that answers of one step take.
    """

    function: ScoreFunction
    background: Rows
    owner: NDArray[np.intp]
    memory_bytes: int

    @property
    def at_once(self) -> int:
        """Coalitions that one call should bring."""
        return max(1, self.memory_bytes // self.bytes_each)

    @property
    def bytes_each(self) -> int:
        """Memory that a coalition takes: mask and background row, or the mixed row and a copy."""
        return 8 * len(self.owner)

    def mixtures(self, members: NDArray[np.bool_], owners: NDArray[np.intp]) -> Mixtures:
        """Make coalitions ready."""
        return _Mixed(self, members[:, self.owner], self.background[owners])

    def means(
        self, rows: Rows, numbers: NDArray[np.intp], check: Callable[[], None]
    ) -> NDArray[np.float64]:
        """Return every coalition's mean value ``[n, 2^P]``; the first and the last are 0."""
        players, games = int(self.owner.max()) + 1, len(self.background)
        inner = 2**players - 2
        found = np.zeros((len(rows), 2**players))
        # The rows share what one call takes: else answers of many rows outgrow the mixed rows.
        step = max(1, self.at_once // max(1, len(rows)))
        for start in range(0, games * inner, step):
            place = np.arange(start, min(start + step, games * inner))
            owners, coalitions = place % games, place // games + 1
            some = self.mixtures(members_of(coalitions, players), owners)
            worth = some.values(rows, numbers)
            first = np.flatnonzero(np.diff(coalitions, prepend=0))
            found[:, coalitions[first]] += np.add.reduceat(worth, first, axis=1) / games
            check()
        return found


@dataclass(frozen=True)
class _Mixed:
    """Mixtures as masks ``[m, F]`` of the row's own features, and background rows ``[m, F]``."""

    of: MixedRows
    own: NDArray[np.bool_]
    others: Rows

    def values(self, rows: Rows, numbers: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the values ``[n, m]``."""
        count, features = self.own.shape
        step = max(1, self.of.at_once // count)
        found = np.empty((len(rows), count))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            mixed = np.where(self.own, some[:, None, :], self.others).reshape(-1, features)
            scores = shaped_scores(self.of.function, mixed).reshape(len(some), -1)
            refuse_mixtures(scores, numbers[start : start + step])
            found[start : start + step] = scores
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
