"""The series of a sensor inside a frame of texts: one per group, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.profile.times import is_repeated_hour, seconds_of
from tasks.cleaning.sensors.model import SensorRules

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Readings:
    """One series.

    Attributes:
        rows: Row of each reading in the frame [n].
        times: Seconds since 1970 [n]; NaN where the text is no time.
        values: Readings [n]; NaN where there is none.
    """

    rows: Ints
    times: Floats
    values: Floats

    def at(self, chosen: Ints | Bools) -> Readings:
        """Return some of them."""
        return Readings(self.rows[chosen], self.times[chosen], self.values[chosen])


def numbers(column: pl.Series) -> Floats:
    """Return texts as numbers [rows], NaN where they are none or not finite."""
    made = column.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    values = made.fill_null(np.nan).to_numpy().copy()
    values[~np.isfinite(values)] = np.nan
    return np.asarray(values, np.float64)


def groups_of(frame: pl.DataFrame, group: tuple[str, ...]) -> list[Ints]:
    """Return the rows of each group, in the order in which the groups occur."""
    if not group:
        return [np.arange(frame.height)]
    parts = (
        frame.select(pl.struct(group).alias("group"))
        .with_row_index("row")
        .group_by("group", maintain_order=True)
        .agg("row")
    )
    return [np.asarray(part, np.int64) for part in parts["row"]]


def series_of(frame: pl.DataFrame, rules: SensorRules) -> Iterator[Readings]:
    """Yield the series of every group."""
    values = numbers(frame[rules.column])
    groups = groups_of(frame, rules.group)
    times = times_of(frame[rules.time], rules.zone, groups)
    for rows in groups:
        yield Readings(rows, times[rows], values[rows])


def times_of(column: pl.Series, zone: str, groups: list[Ints]) -> Floats:
    """Return seconds since 1970; an hour that occurs twice is told by the order of the file."""
    times = seconds_of(column, zone)
    if not zone or not (twice := is_repeated_hour(column, zone)).any():
        return times
    later = seconds_of(column, zone, later=True)
    for rows in groups:
        mine = times[rows]
        before = np.concatenate([[-np.inf], np.fmax.accumulate(mine)[:-1]])
        again = twice[rows] & (mine <= before)
        times[rows[again]] = later[rows[again]]
    return times


def rolling_median(values: Floats, width: int) -> Floats:
    """Return the median of the readings around each one [n], NaN left out."""
    series = pl.Series(values, nan_to_null=True)
    made = series.rolling_median(width, min_samples=1, center=True)
    if made.null_count():
        made = made.fill_null(strategy="forward").fill_null(strategy="backward").fill_null(0.0)
    return made.to_numpy()


def runs_of(chosen: Bools) -> Iterator[tuple[int, int]]:
    """Yield begin and end (not included) of every run of chosen readings."""
    edges = np.diff(chosen.astype(np.int8), prepend=0, append=0)
    yield from zip(
        np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True
    )
