"""Whether odd cells fall at random: errors do, natural groups keep together.

Towns with another code stand in consecutive rows or share a county; a code that was mistyped now
and then does neither. Both are tested, and what is clearly not random is taken for natural.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import chdtrc

from tasks.cleaning.detect.numbers import Bools, numbers_of
from tasks.cleaning.repair.votes import MISSING, encoded

MOST_GROUPS = 12
LEAST_ODD = 3
SLICES = 6


def runs_z(odd: Bools) -> float:
    """Return the Wald-Wolfowitz z of odd cells in order of rows: far below 0 where they cluster."""
    n, k = len(odd), int(odd.sum())
    if k < LEAST_ODD or k > n - LEAST_ODD:
        return 0.0
    runs = 1 + int((odd[1:] != odd[:-1]).sum())
    mean = 1 + 2 * k * (n - k) / n
    variance = (mean - 1) * (mean - 2) / (n - 1)
    return float((runs - mean) / np.sqrt(max(variance, 1e-9)))


def groupings(frame: pl.DataFrame) -> Mapping[str, NDArray[np.int64]]:
    """Return a group per row for every column that makes some: its values, or slices of numbers.

    Columns of texts that hardly repeat make none. Values beyond the commonest MOST_GROUPS form one
    group, missing cells another.
    """
    made: dict[str, NDArray[np.int64]] = {}
    for name in frame.columns:
        numbers = numbers_of(frame[name])
        codes = np.asarray(encoded(frame[name])[0], np.int64)
        filled = codes[codes != MISSING]
        if len(filled) == 0:
            continue
        counts = np.bincount(filled)
        common = np.argsort(-counts, kind="stable")[:MOST_GROUPS]
        if counts[common].sum() >= 0.5 * len(filled):
            place = np.full(len(counts) + 1, MOST_GROUPS)
            place[common] = np.arange(len(common))
            made[name] = np.where(codes == MISSING, MOST_GROUPS + 1, place[codes])
        elif numbers is not None:
            edges = np.quantile(numbers.values, np.linspace(0, 1, SLICES + 1)[1:-1])
            group = np.full(frame.height, MOST_GROUPS + 1)
            group[numbers.rows] = np.searchsorted(edges, numbers.values)
            made[name] = group
    return made


def association(
    odd: Bools, rows: NDArray[np.int64], groups: Mapping[str, NDArray[np.int64]], without: str
) -> float:
    """Return -log10 of the least p (times columns tested) that odd cells are spread by chance.

    Args:
        odd: Which cells of a column are odd [n].
        rows: Their rows [n].
        groups: Result of :func:`groupings`.
        without: The column itself.
    """
    k = int(odd.sum())
    if k < LEAST_ODD or len(odd) - k < LEAST_ODD:
        return 0.0
    least, tested = 0.0, 0
    for name, group in groups.items():
        if name == without:
            continue
        here = group[rows]
        total = np.bincount(here)
        hits = np.bincount(here, weights=odd, minlength=len(total))
        seen = total > 0
        total, hits = total[seen], hits[seen]
        if len(total) < 2:
            continue
        tested += 1
        share = k / len(odd)
        # Groups too small for chi-square's approximation are judged by the rest together.
        small = total * share < 1.0
        if small.any() and not small.all():
            total = np.append(total[~small], total[small].sum())
            hits = np.append(hits[~small], hits[small].sum())
        expected = total * share
        statistic = ((hits - expected) ** 2 / np.maximum(expected * (1 - share), 1e-9)).sum()
        p = chdtrc(max(len(total) - 1, 1), statistic)
        least = max(least, -np.log10(max(p, 1e-300)))
    return max(0.0, float(least - np.log10(max(tested, 1))))
