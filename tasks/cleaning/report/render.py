"""Renders the report: one HTML page that needs no network, no script and no other file.

The page's Content-Security-Policy allows nothing but its own style sheet, so even markup that
slipped through escaping could load or run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import polars as pl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tasks.cleaning.clean import Cleaned
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.repair.bound import HarmBound

MAX_PER_COLUMN = 500
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
        promised_harm: Share of correct cells changed at most.
        alpha: Bound above which rules only suggest.
        changes: By column, in the table's order.
        reviews: Findings for review.
        review: The first of them, the surest first.
        quarantine: The first quarantined rows.
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
    promised_harm: float
    alpha: float
    changes: Sequence[ColumnChanges]
    reviews: int
    review: Sequence[Mapping[str, Any]]
    quarantine: Sequence[Mapping[str, Any]]
    bounds: Sequence[tuple[str, HarmBound]]
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
    changes = []
    for name in done.frame.columns:
        mine = done.changes.filter(pl.col("column") == name).sort("row", "order")
        if mine.height:
            changes.append(ColumnChanges(name, mine.height, mine.head(MAX_PER_COLUMN).to_dicts()))
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
        promised_harm=done.promised_harm,
        alpha=alpha,
        changes=changes,
        reviews=review.height,
        review=review.head(MAX_REVIEW).to_dicts(),
        quarantine=aside,
        bounds=sorted(done.bounds.items(), key=lambda one: -one[1].rate),
        notes=done.notes,
    )


def build_report(page: Page) -> str:
    """Return the report as one HTML document; the caller writes it."""
    css = _own_file("report.css").strip()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., str]] = {
        "count": lambda n: f"{n:,}",
        "percent": percent,
        "fixed": lambda x: f"{x:.3f}",
        "brief": brief,
        "shell": shlex.quote,
    }
    environment.filters |= filters
    html = environment.from_string(_own_file("report.html")).render(
        r=page,
        css=Markup(css),  # noqa: S704 - our own file
        css_hash="sha256-" + base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
    )
    # Values may hold lone surrogates, which no file could be written with.
    return html.encode("utf-8", "replace").decode("utf-8")


def brief(text: str) -> str:
    """Shorten a text that would fill the page.

    >>> brief("a" * 200)[-12:]
    'a … 41 more'
    """
    return (
        text
        if len(text) <= MAX_TEXT
        else f"{text[: MAX_TEXT - 1]} … {len(text) - MAX_TEXT + 1} more"
    )


def percent(share: float) -> str:
    """Write a share in per cent with two digits that count.

    >>> percent(0.5), percent(0.0123), percent(0.00042), percent(0.0)
    ('50 %', '1.2 %', '0.042 %', '0 %')
    """
    return f"{100 * share:.2g} %"


def _own_file(name: str) -> str:
    return resources.files("tasks.cleaning.report").joinpath(name).read_text(encoding="utf-8")
