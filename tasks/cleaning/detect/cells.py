"""All detectors that need no label, over one table."""

from __future__ import annotations

import polars as pl

from tasks.cleaning.detect.combinations import impossible_combinations
from tasks.cleaning.detect.outliers import OutlierConfig, outliers
from tasks.cleaning.detect.patterns import rare_patterns
from tasks.cleaning.detect.relations import slipped_units
from tasks.cleaning.detect.sequences import key_faults
from tasks.cleaning.findings import joined


def doubtful_cells(
    frame: pl.DataFrame, *, least: float = 0.5, config: OutlierConfig | None = None
) -> pl.DataFrame:
    """Return findings of all detectors, a cell once per rule that speaks against it.

    Args:
        frame: Texts.
        least: Findings less sure than this are left out; below one half they are for review.
        config: Weights of the evidence against numbers.
    """
    found = joined(
        (
            outliers(frame, least=least, config=config),
            slipped_units(frame),
            key_faults(frame),
            rare_patterns(frame, least=least),
            impossible_combinations(frame, least=least),
        )
    )
    return found.filter(pl.col("confidence") >= least)
