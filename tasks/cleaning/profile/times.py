"""Points in time as seconds, from texts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl
from numpy.typing import NDArray

FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
EPOCH = r"^-?\d+(\.\d+)?$"


def require_zone(zone: str) -> None:
    """Refuse a zone that is not known; "" is UTC.

    Raises:
        ValueError: With what to write.
    """
    try:
        ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"zone {zone!r} is not known; write one such as Europe/Berlin") from None


def local_times(column: pl.Series) -> pl.Series:
    """Return texts as Datetime("us") without a zone; null where they are none.

    ISO dates and times count (blank or T between them, Z at the end), and seconds since 1970.
    """
    text = column.cast(pl.String).str.strip_chars().str.strip_suffix("Z").str.replace("T", " ")
    kind = pl.Datetime("us")
    left, made = text, pl.Series(column.name, [None] * len(text), kind)
    for form in FORMATS:
        made = made.fill_null(left.str.strptime(kind, form, strict=False))
        left = text.set(made.is_not_null(), None)
        if left.null_count() == len(left):
            return made
    seconds = left.set(~left.str.contains(EPOCH).fill_null(value=False), None)
    micros = (seconds.cast(pl.Float64, strict=False) * 1e6).round(0)
    return made.fill_null(micros.cast(pl.Int64, strict=False).cast(kind))


def seconds_of(column: pl.Series, zone: str = "", *, later: bool = False) -> NDArray[np.float64]:
    """Return seconds since 1970 [rows], NaN where a text is no time or no clock showed it.

    Args:
        column: Texts.
        zone: Zone of local times (``Europe/Berlin``); "" for UTC.
        later: Whether an hour that occurs twice is taken for the second one.
    """
    made = local_times(column)
    if zone:
        made = made.dt.replace_time_zone(
            zone, ambiguous="latest" if later else "earliest", non_existent="null"
        )
    return made.dt.epoch("us").cast(pl.Float64).fill_null(np.nan).to_numpy() / 1e6


def is_repeated_hour(column: pl.Series, zone: str) -> NDArray[np.bool_]:
    """Return where a local time occurs twice, as clocks are set back [rows]."""
    first, second = seconds_of(column, zone), seconds_of(column, zone, later=True)
    return np.asarray(first < second)  # false where either is NaN


def as_text(seconds: float, like: str, zone: str = "") -> str:
    """Return seconds since 1970 written as another time is, in a zone ("" for UTC)."""
    if re.fullmatch(EPOCH, like.strip()):
        return f"{seconds:.{len(like.strip().partition('.')[2])}f}"
    digits = len(like.strip().rstrip("Z").partition(".")[2])
    moment = datetime.fromtimestamp(round(seconds, 6), ZoneInfo(zone) if zone else UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S" if "T" in like else "%Y-%m-%d %H:%M:%S")
    fraction = f".{moment.microsecond:06d}"[: digits + 1] if digits else ""
    return text + fraction + ("Z" if like.strip().endswith("Z") else "")
