"""What is known of one sensor: a ``[[sensor]]`` of a contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from tasks.cleaning.profile.times import require_zone


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorRules:
    """How one sensor writes. A line left at 0 or empty is not checked.

    Attributes:
        column: Its readings, numbers.
        time: When each was taken: ISO times or seconds since 1970.
        group: Columns that tell series apart, for example machine and sensor number.
        zone: Zone of local times, for example ``Europe/Berlin``; "" for UTC.
        interval: Seconds from one reading to the next.
        clock_tolerance: Seconds by which a step may differ from ``interval``; 0: half of it.
        gap_after: Seconds without a reading that are a gap.
        resolution: Smallest step that the sensor can show, in units of the readings.
        stuck_after: Seconds without any change that a working sensor does not show.
        spike: Robust deviations by which a reading leaves its neighbours and comes back.
        spike_length: Most readings of one spike; what lasts longer is the process.
        max_rate: Fastest change, units per second.
        drift: Largest slow offset from the peers (without peers: from its own first part), units;
            0 with peers: six robust deviations.
        peers: Columns of sensors that measure the same or go with it.
        confidence: How sure an inferred line is, by its name; a person's lines are not in it.
    """

    column: str
    time: str
    group: tuple[str, ...] = ()
    zone: str = ""
    interval: float = 0.0
    clock_tolerance: float = 0.0
    gap_after: float = 0.0
    resolution: float = 0.0
    stuck_after: float = 0.0
    spike: float = 0.0
    spike_length: int = 3
    max_rate: float = 0.0
    drift: float = 0.0
    peers: tuple[str, ...] = ()
    confidence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject bounds that no series could meet.

        Raises:
            ValueError: With the line at fault and how to mend it.
        """
        if not self.column or not self.time or self.column == self.time:
            raise ValueError("a sensor needs a column of readings and another one of times")
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int | float) and not 0.0 <= value < float("inf"):
                raise ValueError(f"{f.name} is {value}; give a positive number, 0 for no check")
        if self.interval and 0.0 < self.gap_after <= self.interval:
            raise ValueError(
                f"gap_after {self.gap_after} is not above interval {self.interval}: every step "
                "would be a gap"
            )
        if not 1 <= self.spike_length <= 20:
            raise ValueError(f"spike_length is {self.spike_length}; give 1 to 20 readings")
        if self.column in self.peers:
            raise ValueError(f"peers of {self.column!r} are other columns")
        require_zone(self.zone)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is named."""
        return (self.column, self.time, *self.group, *self.peers)

    @property
    def tolerance(self) -> float:
        """Seconds by which a step may differ from the interval."""
        return self.clock_tolerance or 0.5 * self.interval
