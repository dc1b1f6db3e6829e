"""All checks of one sensor, in the order in which they depend on each other.

Clock first, so that a jumped clock is no gap and no speed; then gaps, changes of unit (converted
back, so that their edges are no spikes), stuck stretches (left out of what follows), spikes, speed
and drift. Suggestions are more than half sure, and so carried out, only for spikes and speed, and
only where the bound on harm holds; whatever concerns a whole stretch waits for a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from tasks.cleaning.findings import findings_of, joined
from tasks.cleaning.profile.times import as_text
from tasks.cleaning.repair.bound import HarmBound
from tasks.cleaning.sensors.clock import KINDS, check_clock
from tasks.cleaning.sensors.drift import find_drift
from tasks.cleaning.sensors.interpolate import interpolate
from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.sensors.readings import (
    Bools,
    Floats,
    Ints,
    Readings,
    groups_of,
    numbers,
    runs_of,
    times_of,
)
from tasks.cleaning.sensors.speed import minimum_change, too_fast
from tasks.cleaning.sensors.spikes import deviation, find_spikes
from tasks.cleaning.sensors.stuck import STATE_CONFIDENCE, STUCK_CONFIDENCE, find_stuck
from tasks.cleaning.sensors.units import UnitChange, find_unit_changes

VERSION = "sensors/1"
GAP_CONFIDENCE = 0.1  # readings left out are no wrong cell
CLOCK_CONFIDENCE: Mapping[str, float] = {
    "clock-duplicate": 0.9,
    "clock-backward": 0.9,
    "clock-jump": 0.9,
    "clock-dst": 0.8,
    "clock-impossible": 1.0,
}
EXPECTED: Mapping[str, str] = {
    "clock-duplicate": "a time of its own",
    "clock-backward": "a time after the one before",
    "clock-jump": "a time one interval after the one before",
    "clock-dst": "a zone, or times in UTC: the clock was set back by an hour",
    "clock-impossible": "a time that a clock of the zone showed",
}
SHARED = 0.2  # peers or later readings show the same: the process did it
PART_OF_A_CASE = 0.1
MOST_SURE = 0.99
PERSISTS = 5
REVIEW = 0.5  # what is no surer is not carried out


@dataclass(slots=True)
class _Cells:
    """Findings of one rule, collected over the groups."""

    rows: list[int] = field(default_factory=list)
    suggestions: list[str | None] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    premises: list[str] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    backed: list[bool] = field(default_factory=list)

    def add(
        self,
        row: int,
        expected: str,
        premise: str,
        confidence: float,
        suggestion: str | None = None,
        *,
        backed: bool = False,
    ) -> None:
        self.rows.append(int(row))
        self.suggestions.append(suggestion)
        self.expected.append(expected)
        self.premises.append(premise)
        self.confidence.append(confidence)
        self.backed.append(backed)


def sensor_findings(
    frame: pl.DataFrame, rules: SensorRules, alpha: float = 0.01
) -> tuple[pl.DataFrame, dict[str, HarmBound]]:
    """Check one sensor.

    Args:
        frame: Texts, rows numbered from 0.
        rules: What is known of it.
        alpha: Share of the sensor's correct readings that a rule may change by itself at most.

    Returns:
        ``FINDINGS`` (rules ``spike:COLUMN`` and so on; of clock and gap on the column of times),
        and the bounds of ``spike`` and ``speed``.
    """
    check = _Check(frame, rules)
    values, peers = numbers(frame[rules.column]), [numbers(frame[name]) for name in rules.peers]
    groups = groups_of(frame, rules.group)
    times = times_of(frame[rules.time], rules.zone, groups)
    filled = frame[rules.time].is_not_null().to_numpy()
    for rows in groups:
        check.group(
            Readings(rows, times[rows], values[rows]),
            filled[rows],
            np.column_stack([peer[rows] for peer in peers]) if peers else None,
        )
    return check.findings(alpha)


class _Check:
    """The checks over one group after the other; what they share is the findings and the bounds."""

    def __init__(self, frame: pl.DataFrame, rules: SensorRules) -> None:
        self.frame, self.rules = frame, rules
        self.cells: dict[tuple[str, str], _Cells] = {}
        self.readings = 0
        self.exceptions = {"spike": 0, "speed": 0}
        self.decimals = _decimals(frame[rules.column])

    def at(self, rule: str, column: str) -> _Cells:
        return self.cells.setdefault((rule, column), _Cells())

    def group(self, all_of_it: Readings, filled: Bools, peers: Floats | None) -> None:
        rules = self.rules
        clock = check_clock(all_of_it.times, filled, rules)
        self._clock(all_of_it.rows, clock.fault, clock.shift, all_of_it.times)
        use = np.flatnonzero(clock.usable & ~np.isnan(all_of_it.values))
        use = use[np.argsort(clock.times[use], kind="stable")]
        rows, times, written = all_of_it.rows[use], clock.times[use], all_of_it.values[use]
        beside = peers[use] if peers is not None else None
        self.readings += len(use)
        self._gaps(rows, times)
        changes = find_unit_changes(written, rules.resolution)
        values = written.copy()
        # What is told of a reading there is in the other unit: a person decides on both together.
        converted = np.zeros(len(use), bool)
        for change in changes:
            converted[change.begin : change.end] = True
            values[change.begin : change.end] = change.conversion.back(
                written[change.begin : change.end]
            )
            self._unit(rows, values, change)
        stuck = find_stuck(times, written, rules.stuck_after, rules.resolution)
        for i in np.flatnonzero(stuck.found).tolist():
            self.at("stuck", rules.column).add(
                rows[i],
                f"a change within {rules.stuck_after:g} s",
                f"the same for {stuck.seconds[i]:g} s"
                + (", as at other times" if stuck.state[i] else ""),
                STATE_CONFIDENCE if stuck.state[i] else STUCK_CONFIDENCE,
            )
        moving = np.flatnonzero(~stuck.found)
        part = beside[moving] if beside is not None else None
        doubted = converted[moving]
        clean = self._spikes(rows[moving], times[moving], values[moving], part, doubted)
        if rules.max_rate and len(moving):
            self._speed(rows[moving], times[moving], clean, doubted)
        if rules.drift or rules.peers:
            self._drift(rows[moving], clean, part)

    def _clock(self, rows: Ints, fault: Ints, shift: Floats, times: Floats) -> None:
        name = self.rules.time
        for i in np.flatnonzero(fault >= 0).tolist():
            kind, by = KINDS[fault[i]], float(shift[i])
            known = np.isfinite(by)
            text = self.frame[int(rows[i]), name]
            self.at(kind, name).add(
                rows[i],
                EXPECTED[kind],
                f"{-by:+g} s off, as later times show" if known else "times in the file's order",
                # A right time is put in by a person: other tables may hold the wrong one, too.
                REVIEW if known else CLOCK_CONFIDENCE[kind],
                as_text(times[i] + by, text, self.rules.zone) if known else None,
            )

    def _gaps(self, rows: Ints, times: Floats) -> None:
        if not self.rules.gap_after:
            return
        steps = np.diff(times)
        for i in np.flatnonzero(steps > self.rules.gap_after).tolist():
            self.at("gap", self.rules.time).add(
                rows[i + 1],
                f"a reading of {self.rules.column} within {self.rules.gap_after:g} s",
                f"{steps[i]:g} s without one",
                GAP_CONFIDENCE,
            )

    def _unit(self, rows: Ints, values: Floats, change: UnitChange) -> None:
        cells, conversion = self.at("unit", self.rules.column), change.conversion
        premise = (
            f"{change.end - change.begin} readings look like {conversion.name} and fit "
            f"their neighbours once converted back; {change.confidence:.3f} sure"
        )
        for i in range(change.begin, change.end):
            cells.add(rows[i], "the unit of the others", premise, REVIEW, self._text(values[i]))

    def _spikes(
        self, rows: Ints, times: Floats, values: Floats, peers: Floats | None, doubted: Bools
    ) -> Floats:
        """Note spikes and return the readings without them."""
        rules = self.rules
        made = find_spikes(
            times,
            values,
            threshold=rules.spike,
            length=rules.spike_length,
            resolution=rules.resolution,
            gap=rules.gap_after,
        )
        places = np.flatnonzero(made.found)
        held = int(made.held.sum())
        self.exceptions["spike"] += held
        if not len(places):
            return values
        told = interpolate(times, values, ~made.found, places)
        if told is None:
            return values
        shared = _shared(values, made.found, peers)
        self.exceptions["spike"] += int(shared.sum())
        rest = held + PART_OF_A_CASE
        sure = min(MOST_SURE, 1.0 - rest / (len(places) + rest))
        clean = values.copy()
        for k, i in enumerate(places.tolist()):
            self.at("spike", rules.column).add(
                rows[i],
                f"{told.low[k]:.6g} to {told.high[k]:.6g} (95 %)",
                f"{made.score[i]:.1f} robust deviations off its neighbours and back"
                + (", as its peers" if shared[i] else ""),
                SHARED if shared[i] else sure,
                self._text(told.values[k]),
                backed=bool(shared[i] or doubted[i]),
            )
            if not shared[i]:
                clean[i] = told.values[k]
        return clean

    def _speed(self, rows: Ints, times: Floats, values: Floats, doubted: Bools) -> None:
        rules = self.rules
        fast = too_fast(times, values, rules.max_rate)
        if not fast.any():
            return
        made = minimum_change(times, values, rules.max_rate)
        stays = _persisting(values, fast)
        doubt = SHARED if "max_rate" in rules.confidence else REVIEW
        for begin, end in runs_of(made != values):
            # Held before and after: the process jumped, whatever the bound says.
            backed = bool(stays[max(0, begin - 1) : end + 1].any())
            backed |= end - begin > 2 * rules.spike_length
            self.exceptions["speed"] += (end - begin) * backed
            for i in range(begin, end):
                self.at("speed", rules.column).add(
                    rows[i],
                    f"at most {rules.max_rate:g} a second",
                    "the level stayed: the process may have jumped"
                    if backed
                    else "the least change that keeps the speed",
                    doubt if backed else MOST_SURE,
                    None if backed else self._text(made[i]),
                    backed=backed or bool(doubted[i]),
                )

    def _drift(self, rows: Ints, values: Floats, peers: Floats | None) -> None:
        drift = find_drift(values, peers, self.rules.drift)
        than = "its peers" if peers is not None else "its own first part"
        for i in np.flatnonzero(drift.found).tolist():
            self.at("drift", self.rules.column).add(
                rows[i],
                f"an offset of {drift.limit:.4g} at most from {than}",
                f"slowly moved by {drift.offset[i]:.4g}",
                REVIEW,
                self._text(values[i] - drift.offset[i]),
            )

    def findings(self, alpha: float) -> tuple[pl.DataFrame, dict[str, HarmBound]]:
        """Return what was found; what may not be carried out by itself is at most half sure."""
        bounds = {
            f"{rule}:{self.rules.column}": HarmBound(exceptions, self.readings)
            for rule, exceptions in self.exceptions.items()
        }
        parts = []
        for (rule, column), cells in self.cells.items():
            name = f"{rule}:{column}"
            confidence = np.array(cells.confidence)
            if name in bounds:
                alone = bounds[name].holds(alpha) & ~np.array(cells.backed, bool)
                # A speed that was only inferred, and is exceeded by jumps that stay, says little.
                guessed = rule == "speed" and "max_rate" in self.rules.confidence
                most = SHARED if guessed else REVIEW
                confidence = np.where(alone, confidence, np.minimum(confidence, most))
            made = pl.DataFrame(
                {
                    "row": cells.rows,
                    "observed": self.frame[column].gather(cells.rows),
                    "suggestion": pl.Series(cells.suggestions, dtype=pl.String),
                    "expected": cells.expected,
                    "premise": cells.premises,
                    "confidence": confidence,
                }
            )
            parts.append(findings_of(made, column=column, rule=name, detector_version=VERSION))
        return joined(parts), bounds

    def _text(self, value: float) -> str:
        return f"{value:.{self.decimals}f}"


def _decimals(column: pl.Series) -> int:
    """Return how many digits after the point most readings are written with at most."""
    found = column.cast(pl.String).str.extract(r"^\s*[+-]?\d*\.(\d+)\s*$", 1).str.len_chars()
    return min(12, int(found.fill_null(0).quantile(0.99, "higher") or 0))


def _shared(values: Floats, found: Bools, peers: Floats | None) -> Bools:
    """Return the spikes that a peer shows at the same time, to the same side."""
    shared = np.zeros(len(values), bool)
    if peers is None:
        return shared
    up = _away(values, found) > 0
    for peer in peers.T:
        known = ~np.isnan(peer)
        filled = (
            np.interp(np.arange(len(peer)), np.flatnonzero(known), peer[known])
            if known.any()
            else peer
        )
        away = _away(filled, found)
        scale = deviation(filled, 0.0) if known.any() else np.ones(len(peer))
        shared |= found & known & (np.abs(away) > 4.0 * scale) & ((away > 0) == up)
    return shared


def _away(values: Floats, found: Bools) -> Floats:
    """Return the distance of each reading from the line between those that were not found."""
    places = np.arange(len(values))
    return values - np.interp(places, places[~found], values[~found])


def _persisting(values: Floats, fast: Bools) -> Bools:
    """Return the readings [n] at steps that are too fast whose level stays."""
    stays = np.zeros(len(values), bool)
    for i in np.flatnonzero(fast).tolist():
        before = values[max(0, i + 1 - PERSISTS) : i + 1]
        after = values[i + 1 : i + 1 + PERSISTS]
        moved = float(np.median(after) - np.median(before))
        step = float(values[i + 1] - values[i])
        if moved * step > 0 and abs(moved) > 0.5 * abs(step):
            stays[i : i + 2] = True
    return stays
