"""A slice report as a fragment of HTML for a page of any style, as a page, and as JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

from tasks.cleaning.slices.table import SliceTable

MOST_ROWS = 300
"""Slices of one figure on the page, worse ones first; the JSON has all."""
ORDER = ("worse", "apart", "better", "undecided", "alike")


def fragment(tables: Mapping[str, SliceTable]) -> str:
    """Return sections of HTML, one for each table, by heading.

    Classes are those of the cleaning report; every value is escaped.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = short
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
    own = resources.files("tasks.cleaning.slices").joinpath("slices.html")
    return environment.from_string(own.read_text(encoding="utf-8")).render(sections=sections)


def page(tables: Mapping[str, SliceTable], source: str) -> str:
    """Return a page that needs no network and no other file."""
    from markupsafe import escape

    css = resources.files("tasks.cleaning.report").joinpath("report.css").read_text("utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src '
        f"'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Slices: {escape(source)}</title>\n<style>{css}</style>\n</head>\n<body>\n"
        f'<header><div class="wrap"><h1>Slices of {escape(source)}</h1></div></header>\n'
        f'<main class="wrap">\n{fragment(tables)}</main>\n</body>\n</html>\n'
    )
    # Values may hold lone surrogates, which no file could be written with.
    return html.encode("utf-8", "replace").decode("utf-8")


def as_json(tables: Mapping[str, SliceTable], source: str) -> str:
    """Return all tables as one JSON object; what is not finite is null."""
    parts = {
        heading: {
            "tests": table.tests,
            "alpha": table.alpha,
            "level": table.level,
            "slices": [
                {name: _plain(value) for name, value in row.items()}
                for row in table.frame.iter_rows(named=True)
            ],
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


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
