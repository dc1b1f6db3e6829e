"""The section on live traffic, added to a report that was written before there was any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.fraud.report.render import template

_LINK, _SECTION = "<!-- live link -->", "<!-- live -->"


def with_live(report: str, figures: Mapping[str, Any], *, link: str, amount: str) -> str:
    """Return a report with the section on live traffic; one that has it gets the newer one.

    Args:
        report: HTML of `build_report`.
        figures: Members of ``flows.live_demo.LiveFigures``.
        link: Where all figures lie, relative to the report.
        amount: Column of the amount, in hundredths.

    Raises:
        ValueError: The HTML has no place for it.
    """
    if report.count(_SECTION) not in (1, 2) or report.count(_LINK) not in (1, 2):
        raise ValueError("the report has no place for live figures: write it again")
    section = template("live.html").render(f=figures, link=link, amount=amount)
    report = _put(report, _SECTION, f"\n{section}\n")
    return _put(report, _LINK, '<li><a href="#live">Live</a></li>')


def _put(report: str, mark: str, text: str) -> str:
    """Put a text between two marks; the second is made with the first text."""
    before, _, rest = report.partition(mark)
    if mark in rest:
        rest = rest.partition(mark)[2]
    return f"{before}{mark}{text}{mark}{rest}"
