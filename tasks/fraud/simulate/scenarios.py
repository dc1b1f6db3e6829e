"""Fraud that lasts for days: compromised terminals and compromised cards.

Both carry state from day to day; its size depends on the number of terminals, on the days that a
compromise lasts and on the frauds in it, not on the length of the run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw_some(population: int, expected: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``expected`` members without replacement; a fraction of one by chance."""
    number = int(expected) + int(random.random() < expected % 1)
    return random.choice(population, min(number, population), replace=False)


class CompromisedTerminals:
    """Terminals of which every transaction is a fraud, for a number of days."""

    def __init__(self, terminals: int, days: int) -> None:
        """Start with none.

        Args:
            terminals: Number of terminals.
            days: Days that a compromise lasts, its first day included.
        """
        self._last = np.full(terminals, -1, np.int32)  # last bad day of each terminal
        self._days = days

    def add(self, day: int, expected: float, random: np.random.Generator) -> None:
        """Compromise ``expected`` terminals, drawn from all, from ``day`` on."""
        self._last[draw_some(len(self._last), expected, random)] = day + self._days - 1

    def hit(self, day: int, terminal: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Tell which rows of ``day`` are at a compromised terminal."""
        return self._last[terminal] >= day


class CompromisedCards:
    """Cards of which a third of the transactions of the coming days are frauds.

    Which third is drawn on the first day, from the numbers of transactions that the card will make
    on each day. Only those numbers must be known ahead, not the transactions.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._marks: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}

    def add(
        self,
        day: int,
        counts: Sequence[NDArray[np.int32]],
        expected: float,
        random: np.random.Generator,
    ) -> None:
        """Compromise ``expected`` cards, drawn from all, from ``day`` on.

        Args:
            day: First day.
            counts: Transactions of every card, int32 [cards], on ``day`` and on each further day
                that the compromise lasts.
            expected: Number of cards; a fraction of one is drawn by chance.
            random: Generator to draw from.
        """
        for card in draw_some(len(counts[0]), expected, random).tolist():
            ends = np.cumsum([number[card] for number in counts])
            total = int(ends[-1])
            chosen = random.choice(total, total // 3, replace=False) if total >= 3 else ()
            later = np.searchsorted(ends, chosen, side="right")
            for ahead in np.unique(later).tolist():
                before = ends[ahead - 1] if ahead else 0
                mark = np.asarray(chosen)[later == ahead] - before
                self._marks.setdefault(day + ahead, []).append((card, mark))

    def rows(self, day: int, counts: NDArray[np.int32]) -> NDArray[np.int64]:
        """Give out and forget the frauds of ``day``.

        Args:
            day: The day.
            counts: Transactions of every card on that day; rows are ordered by card.

        Returns:
            int64 row numbers; a row hit by two compromises is named twice.
        """
        marks = self._marks.pop(day, [])
        if not marks:
            return np.empty(0, np.int64)
        first = np.cumsum(counts, dtype=np.int64) - counts
        return np.concatenate([first[card] + mark for card, mark in marks])
