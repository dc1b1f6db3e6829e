"""Which sets of channels go, so that the net fits a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kernels.compression.pruning.channel_sets import ChannelSets, Mask
from kernels.compression.pruning.criteria import Scores

Scope = Literal["global", "layer"]


def keep_within(
    sets: ChannelSets,
    scores: Scores,
    fits: Callable[[Mask], bool],
    *,
    scope: Scope = "global",
    least: float = 0.1,
    multiple: int = 8,
) -> tuple[Mask, bool]:
    """Return the sets that are kept, as many as fit, and whether they do; else the fewest.

    Args:
        sets: All sets.
        scores: Importance of each; the least important go first.
        fits: Whether a choice is within the budget; fewer sets never cost more.
        scope: ``global``: the least important of all; ``layer``: the same share of each family.
        least: Share of each family that stays whatever the scores are.
        multiple: Families keep multiples of so many sets, for vector units; a family that cannot
            is left at its own size.
    """
    order = _order(sets, scores, scope)
    floor = _floor(sets, least)

    def kept(gone: int) -> Mask:
        mask = np.ones(len(sets), dtype=bool)
        mask[order[:gone]] = False
        return _rounded(sets, scores, mask, floor, multiple)

    low, high = 0, len(order)
    if not fits(kept(high)):
        return kept(high), False
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(kept(middle)) else (middle + 1, high)
    return kept(low), True


def keep_share(sets: ChannelSets, scores: Scores, share: float, *, multiple: int = 8) -> Mask:
    """Return the sets of a share of each family's channels; larger shares hold smaller ones.

    Args:
        sets: All sets.
        scores: Importance of each; the most important stay.
        share: In (0, 1].
        multiple: Families keep multiples of so many channels, where they have as many.
    """
    none = np.zeros(len(sets), dtype=bool)
    return _rounded(sets, scores, none, _floor(sets, share), multiple)


def _order(sets: ChannelSets, scores: Scores, scope: Scope) -> NDArray[np.int64]:
    """Return the sets in the order in which they go."""
    if scope == "global":
        return np.argsort(scores, kind="stable")
    # By their rank within the family, as a share of it.
    rank = np.empty(len(sets))
    for family in range(len(sets.families)):
        ours = np.flatnonzero(sets.family == family)
        ranked = ours[np.argsort(scores[ours], kind="stable")]
        rank[ranked] = (np.arange(len(ours)) + 0.5) / len(ours)
    return np.argsort(rank, kind="stable")


def _floor(sets: ChannelSets, least: float) -> list[int]:
    """Return how many sets each family keeps at least: one, whatever the share."""
    counts = np.bincount(sets.family, minlength=len(sets.families))
    return [max(1, int(np.ceil(least * count))) for count in counts]


def _rounded(
    sets: ChannelSets, scores: Scores, mask: Mask, floor: list[int], multiple: int
) -> Mask:
    """Bring back the most important sets of each family up to a multiple, and to its least."""
    for family, fewest in enumerate(floor):
        ours = np.flatnonzero(sets.family == family)
        wanted = max(int(mask[ours].sum()), fewest)
        wanted = min(-(-wanted // multiple) * multiple, len(ours))
        best = ours[np.argsort(-scores[ours], kind="stable")]
        mask[ours] = False
        mask[best[:wanted]] = True
    return mask
