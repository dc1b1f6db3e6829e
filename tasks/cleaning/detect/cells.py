"""All detectors that need no label, over one table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from tasks.cleaning.findings import joined

if TYPE_CHECKING:
    from tasks.cleaning.detect.outliers import OutlierConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DetectorBudget:
    """How much a run's detectors may cost.

    Attributes:
        cells: Largest table that a detector looks at, rows times columns.
        seconds: No detector begins later than this after the first.
    """

    cells: int = 50_000_000
    seconds: float = 60.0


def _detectors(
    frame: pl.DataFrame, least: float, config: OutlierConfig | None
) -> Mapping[str, Callable[[], pl.DataFrame]]:
    from tasks.cleaning.detect.combinations import impossible_combinations
    from tasks.cleaning.detect.outliers import outliers
    from tasks.cleaning.detect.patterns import rare_patterns
    from tasks.cleaning.detect.relations import slipped_units
    from tasks.cleaning.detect.sequences import key_faults

    return {
        "outliers": lambda: outliers(frame, least=least, config=config),
        "slipped units": lambda: slipped_units(frame),
        "keys and sequences": lambda: key_faults(frame),
        "rare patterns": lambda: rare_patterns(frame, least=least),
        "impossible combinations": lambda: impossible_combinations(frame, least=least),
    }


def doubtful_cells(
    frame: pl.DataFrame, *, least: float = 0.5, config: OutlierConfig | None = None
) -> pl.DataFrame:
    """Return findings of all detectors, a cell once per rule that speaks against it.

    Args:
        frame: Texts.
        least: Findings less sure than this are left out; below one half they are for review.
        config: Weights of the evidence against numbers.
    """
    found = joined(detect() for detect in _detectors(frame, least, config).values())
    return found.filter(pl.col("confidence") >= least)


def affordable_cells(
    frame: pl.DataFrame, *, least: float, budget: DetectorBudget
) -> tuple[pl.DataFrame, list[str]]:
    """Return what the detectors find that the budget allows, and a note for each one skipped.

    Args:
        frame: Texts.
        least: Findings less sure than this are left out.
        budget: What they may cost.
    """
    parts, notes, began = [], [], time.monotonic()
    for name, detect in _detectors(frame, least, None).items():
        taken = time.monotonic() - began
        if frame.height * frame.width > budget.cells:
            notes.append(f"{name} not looked for: more than {budget.cells:,} cells")
        elif taken > budget.seconds:
            notes.append(f"{name} not looked for: the detectors before took {taken:.0f} s")
        else:
            parts.append(detect())
    for note in notes:
        log.warning(note)
    return joined(parts).filter(pl.col("confidence") >= least), notes
