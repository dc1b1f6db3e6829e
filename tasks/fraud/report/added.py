"""Sections added to a report after it was written, each between two marks of its own."""

from __future__ import annotations

from typing import Any

from tasks.fraud.report.render import template


def with_added(report: str, name: str, title: str, **context: Any) -> str:
    """Return a report with a section; one that has it gets the newer one.

    Args:
        report: HTML of `build_report`.
        name: Of the section: its template is ``NAME.html``.
        title: In the navigation.
        context: What the template shows.

    Raises:
        ValueError: The HTML has no place for it.
    """
    link, section = f"<!-- {name} link -->", f"<!-- {name} -->"
    if report.count(section) not in (1, 2) or report.count(link) not in (1, 2):
        raise ValueError(f"the report has no place for {name} figures: write it again")
    report = _put(report, section, f"\n{template(f'{name}.html').render(**context)}\n")
    return _put(report, link, f'<li><a href="#{name}">{title}</a></li>')


def _put(report: str, mark: str, text: str) -> str:
    """Put a text between two marks; the second is made with the first text."""
    before, _, rest = report.partition(mark)
    if mark in rest:
        rest = rest.partition(mark)[2]
    return f"{before}{mark}{text}{mark}{rest}"
