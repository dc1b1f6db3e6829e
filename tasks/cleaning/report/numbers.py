"""Numbers and texts as every page of Penstock writes them."""

from __future__ import annotations

import math

DASH = "–"


def count(value: float | None) -> str:
    """Write a count with thousands separators.

    >>> count(1234567), count(12.5), count(None)
    ('1,234,567', '12.5', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.0f}" if value == round(value) or value >= 100 else f"{value:,.1f}"


def fixed(value: float | None, places: int = 3) -> str:
    """Write a number with fixed decimals, a dash for none."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def signed(value: float | None, places: int = 3) -> str:
    """Write a number with its sign."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:+.{places}f}".replace("-", "−")


def percent(value: float | None, places: int = 1) -> str:
    """Write a share as per cent."""
    return DASH if value is None or not math.isfinite(value) else f"{value * 100:.{places}f} %"


def brief(text: str, length: int = 60) -> str:
    """Cut long text from the user's data, marking the cut."""
    return text if len(text) <= length else text[: length - 1] + "…"
