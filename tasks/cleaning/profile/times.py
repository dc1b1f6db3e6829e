"""Points in time as seconds, from texts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl
from numpy.typing import NDArray

FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
EPOCH = r"^-?\d+(\.\d+)?$"
OFFSET = r"(:[0-5][0-9](?:\.[0-9]+)?)([+-])(0[0-9]|1[0-4]):([0-5][0-9])$"
"""The end of a time that says how far its clock was from UTC, as ``+01:00``."""


def require_zone(zone: str) -> None:
    """Refuse a zone that is not known; "" is UTC.

    Raises:
        ValueError: With what to write.
    """
    try:
        ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):  # "Europe" is a folder of zones
        raise ValueError(f"zone {zone!r} is not known; write one such as Europe/Berlin") from None


def local_times(column: pl.Series) -> pl.Series:
    """Return times of a local clock as Datetime("us") without a zone; null for all others.

    ISO dates and times count, blank or T between them. What ends in Z or an offset and seconds
    since 1970 say which instant they are: no clock's zone is needed, or asked.
    """
    return _local_and_fixed(column)[0]


def seconds_of(column: pl.Series, zone: str = "", *, later: bool = False) -> NDArray[np.float64]:
    """Return seconds since 1970 [rows], NaN where a text is no time or no clock showed it.

    Args:
        column: Texts: ISO dates and times, with or without Z or an offset, or seconds since 1970.
        zone: Zone of times without Z or offset (``Europe/Berlin``); "" for UTC.
        later: Whether an hour that occurs twice is taken for the second one.
    """
    local, fixed = _local_and_fixed(column)
    if zone:
        local = local.dt.replace_time_zone(
            zone, ambiguous="latest" if later else "earliest", non_existent="null"
        )
    micros = local.dt.epoch("us").fill_null(fixed.dt.epoch("us"))
    return micros.cast(pl.Float64).fill_null(np.nan).to_numpy() / 1e6


def is_repeated_hour(column: pl.Series, zone: str) -> NDArray[np.bool_]:
    """Return where a local time occurs twice, as clocks are set back [rows]."""
    first, second = seconds_of(column, zone), seconds_of(column, zone, later=True)
    return np.asarray(first < second)  # false where either is NaN


def as_text(seconds: float, like: str, zone: str = "") -> str:
    """Return seconds since 1970 written as another time is.

    Args:
        seconds: The instant.
        like: The other time; where it ends in Z or an offset, so does the new one.
        zone: Zone of times without Z or offset; "" for UTC.
    """
    like = like.strip()
    if re.fullmatch(EPOCH, like):
        return f"{seconds:.{len(like.partition('.')[2])}f}"
    clock: tzinfo = ZoneInfo(zone) if zone else UTC
    plain, end = like.removesuffix("Z"), ""
    if plain != like:
        clock, end = UTC, "Z"
    elif offset := re.search(OFFSET, like):
        end = like[offset.end(1) :]
        ahead = timedelta(hours=int(offset[3]), minutes=int(offset[4]))
        clock = timezone(-ahead if offset[2] == "-" else ahead)
        plain = like.removesuffix(end)
    digits = len(plain.partition(".")[2])
    moment = datetime.fromtimestamp(round(seconds, 6), clock)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S" if "T" in like else "%Y-%m-%d %H:%M:%S")
    fraction = f".{moment.microsecond:06d}"[: digits + 1] if digits else ""
    return text + fraction + end


def _local_and_fixed(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return times of a local clock, and instants (UTC) of texts that say which: one is null."""
    text = column.cast(pl.String).str.strip_chars()
    kind, none = pl.Datetime("us"), pl.Series(column.name, [None] * len(text), pl.Datetime("us"))
    fixed = text.str.ends_with("Z").fill_null(value=False)
    shifted = text.str.contains(OFFSET).fill_null(value=False)
    plain = text.str.strip_suffix("Z").str.replace("T", " ")
    if shifted.any():
        plain = plain.str.replace(OFFSET, "$1")
    left, made = plain, none
    for form in FORMATS:
        made = made.fill_null(left.str.strptime(kind, form, strict=False))
        left = plain.set(made.is_not_null(), None)
        if left.null_count() == len(left):
            break
    if shifted.any():
        made = made - _offsets(text)
    instants = made.set(~(fixed | shifted), None)
    seconds = left.set(~left.str.contains(EPOCH).fill_null(value=False), None)
    micros = (seconds.cast(pl.Float64, strict=False) * 1e6).round(0)
    instants = instants.fill_null(micros.cast(pl.Int64, strict=False).cast(kind))
    return made.set(fixed | shifted, None), instants


def _offsets(text: pl.Series) -> pl.Series:
    """Return how far clocks were ahead of UTC, as Duration("us"); 0 where a text does not say."""
    parts = text.str.extract_groups(OFFSET).struct.unnest()
    hours, minutes = (parts[name].cast(pl.Int64).fill_null(0) for name in ("3", "4"))
    sign = (parts["2"] == "-").fill_null(value=False).cast(pl.Int64) * -2 + 1
    return (sign * (hours * 60 + minutes) * 60_000_000).cast(pl.Duration("us"))
