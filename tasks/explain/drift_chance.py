"""How far periods are from a reference, and what chance alone would give.

Chance is drawn from the reference (bootstrap; clusters are drawn whole). The limits of all periods
hold the level together: each draw gives every period a distance, and the level's quantile is that
of the largest, each in units of its period's mean (max-T: Westfall and Young 1993). So a few
hundred draws suffice however many periods there are; a quantile of each alone at ``1 - level /
periods`` (Bonferroni) lies beyond what they can tell, and the limit would be too low.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Rows = NDArray[np.intp]

PARTS = 2_000
"""Clusters beyond twice that are drawn in at least so many random parts, as precise and faster."""

BEYOND = 20
"""Draws that lie beyond a limit at the least: fewer leave open where it is."""

CELLS = 2**21
"""Weights that are held at once: 16 MiB, and as much for what they are made of."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a period is from the reference by one profile.

    Attributes:
        value: Total variation, 0 to 1.
        low: Lower end of its 95 % interval.
        high: Upper end.
        limit: What chance alone exceeds in any period with the level's probability.
    """

    value: float
    low: float
    high: float
    limit: float

    @property
    def alarm(self) -> bool:
        """Whether it is beyond chance."""
        return self.value > self.limit


class Judge:
    """Distances from the reference by both profiles, with what chance would give."""

    def __init__(
        self, values: Float, clusters: NDArray[np.int64], reference: Rows, draws: int, seed: int
    ) -> None:
        """Take the reference.

        Args:
            values: Contributions ``[n, P]``.
            clusters: int64 ``[n]``, rows that belong together.
            reference: Places of its rows.
            draws: Of the bootstrap, at the least.
            seed: Of the draws.
        """
        self._tables = np.hstack([np.abs(values), firsts(values)])
        self._clusters = clusters
        self._draws = draws
        self._rng = np.random.default_rng(seed)
        self._size = len(reference)
        self._reference = self._sums(reference)
        self._profile = _shares(self._reference.sum(axis=0))

    def distances(self, periods: Sequence[Rows], level: float) -> list[tuple[Distance, Distance]]:
        """Return the distances of each period by both profiles.

        Args:
            periods: Places of the rows of each.
            level: Chance that any of them is beyond its limit although nothing changed.
        """
        base = self._drawn(self._reference, None, max(self._draws, math.ceil(BEYOND / level)))
        scales = np.empty((len(periods), 2))
        largest = np.zeros((len(base), 2))
        made = []
        for place, rows in enumerate(periods):
            sums = self._sums(rows)
            by_rows = round(len(self._reference) * len(rows) / self._size)
            # No more clusters than the period has: its rows may be of fewer than the reference's.
            chance = self._drawn(self._reference, max(1, min(by_rows, len(sums))), len(base))
            distances = _variation(chance, base)
            scales[place] = distances.mean(axis=0)
            largest = np.maximum(largest, distances / np.where(scales[place], scales[place], 1.0))
            made.append(self._interval(sums, base))
        limits = scales * np.quantile(largest, 1 - level, axis=0)
        return [
            (_distance(own[:, 0], limit[0]), _distance(own[:, 1], limit[1]))
            for own, limit in zip(made, limits, strict=True)
        ]

    def _interval(self, sums: Float, base: Float) -> Float:
        """Return distance, lower and upper end ``[3, 2]`` of a period of clusters ``[c, 2P]``."""
        value = _variation(_shares(sums.sum(axis=0)), self._profile)
        other = _variation(self._drawn(sums, None, self._draws), base[: self._draws])
        # Reflected: a drawn distance holds the noise of the draw besides that of the rows.
        high, low = 2 * value - np.quantile(other, [0.025, 0.975], axis=0)
        return np.stack([value, np.maximum(low, 0.0), np.clip(high, 0.0, 1.0)])

    def _sums(self, rows: Rows) -> Float:
        """Return the sums ``[c, 2P]`` of both tables over the clusters of some rows."""
        own = self._clusters[rows]
        _, counts = np.unique(own, return_counts=True)
        order = np.argsort(own, kind="stable")
        sums: Float = np.add.reduceat(self._tables[rows[order]], np.cumsum(counts) - counts)
        return sums

    def _drawn(self, sums: Float, size: int | None, draws: int) -> Float:
        """Return shares ``[draws, 2, P]`` of so many clusters drawn anew; None: as there are."""
        drawn = len(sums) if size is None else size
        parts = len(sums) // max(1, min(drawn, len(sums)) // PARTS)
        if parts < len(sums):
            drawn = round(drawn * parts / len(sums))
            starts = np.arange(parts) * len(sums) // parts
            sums = np.add.reduceat(sums[self._rng.permutation(len(sums))], starts)
        found = np.empty((draws, sums.shape[1]))
        step = max(1, CELLS // len(sums))
        for start in range(0, draws, step):
            block = min(step, draws - start)
            found[start : start + block] = self._weights(len(sums), drawn, block) @ sums
        return _shares(found)

    def _weights(self, count: int, drawn: int, draws: int) -> Float:
        """Return how often each of ``count`` is drawn ``[draws, count]``."""
        if drawn > count:
            even = np.full(count, 1 / count)
            return self._rng.multinomial(drawn, even, size=draws).astype(np.float64)
        picked = self._rng.integers(count, size=(draws, drawn))  # half the time of a multinomial
        picked += np.arange(draws)[:, None] * count
        weights = np.bincount(picked.ravel(), minlength=draws * count)
        return weights.reshape(draws, count).astype(np.float64)


def firsts(values: Float) -> Float:
    """Return 1 for the first reason of each row ``[n, P]``, else 0."""
    found = np.zeros_like(values)
    found[np.arange(len(values)), np.argmax(values, axis=1)] = 1.0
    return found


def _distance(interval: Float, limit: float) -> Distance:
    value, low, high = interval.tolist()
    return Distance(value, low, high, float(limit))


def _shares(totals: Float) -> Float:
    """Return the shares ``[..., 2, P]`` of the players in the totals ``[..., 2P]`` of tables."""
    tables = totals.reshape(*totals.shape[:-1], 2, -1)
    total = tables.sum(axis=-1, keepdims=True)
    return np.divide(tables, total, out=np.zeros_like(tables), where=total > 0)


def _variation(one: Float, two: Float) -> Float:
    half: Float = 0.5 * np.abs(one - two).sum(axis=-1)
    return half
