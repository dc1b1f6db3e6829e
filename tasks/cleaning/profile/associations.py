"""Which columns go together: numbers with numbers, categories with categories, both mixed.

Spearman's and Pearson's correlation; Cramer's V corrected for bias (Bergsma 2013, a correction
without which V grows with the number of levels); the correlation ratio eta with Kelley's correction
(epsilon squared). A pair is reported where it is strong enough and would not come by chance among
all pairs looked at (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.profile.values import Floats
from tasks.cleaning.repair.votes import MISSING, Codes

Measure = Literal["spearman", "cramers_v", "eta"]
LEAST_ROWS = 30
MOST_LEVELS = 200
CHANCE = 0.01
"""Most probability that any pair is reported by chance."""


@dataclass(frozen=True, slots=True)
class Association:
    """Two columns that go together.

    Attributes:
        left: A column.
        right: Another; for ``eta`` the numbers.
        measure: ``spearman`` (-1 to 1), ``cramers_v`` and ``eta`` (0 to 1).
        value: Its strength.
        pearson: Pearson's correlation where both are numbers, else None.
        rows: Rows in which both are filled.
    """

    left: str
    right: str
    measure: Measure
    value: float
    pearson: float | None
    rows: int


def associations(
    numbers: Mapping[str, Floats], categories: Mapping[str, Codes], *, least: float = 0.3
) -> list[Association]:
    """Return pairs of columns that go together, the strongest first.

    Args:
        numbers: Column -> [rows] number, NaN where there is none.
        categories: Column -> [rows] code, -1 where missing; those with more than ``MOST_LEVELS``
            values are left out.
        least: Least strength.
    """
    levels = {n: c for n, c in categories.items() if 1 < c.max(initial=-1) + 1 <= MOST_LEVELS}
    ranks = {name: _ranks(values) for name, values in numbers.items()}
    tested = len(numbers) + len(levels)
    limit = CHANCE / max(tested * (tested - 1) // 2, 1)
    found = [
        one
        for left, right in combinations(numbers, 2)
        if (one := _numbers(left, right, numbers, ranks, limit)) is not None
    ]
    for left, right in combinations(levels, 2):
        value, p, rows = cramers_v(levels[left], levels[right])
        if p <= limit:
            found.append(Association(left, right, "cramers_v", value, None, rows))
    for left, group in levels.items():
        for right, number in numbers.items():
            if left == right:
                continue
            value, p, rows = correlation_ratio(group, number)
            if p <= limit:
                found.append(Association(left, right, "eta", value, None, rows))
    strong = [one for one in found if abs(one.value) >= least]
    return sorted(strong, key=lambda one: -abs(one.value))


def _numbers(
    left: str,
    right: str,
    numbers: Mapping[str, Floats],
    ranks: Mapping[str, Floats],
    limit: float,
) -> Association | None:
    x, y = numbers[left], numbers[right]
    both = np.isfinite(x) & np.isfinite(y)
    rows = int(both.sum())
    if rows < LEAST_ROWS:
        return None
    gaps = rows < max(np.isfinite(x).sum(), np.isfinite(y).sum())
    first, second = ranks[left][both], ranks[right][both]
    value = _pearson(_ranks(first), _ranks(second)) if gaps else _pearson(first, second)
    if _chance_of(value, rows) > limit:
        return None
    return Association(left, right, "spearman", value, _pearson(x[both], y[both]), rows)


def _ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, nan_policy="omit"), np.float64)


def _pearson(x: Floats, y: Floats) -> float:
    """Return the correlation, 0 where a side does not vary."""
    x, y = x / max(np.abs(x).max(), 1e-300), y / max(np.abs(y).max(), 1e-300)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip((x @ y) / scale, -1.0, 1.0)) if scale > 1e-12 * len(x) else 0.0


def _chance_of(correlation: float, rows: int) -> float:
    """Return the two-sided p of a correlation by Fisher's z."""
    from scipy.special import ndtr

    z = float(np.arctanh(np.clip(correlation, -1 + 1e-15, 1 - 1e-15)) * np.sqrt(rows - 3))
    return float(2.0 * ndtr(-abs(z)))


def cramers_v(left: Codes, right: Codes) -> tuple[float, float, int]:
    """Return Cramer's V corrected for bias, its p (chi-square), and the rows that both fill.

    >>> codes = np.tile([0, 1, 2], 40)
    >>> round(cramers_v(codes, codes)[0], 6)
    1.0
    """
    both = (left != MISSING) & (right != MISSING)
    rows = int(both.sum())
    if rows < LEAST_ROWS:
        return 0.0, 1.0, rows
    table = _crosstab(left[both], right[both])
    r, c = table.shape
    if min(r, c) < 2:
        return 0.0, 1.0, rows
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / rows
    statistic = float(((table - expected) ** 2 / expected).sum())
    from scipy.special import chdtrc

    freedom = (r - 1) * (c - 1)
    phi = max(0.0, statistic / rows - freedom / (rows - 1))
    width = min(r - (r - 1) ** 2 / (rows - 1), c - (c - 1) ** 2 / (rows - 1)) - 1
    value = float(np.sqrt(min(phi / width, 1.0))) if width > 0 else 0.0
    return value, float(chdtrc(freedom, statistic)), rows


def _crosstab(left: Codes, right: Codes) -> NDArray[np.float64]:
    """Return counts of every pair of levels that occur."""
    _, left = np.unique(left, return_inverse=True)
    _, right = np.unique(right, return_inverse=True)
    width = int(right.max()) + 1
    counts = np.bincount(left * width + right, minlength=(int(left.max()) + 1) * width)
    return counts.reshape(-1, width).astype(np.float64)


def correlation_ratio(group: Codes, values: Floats) -> tuple[float, float, int]:
    """Return eta corrected for bias, its p (F test), and the rows that both fill.

    >>> group = np.repeat([0, 1], 50)
    >>> correlation_ratio(group, group + 0.0)[0]
    1.0
    """
    both = (group != MISSING) & np.isfinite(values)
    rows = int(both.sum())
    if rows < LEAST_ROWS:
        return 0.0, 1.0, rows
    _, place = np.unique(group[both], return_inverse=True)
    x = values[both] / max(np.abs(values[both]).max(), 1e-300)
    x = x - x.mean()
    size = np.bincount(place)
    between = float((np.bincount(place, weights=x) ** 2 / size).sum())
    total, k = float(x @ x), len(size)
    if k < 2 or rows <= k or total <= 1e-24 * rows:
        return 0.0, 1.0, rows
    from scipy.special import fdtrc

    within = max(total - between, 0.0)
    if within <= 1e-12 * total:
        return 1.0, 0.0, rows
    ratio = (between / (k - 1)) / (within / (rows - k))
    corrected = 1.0 - (within / (rows - k)) / (total / (rows - 1))
    return float(np.sqrt(max(corrected, 0.0))), float(fdtrc(k - 1, rows - k, ratio)), rows
