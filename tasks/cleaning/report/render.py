"""The report of a cleaning run: every change, what is left to decide, what was set aside."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from tasks.cleaning.clean import Cleaned
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.report.page import SHARED, render_page

MAX_PER_COLUMN = 500
MAX_CHANGES = 3_000
"""Changed cells on the page in all; columns share them evenly."""
MAX_BOUNDS = 300
MAX_REVIEW = 500
MAX_QUARANTINE = 300
MAX_TEXT = 160
"""Characters of a value on the page; the files beside it hold all."""


@dataclass(frozen=True, slots=True)
class ColumnChanges:
    """Changes of one column.

    Attributes:
        name: The column.
        total: How many there are.
        rows: The first of them.
    """

    name: str
    total: int
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the report shows.

    Attributes:
        source: Name of the table.
        contract: Name and version of the contract.
        inferred: Whether the contract was inferred from this table.
        time: When the run ended.
        folder: Folder of the run, as commands name it.
        counts: Rows in, clean, repaired and quarantined.
        changed: Changed cells.
        changed_aside: Changed cells of rows in quarantine.
        promised_harm: Share of correct cells changed at most.
        alpha: Bound above which rules only suggest.
        changes: By column, in the table's order.
        columns_left_out: Changed columns that are not on the page.
        reviews: Findings for review.
        review: The first of them, the surest first.
        quarantine: The first quarantined rows.
        bounds: Of the rules that changed something, the loosest first.
        bounds_left_out: Further rules.
        bounds: Of every rule that changed something.
        notes: What was not looked for, and why.
    """

    source: str
    contract: str
    inferred: bool
    time: str
    folder: str
    counts: Mapping[str, int]
    changed: int
    changed_aside: int
    promised_harm: float
    alpha: float
    changes: Sequence[ColumnChanges]
    columns_left_out: int
    reviews: int
    review: Sequence[Mapping[str, Any]]
    quarantine: Sequence[Mapping[str, Any]]
    bounds: Sequence[tuple[str, HarmBound]]
    bounds_left_out: int
    notes: Sequence[str]


def page_of(
    done: Cleaned,
    contract: Contract,
    *,
    source: str,
    folder: str,
    inferred: bool,
    alpha: float,
    time: datetime,
) -> Page:
    """Gather what the page shows of a run."""
    changes, left_out = _changes_of(done)
    bounds = sorted(done.bounds.items(), key=lambda one: -one[1].rate)
    rows_aside = pl.Series("row", done.quarantine["row"].to_numpy(), pl.Int64)
    aside_cells = done.changes.filter(pl.col("row").is_in(rows_aside.implode()))
    review = done.review.sort("confidence", descending=True, maintain_order=True)
    aside = done.quarantine.slice(0, MAX_QUARANTINE).to_pylist()
    for record in aside:
        record["payload"] = record["payload"].decode("utf-8", "backslashreplace")
    return Page(
        source=source,
        contract=contract.detector_version,
        inferred=inferred,
        time=f"{time:%d %B %Y %H:%M} UTC".lstrip("0"),
        folder=shlex.quote(folder),
        counts=done.counts,
        changed=done.changes.select("row", "column").n_unique(),
        changed_aside=aside_cells.select("row", "column").n_unique(),
        promised_harm=done.promised_harm,
        alpha=alpha,
        changes=changes,
        columns_left_out=left_out,
        reviews=review.height,
        review=review.head(MAX_REVIEW).to_dicts(),
        quarantine=aside,
        bounds=bounds[:MAX_BOUNDS],
        bounds_left_out=len(bounds[MAX_BOUNDS:]),
        notes=done.notes,
    )


def _changes_of(done: Cleaned) -> tuple[list[ColumnChanges], int]:
    """Return what the page shows of the changes, and how many changed columns it leaves out."""
    totals = dict(done.changes["column"].value_counts().iter_rows())
    names = [name for name in done.frame.columns if name in totals]
    shown = names[:MAX_CHANGES]
    each = min(MAX_PER_COLUMN, MAX_CHANGES // max(len(shown), 1))
    first = done.changes.sort("row", "order").group_by("column", maintain_order=True).head(each)
    rows = {str(name): mine.to_dicts() for (name,), mine in first.group_by("column")}
    return [ColumnChanges(name, totals[name], rows[name]) for name in shown], len(names) - len(
        shown
    )


def build_report(page: Page) -> str:
    """Return the report as one HTML document; the caller writes it."""
    return render_page(
        SHARED,
        "report.html",
        {
            "count": lambda n: f"{n:,}",
            "percent": percent,
            "fixed": lambda x: f"{x:.3f}",
            "brief": brief,
            "shell": shlex.quote,
        },
        r=page,
    )


def brief(text: str) -> str:
    """Shorten a text that would fill the page.

    >>> brief("a" * 200)[-11:]
    'a … 41 more'
    """
    return (
        text
        if len(text) <= MAX_TEXT
        else f"{text[: MAX_TEXT - 1]} … {len(text) - MAX_TEXT + 1} more"
    )


def percent(share: float) -> str:
    """Write a share in per cent with two digits that count.

    >>> percent(0.5), percent(0.0123), percent(0.00042), percent(0.0), percent(0.997)
    ('50 %', '1.2 %', '0.042 %', '0 %', '99.7 %')
    """
    return f"{100 * share:.{3 if share >= 0.95 else 2}g} %"
