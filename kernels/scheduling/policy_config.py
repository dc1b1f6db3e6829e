"""Settings of a placement policy, and the known policies as settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

ALWAYS = 1e6  # hours


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Which member of the family.

    Attributes:
        overtake: Later jobs may start while the first one waits.
        reserve_hours: They must not delay the first one that will fit within these hours, as far
            as is foretold; 0 holds nothing back, `ALWAYS` means the first one.
        share: Jobs share devices where memory and utilization fit.
        forecast: Durations are foretold from history, otherwise the user's limit is believed.
        load_limit: Largest sum of utilizations on a shared device.
        unmeasured: Utilization that a kind never measured is taken to have.
        tenants: Most jobs on one device; the cluster's limit holds, too.
        fullest_first: A job gets the fullest devices that can hold it, otherwise the emptiest.
        age: Weight of an hour of waiting in the order of the queue.
        size: Weight of each doubling of the number of devices.
        length: Weight of each doubling of the duration.
        load: Weight of the utilization.
        memory: Weight of the share of a device's memory.
        patience_hours: Who waited longer comes first whatever its score.
    """

    overtake: bool = True
    reserve_hours: float = ALWAYS
    share: bool = False
    forecast: bool = False
    load_limit: float = 1.0
    unmeasured: float = 1.0
    tenants: int = 3
    fullest_first: bool = True
    age: float = 1.0
    size: float = 0.0
    length: float = 0.0
    load: float = 0.0
    memory: float = 0.0
    patience_hours: float = 24.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.load_limit <= 0:
            raise ValueError(f"policy: load_limit must be above 0, got {self.load_limit}")
        if not 0 < self.unmeasured <= 1:
            raise ValueError(f"policy: unmeasured must lie in (0, 1], got {self.unmeasured}")
        if self.tenants < 1:
            raise ValueError(f"policy: tenants must be at least 1, got {self.tenants}")
        if self.patience_hours < 0:
            raise ValueError("policy: patience_hours must not be negative; 0 is arrival order")
        if self.reserve_hours < 0:
            raise ValueError("policy: reserve_hours must not be negative; 0 holds nothing back")
        weights = (self.age, self.size, self.length, self.load, self.memory)
        if not all(math.isfinite(weight) for weight in weights):
            raise ValueError("policy: age, size, length, load and memory must be finite")


FIFO = PolicyConfig(overtake=False)
EASY = PolicyConfig()
FIRST_FIT = PolicyConfig(reserve_hours=0.0, age=0.0, size=1.0)
EASY_SHARED = PolicyConfig(share=True)
FIRST_FIT_SHARED = PolicyConfig(reserve_hours=0.0, share=True, age=0.0, size=1.0)
BASELINES = {
    "fifo": FIFO,
    "easy": EASY,
    "first_fit": FIRST_FIT,
    "easy_shared": EASY_SHARED,
    "first_fit_shared": FIRST_FIT_SHARED,
}
"""Strict order, EASY backfill, first fit with the largest first, and the last two sharing."""
PROFILED = PolicyConfig(
    reserve_hours=0.5,
    share=True,
    forecast=True,
    load_limit=1.2,
    unmeasured=0.5,
    fullest_first=False,
    age=0.0,
    size=0.5,
    length=1.0,
    load=1.0,
    memory=1.0,
    patience_hours=48.0,
)
"""Where tuning starts: long, wide, heavy jobs first, on the emptiest devices that they fit on."""
