"""The page of a profile: what every column holds, what goes together, what drifted.

The page is capped whatever the table: what does not fit is counted, and stands in the JSON beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from tasks.cleaning.profile.drift.table import Drift
from tasks.cleaning.profile.table import ColumnProfile, TableProfile
from tasks.cleaning.report.page import SHARED, render_page
from tasks.cleaning.report.pictures import bar, histogram_picture
from tasks.cleaning.report.render import percent

MAX_PANELS = 120
"""Columns drawn with a picture; the next ones are lines of a table."""
MAX_LINES = 1_000
MAX_FINDINGS = 150
MAX_PAIRS = 60
MAX_TEXT = 60
TOP = 5
DASH = "–"


@dataclass(frozen=True, slots=True)
class ProfilePage:
    """Everything the page shows.

    Attributes:
        profile: The table.
        time: When it was profiled.
        rows_in: Rows of the file.
        quarantined: Rows that could not be read, by rule.
        sampled: How the rows were chosen, "" where all were taken.
        drift: Against a reference, None without one.
        segments: Frame of ``DRIFT`` of segments, None without them.
        reference: Name of the reference.
        reference_note: How its rows were chosen, "" where all were taken.
        contract: Name and version of the contract, "" where kinds were inferred.
    """

    profile: TableProfile
    time: datetime
    rows_in: int
    quarantined: Mapping[str, int]
    sampled: str = ""
    drift: Drift | None = None
    segments: pl.DataFrame | None = None
    reference: str = ""
    reference_note: str = ""
    contract: str = ""


def build_profile_page(page: ProfilePage) -> str:
    """Return the page as one HTML document; the caller writes it."""
    columns = page.profile.columns
    cells = sum(one.rows for one in columns)
    return render_page(
        SHARED,
        "profile.html",
        {
            "count": lambda n: f"{n:,}",
            "percent": percent,
            "brief": brief,
            "number": number,
            "chance": chance,
            "day": day,
            "bar": bar,
            "picture": histogram_picture,
        },
        style="profile.css",
        p=page,
        t=page.profile,
        time=f"{page.time:%d %B %Y %H:%M} UTC".lstrip("0"),
        missing=sum(one.missing for one in columns) / cells if cells else 0.0,
        panels=[_panel(one, page.drift) for one in columns[:MAX_PANELS]],
        lines=columns[MAX_PANELS : MAX_PANELS + MAX_LINES],
        unlisted=max(0, len(columns) - MAX_PANELS - MAX_LINES),
        drift=_told(page.drift.findings) if page.drift else None,
        segments=None if page.segments is None else _told(page.segments),
        drifted=_drifted(page.drift),
        pairs=MAX_PAIRS,
        odd=page.profile.outliers.head(MAX_PAIRS).to_dicts(),
        broken=_broken(page.profile),
        dash=DASH,
    )


def _panel(column: ColumnProfile, drift: Drift | None) -> dict[str, Any]:
    texts, spread = column.texts, column.spread
    filled = column.rows - column.missing
    shape = column.distinct > TOP and texts is not None and filled > 0
    # Shapes tell of texts that hardly repeat; of numbers the picture tells more.
    shown = () if texts is None or spread is not None else texts.top[:TOP]
    rare = bool(shown) and shown[0][1] <= 0.02 * filled
    return {
        "c": column,
        "filled": filled,
        "common": () if rare else [(text, count, count / filled) for text, count in shown],
        "shapes": [
            (text, count, count / filled)
            for text, count in (texts.patterns[:TOP] if shape and rare and texts else ())
        ],
        "time": column.kind in {"date", "datetime"},
        "verdict": drift.columns.get(column.name, "") if drift else "",
    }


def _told(findings: pl.DataFrame) -> dict[str, Any]:
    """Return what a table of drift shows: what stands out, and some of the rest."""
    out = findings.filter(pl.col("verdict").is_in(["drifted", "slight"]))
    rest = findings.filter(~pl.col("verdict").is_in(["drifted", "slight"]))
    # A share that is the same everywhere is not worth a line.
    rest = rest.filter((pl.col("test") != "") | pl.col("test").is_null())
    return {
        "out": out.head(MAX_FINDINGS).to_dicts(),
        "more": max(0, out.height - MAX_FINDINGS),
        "rest": rest.head(MAX_FINDINGS).to_dicts(),
        "rest_more": max(0, rest.height - MAX_FINDINGS),
    }


def _drifted(drift: Drift | None) -> Sequence[str]:
    return [] if drift is None else [n for n, said in drift.columns.items() if said == "drifted"]


def _broken(profile: TableProfile) -> list[tuple[str, str, int]]:
    """Return rule, column and rows of every broken rule, the most broken first."""
    own = [(rule, one.name, n) for one in profile.columns for rule, n in one.broken.items()]
    across = [(rule, "", n) for rule, n in profile.broken.items()]
    return sorted([*own, *across], key=lambda one: -one[2])[:MAX_FINDINGS]


def brief(text: str, most: int = MAX_TEXT) -> str:
    r"""Shorten a text of the user's that would fill the page; line ends become visible.

    >>> brief("a\nb"), len(brief("x" * 100))
    ('a⏎b', 60)
    """
    flat = text[: most + 1].replace("\r\n", "⏎").replace("\n", "⏎").replace("\r", "⏎")
    return flat if len(text) <= most else flat[: most - 1] + "…"


def number(value: float | None) -> str:
    """Write a number with the digits that count.

    >>> number(12345.0), number(0.012345), number(3.0), number(None), number(1e30)
    ('12,345', '0.01235', '3', '–', '1e+30')
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    if 1e3 <= abs(value) < 1e15:
        return f"{value:,.1f}"
    return f"{value:.4g}"


def chance(p: float | None) -> str:
    """Write a probability.

    >>> chance(0.0234), chance(1e-9), chance(None)
    ('0.023', '< 0.0001', '–')
    """
    if p is None:
        return DASH
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def day(days: float | None) -> str:
    """Write days since 1970 as a date.

    >>> day(0.0), day(1e9)
    ('1970-01-01', '–')
    """
    if days is None or not math.isfinite(days):
        return DASH
    try:
        return (date(1970, 1, 1) + timedelta(days=int(days // 1))).isoformat()
    except OverflowError:
        return DASH
