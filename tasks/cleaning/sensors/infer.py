"""Rules of a sensor proposed from its data alone, each line with the share that keeps to it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from tasks.cleaning.profile.times import EPOCH, seconds_of
from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.sensors.readings import Floats, Ints, Readings, groups_of, numbers, series_of
from tasks.cleaning.sensors.spikes import find_spikes, inferred_threshold
from tasks.cleaning.sensors.stuck import find_stuck, inferred_stuck_after
from tasks.cleaning.sensors.tails import tail_of

LEAST_READINGS = 100
NEAR_INTERVAL = 0.1
REGULAR = 0.8
GAP_INTERVALS = 2.5
RATE_MARGIN = 1.25
ON_GRID = 0.9
GRIDS = (1000, 500, 250, 200, 125, 100, 50, 25, 20, 10, 5, 4, 2)
PEER_CORRELATION = 0.8
MOST_GROUPS = 1_000
MOST_SENSORS = 100
TIME_SHARE = 0.99


def infer_rules(
    frame: pl.DataFrame, column: str, time: str, group: tuple[str, ...] = ()
) -> SensorRules | None:
    """Propose the rules of one sensor; None with fewer than a hundred readings.

    Args:
        frame: Texts.
        column: The readings.
        time: The times.
        group: Columns that tell series apart.
    """
    series = [
        _in_order(one)
        for one in series_of(frame, SensorRules(column=column, time=time, group=group))
    ]
    count = sum(len(one.rows) for one in series)
    if count < LEAST_READINGS:
        return None
    steps = np.concatenate([np.diff(one.times) for one in series])
    steps = steps[steps > 0]
    interval = float(np.median(steps)) if len(steps) else 0.0
    regular = (
        float(np.mean(np.abs(steps - interval) <= NEAR_INTERVAL * interval)) if interval else 0.0
    )
    if not interval:
        return None
    gap_after = (
        GAP_INTERVALS * interval
        if regular >= REGULAR
        else max(GAP_INTERVALS * interval, tail_of(steps).bound(0.05))
    )
    resolution = resolution_of(frame[column])
    longest = max(series, key=lambda one: len(one.rows))
    stuck_after = max(
        (inferred_stuck_after(one.values, resolution, interval) for one in series), default=0.0
    )
    spike = inferred_threshold(longest.times, longest.values, resolution)
    rate = _rate(series, gap_after)
    lines = {
        "interval": regular,
        "gap_after": float(np.mean(steps <= gap_after)),
        "stuck_after": 1.0 - _share(series, stuck_after, resolution) if stuck_after else 0.0,
        "spike": _calm(longest, spike, resolution) if spike else 0.0,
        "max_rate": _slow(series, rate) if rate else 0.0,
    }
    return SensorRules(
        column=column,
        time=time,
        group=group,
        interval=interval,
        gap_after=gap_after,
        resolution=resolution,
        stuck_after=stuck_after,
        spike=spike,
        max_rate=rate,
        confidence={name: round(sure, 6) for name, sure in lines.items() if sure > 0},
    )


def infer_sensors(frame: pl.DataFrame, columns: Iterable[str]) -> tuple[SensorRules, ...]:
    """Propose the sensors of a table: numbers taken at regular times; () where there are none.

    Payments, orders and the like come at any time, and are no series.

    Args:
        frame: Texts.
        columns: Columns of numbers.
    """
    names = [name for name in columns if frame[name].n_unique() >= 3][:MOST_SENSORS]
    if frame.height < LEAST_READINGS or not names:
        return ()
    for time in (name for name in frame.columns if _holds_times(frame[name])):
        for group in _groupings(frame, {time, *names}):
            if not _is_regular(frame, time, group):
                continue
            made = [infer_rules(frame, name, time, group) for name in names if name not in group]
            return tuple(_with_peers(frame, [one for one in made if one is not None]))
    return ()


def resolution_of(column: pl.Series) -> float:
    """Return the step of the grid that nearly all readings lie on; 0 where there is none."""
    text = column.drop_nulls().str.strip_chars()
    found = text.str.extract(r"^[+-]?\d*\.(\d+)$", 1).str.len_chars().fill_null(0)
    decimals = int(found.max() or 0)  # type: ignore[arg-type]
    values = numbers(column)
    values = values[~np.isnan(values)]
    if not len(values) or decimals > 9 or np.abs(values).max() * 10.0**decimals > 2**53:
        return 0.0
    whole = np.round(values * 10.0**decimals).astype(np.int64)
    for grid in GRIDS:
        rest = whole % grid
        most = np.bincount(rest).max()
        if most >= ON_GRID * len(whole) and len(np.unique(whole)) > 1:
            return float(grid / 10.0**decimals)
    return float(10.0**-decimals)


def _in_order(one: Readings) -> Readings:
    known = np.flatnonzero(~np.isnan(one.times) & ~np.isnan(one.values))
    known = known[np.argsort(one.times[known], kind="stable")]
    new = np.ones(len(known), bool)
    new[1:] = np.diff(one.times[known]) > 0
    return one.at(known[new])


def _rates(one: Readings) -> Floats:
    return np.asarray(np.abs(np.diff(one.values)) / np.diff(one.times))


def _rate(series: list[Readings], gap_after: float) -> float:
    """Return the speed that no ordinary step reaches, by the tail of the speeds."""
    rates = np.concatenate([_rates(one)[np.diff(one.times) <= gap_after] for one in series])
    return RATE_MARGIN * tail_of(rates).bound(0.05)


def _slow(series: list[Readings], rate: float) -> float:
    return float(np.mean(np.concatenate([_rates(one) for one in series]) <= rate))


def _share(series: list[Readings], stuck_after: float, resolution: float) -> float:
    found = [find_stuck(one.times, one.values, stuck_after, resolution).found for one in series]
    return float(np.concatenate(found).mean())


def _calm(one: Readings, spike: float, resolution: float) -> float:
    made = find_spikes(one.times, one.values, threshold=spike, length=3, resolution=resolution)
    return 1.0 - float(made.found.mean())


def _holds_times(column: pl.Series) -> bool:
    text = column.drop_nulls()
    if len(text) < LEAST_READINGS or text.head(100).str.contains(EPOCH).any():
        return False
    sample = text.gather_every(max(1, len(text) // 1_000))
    made = seconds_of(sample)
    return float(np.isfinite(made).mean()) >= TIME_SHARE and len(np.unique(made)) > 2


def _groupings(frame: pl.DataFrame, taken: set[str]) -> list[tuple[str, ...]]:
    """Return no group, then every single column of few values."""
    few = [
        name
        for name in frame.columns
        if name not in taken and 1 < frame[name].n_unique() <= min(MOST_GROUPS, frame.height // 20)
    ]
    return [(), *((name,) for name in few)]


def _is_regular(frame: pl.DataFrame, time: str, group: tuple[str, ...]) -> bool:
    times = seconds_of(frame[time])
    steps = [np.diff(times[rows]) for rows in groups_of(frame, group)]
    every = np.concatenate(steps)
    usual = float(np.nanmedian(every)) if len(every) else 0.0
    return usual > 0 and float(np.mean(np.abs(every - usual) <= NEAR_INTERVAL * usual)) >= REGULAR


def _with_peers(frame: pl.DataFrame, rules: list[SensorRules]) -> list[SensorRules]:
    """Name the sensors whose readings rise and fall with each one's."""
    from dataclasses import replace

    if len(rules) < 2:
        return rules
    levels = pl.DataFrame({one.column: numbers(frame[one.column]) for one in rules}).select(
        pl.all().fill_nan(None).rank().fill_null(strategy="forward").fill_null(0.0)
    )
    with np.errstate(invalid="ignore"):
        together = np.nan_to_num(np.abs(np.corrcoef(levels.to_numpy().T)))
    made = []
    for i, one in enumerate(rules):
        near: Ints = np.flatnonzero(
            (together[i] >= PEER_CORRELATION) & (np.arange(len(rules)) != i)
        )
        names = tuple(rules[j].column for j in near.tolist())
        sure = {"peers": round(float(together[i][near].min()), 6)} if names else {}
        made.append(replace(one, peers=names, confidence={**one.confidence, **sure}))
    return made
