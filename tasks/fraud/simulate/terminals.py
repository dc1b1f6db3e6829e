"""Which terminals a card uses: a uniform draw among those within a radius, in little memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

STRIPS = 11  # strips of a fifth of the radius that a circle can touch
BLOCK = 1 << 16  # rows drawn at once: keeps the temporaries in the cache


class NearbyTerminals:
    """Uniform draws among the terminals at a Euclidean distance below ``radius`` of a card.

    Listing all pairs would cost memory with the product of both numbers (8 billion pairs for a
    million each). Here the terminals are sorted by horizontal strip and then by ``x``: those
    around a card lie in at most 11 contiguous runs, together a little more than the circle. A draw
    takes one of the runs' terminals and repeats when it lies outside the circle (about one in
    ten), which is uniform within the circle. Memory: 88 bytes a card.
    """

    def __init__(
        self, cards: NDArray[np.float64], terminals: NDArray[np.float64], radius: float, side: float
    ) -> None:
        """Index the terminals.

        Args:
            cards: Positions float64 [n, 2] in ``0..side``.
            terminals: Positions float64 [m, 2] in ``0..side``.
            radius: Distance below which a card uses a terminal.
            side: Side of the square in which all of them lie.
        """
        self._cards, self._radius = cards, radius
        height, span = radius / 5, side + 1
        strip = np.floor(terminals[:, 1] / height)
        self._terminal: NDArray[np.int32] = np.lexsort((terminals[:, 0], strip)).astype(np.int32)
        self._xy = terminals[self._terminal]
        key = strip[self._terminal] * span + self._xy[:, 0]
        self._ends = np.zeros((STRIPS, len(cards)), np.int32)  # running number of candidates
        self._shift = np.zeros((STRIPS, len(cards)), np.int32)  # candidate number -> sorted row
        lowest = np.floor((cards[:, 1] - radius) / height)
        total = np.zeros(len(cards), np.int32)
        for number in range(STRIPS):
            row = lowest + number
            below, above = row * height - cards[:, 1], cards[:, 1] - (row + 1) * height
            apart = np.maximum(np.maximum(below, above), 0.0)
            # a hair wider than the circle, so that rounding never hides a terminal inside it
            half = np.sqrt(np.maximum(radius**2 - apart**2, 0.0)) + 1e-9
            left = row * span + np.maximum(cards[:, 0] - half, 0.0)
            right = row * span + np.minimum(cards[:, 0] + half, side)
            start = np.searchsorted(key, left, side="left")
            stop = np.searchsorted(key, right, side="right")
            self._shift[number] = start - total
            total = total + (stop - start).astype(np.int32)
            self._ends[number] = total
        nearest, _ = cKDTree(terminals).query(cards)
        self.reachable: NDArray[np.bool_] = nearest < radius
        """bool [n]: whether the card has any terminal; draw only for those that have."""

    def draw(self, card: NDArray[np.int32], random: np.random.Generator) -> NDArray[np.int32]:
        """Return a terminal int32 [k] for each row of ``card`` int32 [k] (reachable cards only)."""
        drawn = np.empty(len(card), np.int32)
        for start in range(0, len(card), BLOCK):
            block = card[start : start + BLOCK]
            drawn[start : start + BLOCK] = self._draw_block(block, random)
        return drawn

    def _draw_block(
        self, card: NDArray[np.int32], random: np.random.Generator
    ) -> NDArray[np.int32]:
        found = np.empty(len(card), np.int32)
        pending = np.arange(len(card))
        while len(pending):
            row = self._candidate(card, random)
            offset = self._xy[row] - self._cards[card]
            inside = (offset * offset).sum(axis=1) < self._radius**2
            found[pending[inside]] = row[inside]
            pending, card = pending[~inside], card[~inside]
        drawn: NDArray[np.int32] = self._terminal[found]
        return drawn

    def _candidate(self, card: NDArray[np.int32], random: np.random.Generator) -> NDArray[np.int32]:
        number = (random.random(len(card)) * self._ends[-1][card]).astype(np.int32)
        strip = np.zeros(len(card), np.intp)
        for ends in self._ends[:-1]:
            strip += ends[card] <= number
        row: NDArray[np.int32] = number + self._shift[strip, card]
        return row
