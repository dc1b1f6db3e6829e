"""Other cases: doubtful cells that are so by what their row is, not by accident."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.repair.votes import MISSING, Codes

SYSTEMATIC = 0.5
"""Where this share of the rows alike in any column is doubtful, they are another case."""
SYSTEMATIC_ROWS = 3
"""Fewest doubtful rows that make a case."""


def systematic(doubtful: NDArray[np.bool_], codes: Iterable[Codes]) -> NDArray[np.bool_]:
    """Return the doubtful cells that are another case, and no errors.

    Errors fall on rows by chance; where most of the rows of one state are doubtful in a column,
    what holds elsewhere does not hold in that state.

    Args:
        doubtful: bool [rows] cells of one column.
        codes: int64 [rows] codes of every other column, -1 where missing.
    """
    found = np.zeros(len(doubtful), bool)
    for code in codes:
        filled = code != MISSING
        if not (filled & doubtful).any():
            continue
        rows = np.bincount(code[filled])
        wrong = np.bincount(code[filled & doubtful], minlength=len(rows))
        case = (wrong >= SYSTEMATIC_ROWS) & (wrong >= SYSTEMATIC * rows)
        found |= filled & doubtful & case[code]
    return found
