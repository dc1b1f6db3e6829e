"""Columns, and pairs of columns, that name every row once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tasks.cleaning.repair.votes import MISSING, Codes

LEAST_ROWS = 2
TRIAL = 2_000
"""Rows that a pair must tell apart before the whole table is asked."""


@dataclass(frozen=True, slots=True)
class CandidateKey:
    """Columns that may be a key.

    Attributes:
        columns: One or two.
        distinct_share: Distinct values per row, 1 for a key.
    """

    columns: tuple[str, ...]
    distinct_share: float


def candidate_keys(
    codes: Mapping[str, Codes], *, least: float = 0.99, most: int = 20
) -> list[CandidateKey]:
    """Return keys, and columns that are nearly one, the surest and shortest first.

    A column is listed where it is filled everywhere and at most 1 - ``least`` of the rows repeat
    another's value; a pair only where it is an exact key and neither column is a near one.

    Args:
        codes: Column -> [rows] code of each value, -1 where missing.
        least: Least share of distinct values of a near key.
        most: Most pairs.
    """
    filled = {name: code for name, code in codes.items() if not (code == MISSING).any()}
    rows = max((len(code) for code in codes.values()), default=0)
    if rows < LEAST_ROWS:
        return []
    distinct = {name: len(np.unique(code)) for name, code in filled.items()}
    single = [
        CandidateKey((name,), count / rows)
        for name, count in distinct.items()
        if count >= least * rows
    ]
    single.sort(key=lambda key: -key.distinct_share)
    taken = {key.columns[0] for key in single}
    rest = [name for name in filled if name not in taken]
    pairs: list[CandidateKey] = []
    for left, right in combinations(rest, 2):
        if distinct[left] * distinct[right] >= rows and _tells_apart(filled[left], filled[right]):
            pairs.append(CandidateKey((left, right), 1.0))
            if len(pairs) == most:
                break
    return single + pairs


def _tells_apart(left: Codes, right: Codes) -> bool:
    """Return whether no two rows are alike in both columns; most pairs fail on a few rows."""
    width = int(right.max()) + 1
    both = left * width + right
    trial = both[:: max(1, len(both) // TRIAL)]
    return len(np.unique(trial)) == len(trial) and len(np.unique(both)) == len(both)
