"""The report of a fraud model: figures, pictures and alerts in one HTML page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from tasks.cleaning.report.numbers import DASH, brief, count, fixed, percent, signed
from tasks.cleaning.report.page import environment, render_page
from tasks.fraud.report import plots
from tasks.fraud.report.model import ReportInputs
from tasks.fraud.report.published import comparable_rows
from tasks.fraud.report.rows import HeadRow, Metric

HERE = "tasks.fraud.report"
SHOWN_ALERTS = 12
"""Alerts in sight; the others unfold."""

MAX_ALERTS = 200
"""Alerts on the page; the rest are counted."""


def build_report(inputs: ReportInputs) -> str:
    """Return the report as one HTML document.

    Args:
        inputs: Everything the report shows.

    Returns:
        HTML text; the caller writes it.
    """
    return render_page(
        HERE,
        "report.html",
        _writers(),
        style="report.css",
        r=inputs,
        tiles=_tiles(inputs),
        published=comparable_rows(inputs.folds),
        pictures=_pictures(inputs),
        gains=_gains(inputs.heads),
        shown=SHOWN_ALERTS,
        alerts=inputs.alerts[:MAX_ALERTS],
        mean_precision=_mean_precision(inputs),
        strongest=_strongest_reason(inputs),
        dash=DASH,
    )


def template(name: str) -> Template:
    """Return a template of this folder, with the filters below."""
    return environment(HERE, _writers()).get_template(name)


def _writers() -> dict[str, Callable[..., str]]:
    writers: tuple[Callable[..., str], ...] = (
        count, fixed, percent, metric, day, moment,
        span, brief, seconds, probability, money, signed,
    )  # fmt: skip
    return {writer.__name__: writer for writer in writers}


def probability(value: float) -> str:
    """Write a probability; what rounds to certainty is said to be beyond.

    >>> probability(0.12345), probability(0.9999), probability(0.0)
    ('0.123', '> 0.999', '< 0.001')
    """
    if value > 0.9995:
        return "> 0.999"
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"


def money(value: float | None, decimals: int = 2) -> str:
    """Write an amount in major units."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}"


def metric(value: Metric | None, places: int = 3) -> str:
    """Write a metric with its spread to ``places`` decimals, for example ``0.739 ± 0.012``."""
    if value is None:
        return DASH
    spread = "" if value.std is None else f" ± {value.std:.{places}f}"
    return f"{fixed(value.mean)}{spread}"


def day(text: str) -> str:
    """Write an ISO date or instant as ``29 Aug 2018``; other text stays as it is."""
    instant = _instant(text)
    return text if instant is None else f"{instant.day} {instant:%b %Y}"


def moment(text: str) -> str:
    """Write an ISO instant as ``29 Aug 2018, 14:05:33``; other text stays as it is."""
    instant = _instant(text)
    return text if instant is None else f"{instant.day} {instant:%b %Y, %H:%M:%S}"


def span(text: str) -> str:
    """Write a window ``2018-08-29..2018-09-04`` as ``29 Aug – 4 Sep 2018``.

    >>> span("2018-08-29..2018-09-04"), span("2018-12-29..2019-01-04"), span("week 3")
    ('29 Aug – 4 Sep 2018', '29 Dec 2018 – 4 Jan 2019', 'week 3')
    """
    first, _, last = text.partition("..")
    start, end = _instant(first), _instant(last)
    if start is None or end is None:
        return text
    year = "" if start.year == end.year else f" {start.year}"
    return f"{start.day} {start:%b}{year} – {end.day} {end:%b %Y}"


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def seconds(value: float) -> str:
    """Write a duration.

    >>> seconds(0.25), seconds(12.34), seconds(125)
    ('0.25 s', '12.3 s', '2 min 5 s')
    """
    if value >= 60:
        whole = round(value)
        return f"{whole // 60} min {whole % 60} s"
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"


def _tiles(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Headline figures: name, metric, dots of the folds, what it means, best published figure."""
    k, entity = inputs.top_k, inputs.top_entity.replace("_", " ")
    scores = inputs.scores
    rows = (
        ("ap", "Average precision", scores.ap, "precision averaged over all recalls"),
        ("auc", "ROC AUC", scores.auc, "chance that a fraud outranks a genuine payment"),
        (
            "cp",
            f"CP@{k}",
            scores.cp,
            f"share of frauds among a day's {k} top {entity or 'entitie'}s",
        ),
        ("r1", "R@1%FPR", scores.r1, "frauds caught at 1 % false alarms"),
    )
    published = comparable_rows(inputs.folds)
    tiles = []
    for key, name, value, meaning in rows:
        if value is None:
            continue
        folds = [getattr(f, key) for f in reversed(inputs.folds)]
        known = [v for v in folds if v is not None]
        best = next((getattr(p, key).mean for p in published if key in p.best), None)
        tiles.append(
            {
                "name": name,
                "value": value,
                "meaning": meaning,
                "best": best,
                "strip": plots.fold_strip(key, name, known) if len(known) > 1 else "",
            }
        )
    return tiles


def _pictures(inputs: ReportInputs) -> dict[str, Markup]:
    active = next((h.name for h in inputs.heads if h.active), "")
    judged = sum(f.rows for f in inputs.folds)
    frauds = sum(f.frauds for f in inputs.folds)
    names = ("pr", "cp", "calibration", "histogram", "importance")
    pictures = dict.fromkeys(names, Markup(""))
    if inputs.pr:
        rate = frauds / judged if judged else 0.0
        pictures["pr"] = plots.precision_recall(inputs.pr, active=active, base_rate=rate)
    if inputs.precision_by_day:
        pictures["cp"] = plots.daily_precision(inputs.precision_by_day, k=inputs.top_k)
    if inputs.calibration:
        pictures["calibration"] = plots.calibration(inputs.calibration)
    if inputs.score_bins:
        policy = next(iter(inputs.thresholds), None)
        mark = policy.threshold if policy else None
        threshold = None if policy is None or mark is None else (policy.policy, mark)
        pictures["histogram"] = plots.score_histogram(inputs.score_bins, threshold=threshold)
    if inputs.importance:
        pictures["importance"] = plots.importance(inputs.importance)
    return pictures


def _gains(heads: tuple[HeadRow, ...]) -> Mapping[str, Markup]:
    """Interval pictures of all heads on one common scale that holds zero."""
    ends = [v for h in heads for v in (h.gain_low, h.gain_high) if v is not None]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    pad = max((high - low) * 0.08, 0.002)
    return {
        h.name: plots.gain_interval(str(i), h, low=low - pad, high=high + pad)
        for i, h in enumerate(heads)
    }


def _strongest_reason(inputs: ReportInputs) -> float:
    return max((x.contribution for a in inputs.alerts for x in a.reasons), default=1.0) or 1.0


def _mean_precision(inputs: ReportInputs) -> float | None:
    days = inputs.precision_by_day
    return sum(d.precision for d in days) / len(days) if days else None
