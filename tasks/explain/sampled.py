"""Shapley values from drawn coalitions, more of them until the reasons are told apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kernels.shapley.paired import Pairs, draw_pairs
from tasks.explain.errors import PlayersError
from tasks.explain.ties import apart

Float = NDArray[np.float64]
Differences = Callable[[int, Pairs, NDArray[np.intp]], Float]
"""``v(S) - v(complement)`` of a numbered round's pairs for rows at some places, ``[n, B, K]``."""

PAIRS_PER_PLAYER = 2.5
"""Pairs of the first round for each background row: fewer leave its regression near singular."""


MOST_DRAWN = 1_000
"""Players beyond which a regression for each background row takes seconds and gigabytes."""


class SampledValues:
    """Rounds of coalitions drawn once for all rows; each round doubles what was drawn before.

    Attributes:
        most: Mixed rows scored for a row that needs all rounds.
    """

    def __init__(
        self, players: int, background_rows: int, *, seed: int, evaluations: int, top: int
    ) -> None:
        """Plan the rounds.

        Args:
            players: P, at least 2.
            background_rows: B.
            seed: Of the draw.
            evaluations: Most mixed rows to score for a row.
            top: Places that should be told apart from the next one.

        Raises:
            PlayersError: When the budget does not reach for the first round, or the players are
                more than ``MOST_DRAWN``.
        """
        self._first = int(np.ceil(PAIRS_PER_PLAYER * players))
        least = 2 * self._first * background_rows
        if least > evaluations:
            raise PlayersError(
                f"{players:,} players before {background_rows} background rows need {least:,} "
                f"evaluations a row, the budget is {evaluations:,}: group features into fewer "
                "players (Players.grouped), freeze fewer background rows or allow more evaluations"
            )
        if players > MOST_DRAWN:
            raise PlayersError(
                f"{players:,} players are too many to draw coalitions for "
                f"({MOST_DRAWN:,} at most): group features into fewer players (Players.grouped)"
            )
        self._players, self._games = players, background_rows
        self._seed, self._top = seed, top
        self._rounds = 1 + int(np.log2(evaluations / least))
        self.most = least * 2 ** (self._rounds - 1)
        self._drawn: list[tuple[Pairs, Pairs]] = []

    def solve(
        self, differences: Differences, totals: Float
    ) -> tuple[Float, Float, NDArray[np.int64]]:
        """Return values and errors ``[n, P]`` and evaluations spent ``[n]``.

        Args:
            differences: Asked for the pairs of one round and the rows that are still open.
            totals: ``v(all) - v(none)`` ``[n, B]``.
        """
        n = len(totals)
        values, errors = np.empty((n, self._players)), np.empty((n, self._players))
        spent = np.zeros(n, dtype=np.int64)
        rows = np.arange(n)
        known = np.empty((n, self._games, 0))
        for number in range(self._rounds):
            new, all_pairs = self._round(number)
            known = np.concatenate([known, differences(number, new, rows)], axis=2)
            values[rows], errors[rows] = all_pairs.solve(known, totals[rows])
            spent[rows] = 2 * all_pairs.weights.size
            open_ = ~self._told_apart(values[rows], errors[rows])
            rows, known = rows[open_], known[open_]
            if not len(rows):
                break
        return values, errors, spent

    def _round(self, number: int) -> tuple[Pairs, Pairs]:
        """Return the pairs that a round adds, and all pairs up to it."""
        if number == len(self._drawn):
            count = self._first * 2 ** max(0, number - 1)
            new = draw_pairs(self._games, count, self._players, (self._seed, number))
            self._drawn.append((new, self._drawn[-1][1].joined(new) if number else new))
        return self._drawn[number]

    def _told_apart(self, values: Float, errors: Float) -> NDArray[np.bool_]:
        if self._top >= self._players:
            return np.ones(len(values), dtype=bool)
        order = np.argsort(-values, axis=1, kind="stable")[:, self._top - 1 : self._top + 1]
        value = np.take_along_axis(values, order, axis=1)
        error = np.take_along_axis(errors, order, axis=1)
        return apart(value[:, 0], value[:, 1], error[:, 0], error[:, 1])
