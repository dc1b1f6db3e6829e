"""What detectors say: one row per doubtful cell, with what would be put there and how sure that is.

Detectors are plain functions from a frame of texts (:func:`text_frame`) to a frame of
``FINDINGS``; whether a suggestion is carried out is decided in ``repair/tiers.py``, not by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

FINDINGS: Mapping[str, Any] = {
    "row": pl.Int64,  # number of the row in its source, from 0
    "column": pl.String,
    "rule": pl.String,  # id of the rule, for example "dependency:zip->city"
    "observed": pl.String,  # null: the value was missing
    "suggestion": pl.String,  # null where "repairable" is set: the value is to become missing
    "repairable": pl.Boolean,  # whether there is a suggestion
    "expected": pl.String,  # for people
    "premise": pl.String,  # what the suggestion rests on, for people
    "confidence": pl.Float64,  # that the observed value is wrong, calibrated where it can be
    "detector_version": pl.String,
}
"""Polars schema of findings."""


def no_findings() -> pl.DataFrame:
    """Return a frame of ``FINDINGS`` without rows."""
    return pl.DataFrame(schema=dict(FINDINGS))


def joined(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return the findings of several detectors in order of row and column, ties as given."""
    return pl.concat([no_findings(), *parts]).sort("row", "column", maintain_order=True)


def findings_of(cells: pl.DataFrame, **constants: Any) -> pl.DataFrame:
    """Return findings from a frame of cells and what is the same for all of them.

    Args:
        cells: Some columns of ``FINDINGS``; ``repairable`` defaults to whether there is a
            suggestion, other columns left out become null.
        constants: Values of columns that are the same for all cells.
    """
    frame = cells.with_columns(pl.lit(value).alias(name) for name, value in constants.items())
    if "suggestion" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias("suggestion"))
    if "repairable" not in frame.columns:
        frame = frame.with_columns(pl.col("suggestion").is_not_null().alias("repairable"))
    missing = [pl.lit(None).alias(name) for name in FINDINGS if name not in frame.columns]
    return frame.with_columns(missing).select(
        pl.col(name).cast(kind) for name, kind in FINDINGS.items()
    )
