"""Histories of one mask as flat rows of their events: what the engine by players takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background, narrowed
from tasks.explain.history.background import HistoryBackground
from tasks.explain.history.scores import HistoryScores
from tasks.explain.players import Players
from tasks.explain.scores import checked_scores

Rows = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class FlatGame:
    """The game of histories of one mask, by their events alone; padding stays what it is.

    Attributes:
        function: Scores of histories.
        background_histories: What they are compared with.
        there: Where events stand ``[T]``.
        memory_bytes: Most that mixed histories of one call take, with their padding.
        check: Called before each call of the function; raises when the time is over.
    """

    function: HistoryScores
    background_histories: HistoryBackground
    there: NDArray[np.bool_]
    memory_bytes: int
    check: Callable[[], None]

    @cached_property
    def background(self) -> Background:
        """As many of the background's newest events as the histories have."""
        return self.background_histories.newest(int(self.there.sum()))

    @property
    def memory_of_events(self) -> int:
        """What flat rows of one call may take: padded, they keep to the memory."""
        return max(1, self.memory_bytes * int(self.there.sum()) // len(self.there))

    def rows(self, histories: Rows) -> Rows:
        """Return flat float32 rows ``[n, L * F]`` of histories ``[n, T, F]``.

        Raises:
            BackgroundError: On a value that float32 cannot hold.
        """
        flat = histories[:, self.there].reshape(len(histories), -1)
        return narrowed(flat, self.background.names, "history")

    def score(self, rows: Rows) -> NDArray[np.floating[Any]]:
        """Return scores of flat rows."""
        self.check()
        features = len(self.background_histories.names)
        histories = rows.reshape(len(rows), -1, features)
        if not self.there.all():
            padded = np.zeros((len(rows), len(self.there), features), dtype=rows.dtype)
            padded[:, self.there] = histories
            histories = padded
        return self.function(histories, np.broadcast_to(self.there, histories.shape[:2]))

    def scores(self, rows: Rows, what: str = "history") -> NDArray[np.float64]:
        """Return checked scores of flat rows; none of none."""
        return checked_scores(self.score, rows, what) if len(rows) else np.zeros(0)

    def players(self, names: tuple[str, ...], owner: NDArray[np.int64]) -> Players:
        """Divide the cells of the events by an owner of each ``[L * F]``."""
        return Players(self.background.names, names, tuple(owner.tolist()))

    def worth(
        self, players: Players, members: NDArray[np.bool_], rows: Rows
    ) -> NDArray[np.float64]:
        """Return the mean worth over the background ``[n, m]`` of coalitions ``[m, P]``."""
        inside = members[:, np.array(players.owner)]
        others = self.background.values
        found = np.zeros((len(rows), len(members)))
        step = max(1, self.memory_of_events // (8 * len(players.owner)))
        for place, row in enumerate(rows):
            for start in range(0, len(members), step):
                part = slice(start, start + step)
                for other in others:
                    mixed = np.where(inside[part], row, other)
                    found[place, part] += checked_scores(self.score, mixed, "mixture")
        return found / len(others)
