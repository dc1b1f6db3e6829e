"""Chooses the few candidates whose union has the best F1: greedily, then by exchange.

Maximum coverage is NP-hard; greedy choice is within 1 - 1/e of the best (Nemhauser, Wolsey and
Fisher 1978). F1 is not submodular, so that bound is no promise here. Exchanging one rule for
another until nothing is gained mends some of what greed got wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Floats = NDArray[np.float32]

LEAST_GAIN = 1e-3
"""F1 that one rule more must bring."""

NOISE = 1e-9
"""Of sums in another order."""


@dataclass(frozen=True)
class Cover:
    """Which candidates cover which rows; rows that none covers are left out where they do no harm.

    Attributes:
        wanted: float32 [C, P], 1 where a candidate covers a row that should be covered.
        others: float32 [C, N], 1 where it covers one that should not.
        wanted_weights: float64 [P].
        others_weights: float64 [N].
    """

    wanted: Floats
    others: Floats
    wanted_weights: Reals
    others_weights: Reals

    def f1(self, chosen: Sequence[int]) -> float:
        """Return the weighted F1 of the union of chosen candidates."""
        hits = self.wanted_weights[self.wanted[list(chosen)].any(axis=0)].sum()
        false = self.others_weights[self.others[list(chosen)].any(axis=0)].sum()
        return float(_f1(hits, false, self.wanted_weights.sum()))


def choose(cover: Cover, most: int, start: Sequence[int] = ()) -> list[int]:
    """Return places of at most ``most`` candidates.

    Args:
        cover: The candidates.
        most: Largest number chosen, those of ``start`` not counted.
        start: Candidates that are taken as given and not exchanged.
    """
    chosen: list[int] = []
    hits = cover.wanted[list(start)].sum(axis=0)
    false = cover.others[list(start)].sum(axis=0)
    while len(cover.wanted):
        value, place = _best(cover, hits, false)
        if len(chosen) < most and value > _value(cover, hits, false) + LEAST_GAIN:
            chosen.append(place)
            hits, false = hits + cover.wanted[place], false + cover.others[place]
            continue
        best, swap = _value(cover, hits, false) + NOISE, None
        for one in chosen:
            value, place = _best(cover, hits - cover.wanted[one], false - cover.others[one])
            if value > best:
                best, swap = value, (one, place)
        if swap is None:
            break
        old, new = swap
        chosen = [*(one for one in chosen if one != old), new]
        hits = hits + cover.wanted[new] - cover.wanted[old]
        false = false + cover.others[new] - cover.others[old]
    return _needed(cover, chosen, start)


def _needed(cover: Cover, chosen: list[int], start: Sequence[int]) -> list[int]:
    """Drop what others make useless."""
    for one in list(chosen):
        rest = [other for other in chosen if other != one]
        if cover.f1([*start, *rest]) >= cover.f1([*start, *chosen]):
            chosen = rest
    return chosen


def _best(cover: Cover, hits: Floats, false: Floats) -> tuple[float, int]:
    """Return the best F1 with one candidate more, and which."""
    more = cover.wanted @ (cover.wanted_weights * (hits == 0))
    worse = cover.others @ (cover.others_weights * (false == 0))
    total = cover.wanted_weights.sum()
    sums = cover.wanted_weights[hits > 0].sum(), cover.others_weights[false > 0].sum()
    values = _f1(sums[0] + more, sums[1] + worse, total)
    place = int(np.argmax(values))
    return float(values[place]), place


def _value(cover: Cover, hits: Floats, false: Floats) -> float:
    return float(
        _f1(
            cover.wanted_weights[hits > 0].sum(),
            cover.others_weights[false > 0].sum(),
            cover.wanted_weights.sum(),
        )
    )


def _f1(hits: Any, false: Any, total: float) -> Any:
    return 2 * hits / np.maximum(hits + false + total, 1e-300)
