"""Numbers of a page worked out for its templates: bars, scales, words."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, NamedTuple

DECISION_WORDS = {"approve": "approved", "review": "to review", "block": "blocked"}


class Scale(NamedTuple):
    """Where a score and the thresholds lie on a bar, percent of its width.

    Attributes:
        score: Place of the score; None where nothing scored.
        review: Place from which transactions are reviewed.
        block: Place from which they are blocked.
    """

    score: float | None
    review: float
    block: float


def score_scale(score: float | None, review_at: float, block_at: float) -> Scale:
    """Return a bar in log-odds: thresholds of one in a thousand stay visible on it."""
    place = None if score is None else _place(score)
    return Scale(place, _place(review_at), _place(block_at))


def percent(value: float | None) -> str:
    """Say a probability.

    >>> percent(0.98765), percent(0.00012), percent(None)
    ('98.8 %', '0.012 %', 'none')
    """
    if value is None:
        return "none"
    hundred = value * 100
    digits = 1 if hundred >= 1 else 3
    return f"{hundred:.{digits}f} %"


def money(value: float | None, decimals: int) -> str:
    """Say an amount in major units."""
    return "none" if value is None else f"{value:,.{decimals}f}"


def clock(ms: int) -> str:
    """Say an instant, UTC."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def plain_time(text: str | None) -> str:
    """Say an ISO instant as people read it.

    >>> plain_time("2026-01-02T03:04:05.000+00:00")
    '2026-01-02 03:04:05'
    """
    return "unknown" if not text else text[:19].replace("T", " ")


def share_width(reason: dict[str, Any]) -> float:
    """Return the width of a reason's bar, percent."""
    return round(min(max(float(reason["share"]), 0.0), 1.0) * 100, 1)


def _place(score: float) -> float:
    inside = min(max(score, 1e-4), 1 - 1e-4)
    logit = math.log(inside / (1 - inside))
    widest = math.log((1 - 1e-4) / 1e-4)
    return round((logit + widest) / (2 * widest) * 100, 2)
