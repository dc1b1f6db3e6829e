"""Sequences: columns that rise or fall from row to row, cells that leave them, gaps and repeats."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import polars as pl

from tasks.cleaning.detect.numbers import Bools, Floats, Numbers, numbers_of
from tasks.cleaning.findings import findings_of, joined

VERSION = "sequences/1"
LEAST_IN_ORDER = 0.65
LEAST_DISTINCT = 0.8
LEAST_CELLS = 7
GAP_STEPS = 20
KEY_DISTINCT = 0.98
GAP_CONFIDENCE = 0.1  # rows left out are common and are not a wrong cell
REPEAT_CONFIDENCE = 0.4  # one of two cells, or a table that may repeat


@dataclass(frozen=True, slots=True)
class Sequence:
    """How a column runs.

    Attributes:
        kept: Cells of the longest part that never turns back [n].
        share: Their share of the column.
    """

    kept: Bools
    share: float


def longest_rise(values: Floats) -> Bools:
    """Return the cells of the longest nondecreasing subsequence [n]; n log n."""
    tails: list[float] = []
    ends: list[int] = []
    before = [-1] * len(values)
    for i, value in enumerate(values.tolist()):
        k = bisect_right(tails, value)
        if k == len(tails):
            tails.append(value)
            ends.append(i)
        else:
            tails[k], ends[k] = value, i
        before[i] = ends[k - 1] if k else -1
    kept = np.zeros(len(values), bool)
    at = ends[-1] if ends else -1
    while at >= 0:
        kept[at] = True
        at = before[at]
    return kept


def sequence_of(numbers: Numbers) -> Sequence | None:
    """Return the sequence that a column of mostly different numbers forms, None where it does not.

    Of a random order about 2 / sqrt(n) are kept, so short columns rarely pass by chance.
    """
    n = len(numbers.values)
    if n < LEAST_CELLS or numbers.distinct <= LEAST_DISTINCT * n:
        return None
    up, down = longest_rise(numbers.values), longest_rise(-numbers.values)
    kept = up if up.sum() >= down.sum() else down
    share = float(kept.mean())
    return Sequence(kept, share) if share >= LEAST_IN_ORDER else None


def key_faults(frame: pl.DataFrame) -> pl.DataFrame:
    """Return repeats in columns of whole numbers that are otherwise keys, and holes in their runs.

    A hole is told at the row after it: its step is GAP_STEPS times the usual one or more.
    """
    parts = []
    for name in frame.columns:
        numbers = numbers_of(frame[name])
        if numbers is None or (numbers.values != np.round(numbers.values)).any():
            continue
        n = len(numbers.values)
        if KEY_DISTINCT * n <= numbers.distinct < n:
            parts.append(_repeats(frame, numbers))
        found = sequence_of(numbers)
        if found is not None:
            parts.append(_gaps(frame, numbers, found))
    return joined(parts)


def _repeats(frame: pl.DataFrame, numbers: Numbers) -> pl.DataFrame:
    rows = numbers.rows[numbers.counts > 1]
    return findings_of(
        pl.DataFrame({"row": rows, "observed": frame[numbers.name].gather(rows)}),
        column=numbers.name,
        rule="key-repeated",
        expected="a number that occurs once",
        premise=f"{numbers.distinct} different numbers in {len(numbers.values)} cells",
        confidence=REPEAT_CONFIDENCE,
        detector_version=VERSION,
    )


def _gaps(frame: pl.DataFrame, numbers: Numbers, found: Sequence) -> pl.DataFrame:
    values, rows = numbers.values[found.kept], numbers.rows[found.kept]
    steps = np.abs(np.diff(values))
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    after = np.flatnonzero(steps >= GAP_STEPS * usual) + 1 if usual else np.zeros(0, np.int64)
    return findings_of(
        pl.DataFrame({"row": rows[after], "observed": frame[numbers.name].gather(rows[after])}),
        column=numbers.name,
        rule="sequence-gap",
        expected=f"a step near {usual:g}",
        premise="the column runs in one direction",
        confidence=GAP_CONFIDENCE,
        detector_version=VERSION,
    )
