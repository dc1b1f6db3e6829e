"""What the page shows of a run: a filter, one page of rows, and what there is to filter by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
import polars as pl

from connectors.cleaning.run import Run
from connectors.local_page.text import MAX_TEXT

TABS = ("changes", "review", "quarantine", "decisions")
PER_PAGE = 50
MAX_FACETS = 200
"""Columns or rules that can be chosen from; others are found by text."""
MAX_CELLS = 30
"""Cells of a row that are shown beside the one at issue."""
MAX_PAYLOAD = 1 << 16
"""Bytes of a quarantined row that are read as cells; of a longer one the beginning is shown."""
SEARCHED = {
    "changes": ("before", "after", "premise"),
    "review": ("observed", "suggestion", "premise", "expected"),
    "quarantine": ("observed", "expected", "payload"),
    "decisions": ("before", "after", "user"),
}
SORTS = {"": "by row", "sure": "surest first", "doubt": "least sure first"}


@dataclass(frozen=True, slots=True)
class Filter:
    """What a person looks at.

    Attributes:
        tab: One of ``TABS``.
        column: Only this column; "" for all.
        rule: Only this rule.
        row: Only this row of the source.
        text: Only what holds this text, in any case.
        sort: One of ``SORTS``.
        page: From 1.
    """

    tab: str
    column: str = ""
    rule: str = ""
    row: int | None = None
    text: str = ""
    sort: str = ""
    page: int = 1

    @classmethod
    def of(cls, tab: str, fields: Mapping[str, str]) -> Filter:
        """Read it from the fields of a query or form; what cannot be read is left out."""
        row, page, sort = (fields.get(name, "").strip() for name in ("row", "page", "sort"))
        return cls(
            tab if tab in TABS else TABS[0],
            fields.get("column", ""),
            fields.get("rule", ""),
            int(row) if row.isascii() and row.isdigit() and len(row) < 19 else None,
            fields.get("text", "").strip(),
            sort if sort in SORTS else "",
            int(page) if page.isascii() and page.isdigit() and 0 < len(page) < 9 else 1,
        )

    @property
    def fields(self) -> dict[str, str]:
        """Its fields, as a query or form holds them; those left open are left out."""
        row = "" if self.row is None else str(self.row)
        found = {"column": self.column, "rule": self.rule, "row": row, "text": self.text}
        found |= {"sort": self.sort, "page": str(self.page) if self.page > 1 else ""}
        return {name: value for name, value in found.items() if value}

    @property
    def query(self) -> str:
        """Its fields as a query; a form carries them so, too, since it would alter line breaks."""
        return urlencode(self.fields)

    @property
    def narrows(self) -> bool:
        """Whether anything is left out."""
        return bool(self.column or self.rule or self.text or self.row is not None)

    def link(self, **changes: Any) -> str:
        """Return the address of this view with some fields changed, relative to the page's."""
        other = replace(self, **({"page": 1} | changes))
        return other.tab + (f"?{other.query}" if other.query else "")

    @property
    def chosen(self) -> pl.Expr:
        """The condition over the rows of the tab's frame."""
        chosen = pl.lit(value=True)
        for name, value in (("column", self.column), ("rule", self.rule)):
            if value:
                chosen &= pl.col(name) == value
        if self.row is not None:
            chosen &= pl.col("row") == self.row
        if self.text:
            wanted = self.text.lower()
            chosen &= pl.any_horizontal(
                pl.col(name)
                .str.to_lowercase()
                .str.contains(wanted, literal=True)
                .fill_null(value=False)
                for name in SEARCHED[self.tab]
            )
        return chosen


@dataclass(frozen=True, slots=True)
class View:
    """One page of a tab.

    Attributes:
        total: Rows that the filter lets through.
        open: Of them, suggestions that can be accepted.
        pages: Number of pages.
        rows: Those of this page, each with its ``_id`` in the tab's frame.
        columns: Columns to filter by, with how many rows each has, most first.
        rules: Rules likewise.
    """

    total: int
    open: int
    pages: int
    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[tuple[str, int]]
    rules: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A generation of a run, made ready to be looked at.

    Attributes:
        run: The run.
        frames: By tab, its rows with ``_id``: ``order`` of a change, else the place in the file.
    """

    run: Run
    frames: Mapping[str, pl.DataFrame]

    @classmethod
    def of(cls, run: Run) -> Shown:
        """Make a run ready."""
        aside = pl.DataFrame(pl.from_arrow(run.quarantine)).with_columns(
            pl.col("payload").cast(pl.String, strict=False)
        )
        rows = pl.Series("row", run.rows, pl.Int64)
        changes = run.changes.sort("row", "order").with_columns(
            pl.col("order").alias("_id"), (~pl.col("row").is_in(rows.implode())).alias("aside")
        )
        frames = {
            "changes": changes,
            "review": run.review.with_row_index("_id").sort(
                "confidence", descending=True, maintain_order=True
            ),
            "quarantine": aside.with_row_index("_id"),
            "decisions": run.decisions.with_row_index("_id").reverse(),
        }
        return cls(run, frames)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of every tab."""
        return {name: frame.height for name, frame in self.frames.items()}

    def view(self, wanted: Filter) -> View:
        """Return one page; the last where there are fewer."""
        frame = self.frames[wanted.tab]
        found = frame.filter(wanted.chosen)
        if wanted.sort and "confidence" in frame.columns:
            down = wanted.sort == "sure"
            found = found.sort("confidence", descending=down, maintain_order=True)
        pages = max(1, -(-found.height // PER_PAGE))
        page = min(wanted.page, pages)
        rows = found.slice((page - 1) * PER_PAGE, PER_PAGE).to_dicts()
        for row in rows:
            cells = self._cells(wanted.tab, row)
            row |= {"cells": cells[:MAX_CELLS], "more": max(0, len(cells) - MAX_CELLS)}
        can = found.filter("repairable") if wanted.tab == "review" else found.clear()
        both = (_counted(frame, name) for name in ("column", "rule"))
        return View(found.height, can.unique(["row", "column"]).height, pages, rows, *both)

    def _cells(self, tab: str, row: Mapping[str, Any]) -> list[tuple[str, str | None]]:
        """Return the row of the table, as it came for one in quarantine, else as it is now."""
        if tab == "quarantine":
            return _payload_cells(row["payload"])
        at = int(np.searchsorted(self.run.rows, row["row"]))
        if at == len(self.run.rows) or self.run.rows[at] != row["row"]:
            return []
        return list(zip(self.run.frame.columns, self.run.frame.row(at), strict=True))


def _counted(frame: pl.DataFrame, name: str) -> list[tuple[str, int]]:
    counts = frame[name].alias("name").value_counts().filter(pl.col("name") != "")
    return counts.sort("count", "name", descending=[True, False]).head(MAX_FACETS).rows()


def _payload_cells(payload: str | None) -> list[tuple[str, str | None]]:
    """Return a quarantined row as cells; as one text without a name where it is none."""
    if payload is None:
        return [("", "bytes that are no UTF-8")]
    if len(payload) <= MAX_PAYLOAD:
        try:
            row = json.loads(payload)
        except ValueError:
            row = None
        if isinstance(row, dict) and all(v is None or isinstance(v, str) for v in row.values()):
            return list(row.items())
    return [("", payload[: MAX_TEXT * 5])]
