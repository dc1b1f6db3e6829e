"""Patterns: cells whose kinds of characters are rare in a column that is written one way.

A pattern keeps punctuation and replaces digits by 9, capitals by A and small letters by a. Where
the COMMON commonest patterns of exact length cover a column they are used, else those with runs
drawn together; columns that neither covers are left alone.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import expit

from tasks.cleaning.detect.numbers import Bools, numbers_of
from tasks.cleaning.findings import findings_of, joined

VERSION = "patterns/1"
COMMON = 5
COVERED = 0.9
LEAST_CELLS = 30
MOST_RARE = 0.1
PRIOR = 5.0
"""Taken from the log-odds of the common patterns against the rare ones together: in a column where
seven cells in a thousand have a rare pattern, each is as likely right as wrong."""


def pattern_of(column: pl.Series, *, collapsed: bool) -> pl.Series:
    """Return the pattern of every text, runs of one kind drawn together if ``collapsed``."""
    times = "+" if collapsed else ""
    return (
        column.str.replace_all(rf"\p{{Lu}}{times}", "\ue000")
        .str.replace_all(rf"\p{{Ll}}{times}", "a")
        .str.replace_all(rf"\d{times}", "9")
        .str.replace_all("\ue000", "A", literal=True)
    )


def rare_patterns(frame: pl.DataFrame, *, least: float = 0.5) -> pl.DataFrame:
    """Return findings of cells with a rare pattern; in columns of numbers, of cells that are none.

    Args:
        frame: Texts.
        least: Findings less sure than this are left out.
    """
    parts = []
    for name in frame.columns:
        column = frame[name]
        if column.len() - column.null_count() < LEAST_CELLS:
            continue
        numbers = numbers_of(column)
        if numbers is not None:
            rare = column.is_not_null().to_numpy().copy()
            rare[numbers.rows] = False
            usual = "a number"
        else:
            found = _rare(column)
            if found is None:
                continue
            rare, usual = found
        share = rare.sum() / (column.len() - column.null_count())
        if not 0 < share <= MOST_RARE:
            continue
        confidence = float(expit(np.log((1 - share) / share) - PRIOR))
        if confidence >= least:
            rows = np.flatnonzero(rare)
            parts.append(
                findings_of(
                    pl.DataFrame({"row": rows, "observed": column.gather(rows)}),
                    column=name,
                    rule="rare-pattern",
                    expected=f"written like {usual}",
                    premise=f"{1 - share:.2%} of the column are",
                    confidence=confidence,
                    detector_version=VERSION,
                )
            )
    return joined(parts)


def _rare(column: pl.Series) -> tuple[Bools, str] | None:
    """Return which cells have a rare pattern and the commonest one."""
    for collapsed in (False, True):
        patterns = pattern_of(column, collapsed=collapsed)
        counts = patterns.drop_nulls().alias("text").value_counts(sort=True)
        common = counts.head(COMMON)
        filled = column.len() - column.null_count()
        if common["count"].head(COMMON).to_numpy().sum() >= COVERED * filled:
            # The common ones of less than a fiftieth of the column are rare, too.
            floor = filled * MOST_RARE / COMMON
            kept = common.filter(pl.col("count") >= floor)["text"]
            rare = ~patterns.is_in(kept.implode()) & column.is_not_null()
            return rare.to_numpy(), f"{kept[0]!r}"
    return None
