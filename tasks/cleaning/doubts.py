"""The queue of a run: what a person should look at, the surest first, and never more than enough.

Findings of the detectors, of duplicates and of labels join those of the repair and of inferred
rules. Nothing here changes a cell or sets a row aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import Contract
from tasks.cleaning.detect.cells import DetectorBudget, affordable_cells
from tasks.cleaning.findings import joined


@dataclass(frozen=True, slots=True)
class ReviewConfig:
    """What is looked for beyond the contract, and how much of it is kept.

    Attributes:
        detectors: Whether the detectors run.
        least: Findings of detectors less sure than this are left out.
        most: Findings kept; the surest ones, the rest is counted by rule.
        budget: What the detectors may cost.
    """

    detectors: bool = True
    least: float = 0.3
    most: int = 10_000
    budget: DetectorBudget = field(default_factory=DetectorBudget)

    def __post_init__(self) -> None:
        """Reject a queue that holds nothing and a confidence that is none."""
        if self.most < 1:
            raise ValueError(f"most is {self.most}; a queue keeps one finding at least")
        if not 0.0 < self.least <= 1.0:
            raise ValueError(f"least is {self.least}; give a confidence above 0, at most 1")


@dataclass(frozen=True, slots=True)
class Queue:
    """Findings for a person.

    Attributes:
        findings: Those kept, in order of row and column.
        unlisted: Findings beyond the most that are kept, by rule.
        notes: What was not looked for, and why.
    """

    findings: pl.DataFrame
    unlisted: Mapping[str, int]
    notes: tuple[str, ...]


def doubts_about(
    frame: pl.DataFrame, rows: NDArray[np.int64], contract: Contract, config: ReviewConfig
) -> tuple[pl.DataFrame, list[str]]:
    """Return findings about clean rows that no rule of the contract made, and notes.

    Args:
        frame: Clean rows as texts.
        rows: int64 [clean rows] what findings number them by.
        contract: What the table must look like.
        config: What is looked for.
    """
    parts, notes = [], list[str]()
    if config.detectors:
        found, notes = affordable_cells(frame, least=config.least, budget=config.budget)
        parts.append(_undeclared(found, contract))
    label = contract.label
    if label is not None:
        from tasks.cleaning.contract.table_checks import telling_columns
        from tasks.cleaning.labels.table import wrong_labels

        telling = label.features or telling_columns(contract, label)
        found, more = wrong_labels(frame, label.column, telling)
        parts.append(found)
        notes = [*notes, *more]
    found = joined(parts)
    numbers = pl.Series("row", rows, pl.Int64)
    return found.with_columns(numbers.gather(found["row"])), notes


def queue_of(parts: list[pl.DataFrame], config: ReviewConfig, notes: list[str]) -> Queue:
    """Join findings: one for each cell and rule, the surest; of too many the surest ones."""
    found = joined(parts)
    surest = found.sort("confidence", descending=True, nulls_last=True, maintain_order=True)
    surest = surest.unique(["row", "column", "rule"], keep="first", maintain_order=True)
    kept, beyond = surest.head(config.most), surest.slice(config.most)
    unlisted = dict(sorted(beyond["rule"].value_counts().iter_rows()))
    if unlisted:
        notes = [
            *notes,
            f"{beyond.height:,} findings are not in the queue: the {config.most:,} surest are",
        ]
    return Queue(joined([kept]), unlisted, tuple(notes))


def _undeclared(found: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Leave out rare ways of writing in columns where a person said what may be written."""
    said = [
        name
        for name, column in contract.columns.items()
        if any(
            getattr(column, line) and line not in column.confidence
            for line in ("pattern", "domain")
        )
    ]
    return found.filter(~((pl.col("rule") == "rare-pattern") & pl.col("column").is_in(said)))
