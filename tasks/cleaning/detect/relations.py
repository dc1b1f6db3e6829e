"""Relations between columns of numbers: what the others let one expect, and slipped units.

Columns are compared by normal scores (ranks), so that area against length is a straight line and
one wild value moves nothing; each cell is predicted by a ridge regression without its own row
(leave-one-out in closed form).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tasks.cleaning.detect.numbers import (
    NORMAL_QUARTILE,
    Floats,
    Numbers,
    normal_scores,
    numbers_of,
)
from tasks.cleaning.findings import findings_of, joined

VERSION = "relations/1"
RIDGE = 3.0
LEAST_ROWS = 20
LEAST_DISTINCT = 10
MOST_COLUMNS = 40
UNIT_NOISE = 0.08  # most robust deviation (in powers of ten) at which a factor 10 stands out
UNIT_FIX = 3.0  # both columns vary at least this many times as much as their ratio
MOST_SLIPS = 0.05  # share of the rows of a pair
UNIT_REACH = 0.2  # a slip lies this near to a whole power of ten
MOST_POWERS = 6
SLIP_CONFIDENCE = 0.9


def rank_table(columns: Sequence[Numbers], height: int) -> dict[str, Floats]:
    """Return normal scores per row [height] of the columns that have ranks, 0 where missing."""
    table = {}
    for numbers in columns[:MOST_COLUMNS]:
        if numbers.distinct > LEAST_DISTINCT:
            scores = np.zeros(height)
            scores[numbers.rows] = normal_scores(numbers.values)
            table[numbers.name] = scores
    return table


def expected_ranks(numbers: Numbers, table: dict[str, Floats]) -> tuple[Floats, float]:
    """Return the normal score that the other columns predict for each cell [n], and R squared."""
    others = [scores[numbers.rows] for name, scores in table.items() if name != numbers.name]
    n = len(numbers.rows)
    if numbers.name not in table or not others or n < LEAST_ROWS:
        return np.zeros(n), 0.0
    x = np.column_stack([np.ones(n), *others])
    y = table[numbers.name][numbers.rows]
    penalty = RIDGE * np.eye(x.shape[1])
    penalty[0, 0] = 0.0
    inverse = np.linalg.inv(x.T @ x + penalty)
    leverage = ((x @ inverse) * x).sum(1)
    rest = (y - x @ (inverse @ (x.T @ y))) / (1 - np.clip(leverage, 0, 0.95))
    return y - rest, float(1 - (rest**2).sum() / (y**2).sum())


def slipped_units(frame: pl.DataFrame) -> pl.DataFrame:
    """Return cells a power of ten beside what one other column fixes, with the value it should be.

    Looks at pairs of positive columns whose ratio is constant within UNIT_NOISE powers of ten; the
    cell of a pair that is out in its own column against a third, or is farther out, is blamed.
    """
    found = [numbers_of(frame[name]) for name in frame.columns]
    columns = [c for c in found if c is not None and (c.values > 0).all()][:MOST_COLUMNS]
    logs = []
    for numbers in columns:
        log = np.full(frame.height, np.nan)
        log[numbers.rows] = np.log10(numbers.values)
        logs.append(log)
    blamed: dict[tuple[int, int], tuple[int, int]] = {}  # row, column -> votes, power
    for i, first in enumerate(logs):
        for j in range(i + 1, len(logs)):
            for row, power in _slips(first, logs[j]):
                near_i = abs(first[row] - np.nanmedian(first))
                near_j = abs(logs[j][row] - np.nanmedian(logs[j]))
                cell, sign = ((row, i), power) if near_i >= near_j else ((row, j), -power)
                votes, _ = blamed.get(cell, (0, 0))
                blamed[cell] = (votes + 1, sign)
    parts = [
        _slip(frame, columns[column], row, power, votes)
        for (row, column), (votes, power) in sorted(blamed.items())
    ]
    return joined(parts)


def _slips(first: Floats, second: Floats) -> list[tuple[int, int]]:
    """Return rows whose log ratio is off by a whole power of ten, with the power."""
    known = np.flatnonzero(np.isfinite(first) & np.isfinite(second))
    if len(known) < LEAST_ROWS:
        return []
    ratio = (first - second)[known]
    off = ratio - np.median(ratio)
    noise = _deviation(off)
    spread = min(_deviation(first[known]), _deviation(second[known]))
    if noise > UNIT_NOISE or spread < max(UNIT_FIX * noise, UNIT_NOISE):
        return []
    powers = np.round(off).astype(int)
    hit = (powers != 0) & (np.abs(powers) <= MOST_POWERS) & (np.abs(off - powers) <= UNIT_REACH)
    if hit.mean() > MOST_SLIPS:
        return []
    return [(int(known[i]), int(powers[i])) for i in np.flatnonzero(hit)]


def _deviation(values: Floats) -> float:
    """Return the median distance from the median, scaled to a normal deviation."""
    return float(np.median(np.abs(values - np.median(values))) / NORMAL_QUARTILE)


def _slip(frame: pl.DataFrame, numbers: Numbers, row: int, power: int, votes: int) -> pl.DataFrame:
    value = numbers.values[np.searchsorted(numbers.rows, row)]
    return findings_of(
        pl.DataFrame({"row": [row], "observed": [frame[numbers.name][row]]}),
        column=numbers.name,
        rule="unit-slip",
        suggestion=f"{value / 10.0**power:.15g}",
        expected=f"1e{-power:+d} times as much",
        premise=f"the ratio to {votes} other columns is constant elsewhere",
        confidence=SLIP_CONFIDENCE,
        detector_version=VERSION,
    )
