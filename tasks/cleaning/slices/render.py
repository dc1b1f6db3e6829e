"""A slice report as a page and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from kernels.plain_data import finite
from tasks.cleaning.report.page import render_page
from tasks.cleaning.slices.table import SliceTable

MOST_ROWS = 300
"""Slices of one figure on the page, worse ones first; the JSON has all."""
ORDER = ("worse", "apart", "better", "undecided", "alike")


def page(tables: Mapping[str, SliceTable], source: str) -> str:
    """Return a page of sections, one for each table, that needs no network and no other file."""
    sections = [
        {
            "heading": heading,
            "tests": table.tests,
            "alpha": table.alpha,
            "counts": [
                (word, int((table.frame["verdict"] == word).sum()))
                for word in ORDER
                if (table.frame["verdict"] == word).any()
            ],
            "figures": [
                {"name": name, "total": len(rows), "rows": rows[:MOST_ROWS]}
                for name, rows in ranked(table)
            ],
        }
        for heading, table in tables.items()
    ]
    filters = {"figure": short}
    return render_page(
        "tasks.cleaning.slices", "slices.html", filters, sections=sections, source=source
    )


def as_json(tables: Mapping[str, SliceTable], source: str) -> str:
    """Return all tables as one JSON object; what is not finite is null."""
    parts = {
        heading: {
            "tests": table.tests,
            "alpha": table.alpha,
            "level": table.level,
            "slices": [finite(row) for row in table.frame.iter_rows(named=True)],
        }
        for heading, table in tables.items()
    }
    return json.dumps({"source": source, "tables": parts}, allow_nan=False)


def short(value: float | None) -> str:
    """Write a figure in three digits that count.

    >>> short(0.03456), short(-0.0), short(12345.6), short(None), short(float("inf"))
    ('0.0346', '0', '12,300', '–', '∞')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 1000:
        digits = 3 - len(str(int(abs(value))))
        return f"{round(value, digits):,.0f}"
    return f"{value:.3g}".replace("-", "−") if value else "0"


def ranked(table: SliceTable) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the rows of every figure: worse slices first, the largest of equal verdicts first."""
    return [
        (
            str(name),
            sorted(part.to_dicts(), key=lambda row: (ORDER.index(row["verdict"]), -row["rows"])),
        )
        for (name,), part in table.frame.group_by("figure", maintain_order=True)
    ]
