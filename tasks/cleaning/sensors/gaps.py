"""Readings for gaps where somebody asks for them: apart from the table, each with an interval.

The engine reports gaps and fills none. What :func:`fill_gaps` returns is marked by being a table
of its own: whoever joins it to the readings decides to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from tasks.cleaning.profile.times import as_text
from tasks.cleaning.sensors.check import sensor_findings
from tasks.cleaning.sensors.clock import check_clock
from tasks.cleaning.sensors.interpolate import bridge
from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.sensors.readings import Floats, groups_of, numbers, times_of

MOST_FILLED = 1_000_000


def fill_gaps(frame: pl.DataFrame, rules: SensorRules, *, longest: float) -> pl.DataFrame:
    """Tell the readings that are missing from gaps, on the line between both ends.

    Readings with a finding against them are not relied on. The speed narrows an interval only
    where a person declared it.

    Args:
        frame: Texts.
        rules: ``interval`` and ``gap_after`` are needed.
        longest: Seconds; longer gaps are left alone.

    Returns:
        Columns of the group and of time (texts), ``column`` (Float64), ``low`` and ``high`` (95 %
        interval, Float64) and ``gap_seconds``.

    Raises:
        ValueError: Without an interval, or for more than a million readings.
    """
    if not rules.interval or not rules.gap_after:
        raise ValueError("gaps are filled at the sensor's interval: give interval and gap_after")
    found, _ = sensor_findings(frame, replace(rules, gap_after=0.0))
    doubtful = np.zeros(frame.height, bool)
    doubtful[found.filter(pl.col("column") == rules.column)["row"].to_numpy()] = True
    values, groups = numbers(frame[rules.column]), groups_of(frame, rules.group)
    times = times_of(frame[rules.time], rules.zone, groups)
    schema: dict[str, Any] = dict.fromkeys((*rules.group, rules.time), pl.String)
    schema |= dict.fromkeys((rules.column, "low", "high", "gap_seconds"), pl.Float64)
    parts = [pl.DataFrame(schema=schema)]
    count = 0
    fastest = 0.0 if "max_rate" in rules.confidence else rules.max_rate
    filled = frame[rules.time].is_not_null().to_numpy()
    for rows in groups:
        clock = check_clock(times[rows], filled[rows], rules)
        times[rows] = np.where(clock.usable, clock.times, np.nan)
        good = rows[~doubtful[rows] & np.isfinite(values[rows]) & np.isfinite(times[rows])]
        good = good[np.argsort(times[good], kind="stable")]
        if not len(good):
            continue
        steps = np.diff(times[good])
        wide = [
            i
            for i in np.flatnonzero((steps > rules.gap_after) & (steps <= longest)).tolist()
            # Where there are readings, though doubtful ones, there is no gap.
            if not _between(times[rows], times[good[i : i + 2]])
        ]
        wanted = [
            np.arange(times[good[i]] + rules.interval, times[good[i + 1]] - 1e-6, rules.interval)
            for i in wide
        ]
        count += sum(len(part) for part in wanted)
        if count > MOST_FILLED:
            raise ValueError(
                f"more than {MOST_FILLED:,} readings are missing; lower longest ({longest:g} s)"
            )
        like = frame[int(good[0]), rules.time]
        for i, points in zip(wide, wanted, strict=True):
            made = bridge(times[good], values[good], points, fastest)
            told = {
                **{name: [frame[int(rows[0]), name]] * len(points) for name in rules.group},
                rules.time: [as_text(t, like, rules.zone) for t in points.tolist()],
                rules.column: made.values,
                "low": made.low,
                "high": made.high,
                "gap_seconds": [float(steps[i])] * len(points),
            }
            parts.append(pl.DataFrame(told, schema=schema))
    return pl.concat(parts)


def _between(times: Floats, ends: Floats) -> bool:
    """Tell whether a reading stands between two times."""
    return bool(((times > ends[0]) & (times < ends[1])).any())
