"""Jobs, and the devices that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

HOUR = 3_600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a policy knows of a job before it runs.

    Attributes:
        number: Number of the job, its own.
        kind: Who runs which program; jobs of a kind resemble each other.
        arrival: Second at which it is submitted.
        devices: Devices that it needs at the same time.
        memory: Its limit on each of them, GiB.
        estimate: Its user's limit, seconds alone on its devices; it never runs longer.
    """

    number: int
    kind: str
    arrival: float
    devices: int
    memory: float
    estimate: float

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not all(map(math.isfinite, (self.arrival, self.memory, self.estimate))):
            raise ValueError(f"job {self.number}: arrival, memory and estimate must be finite")
        if self.devices < 1:
            raise ValueError(f"job {self.number}: devices must be at least 1, got {self.devices}")
        if self.arrival < 0 or self.memory < 0:
            raise ValueError(f"job {self.number}: arrival and memory must not be negative")
        if self.estimate <= 0:
            raise ValueError(f"job {self.number}: estimate must be above 0 s, got {self.estimate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job and the truth about it, which a policy learns only by running it.

    Attributes:
        request: What is known before.
        duration: Seconds that it takes alone on its devices, at most the estimate.
        utilization: Share of each device's time that it then keeps busy, in (0, 1].
    """

    request: Request
    duration: float
    utilization: float

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        number = self.request.number
        if not 0 < self.duration <= self.request.estimate:
            raise ValueError(
                f"job {number}: duration must lie above 0 and not above the estimate of "
                f"{self.request.estimate} s, got {self.duration}; raise the estimate"
            )
        if not 0 < self.utilization <= 1:
            raise ValueError(
                f"job {number}: utilization must lie in (0, 1], got {self.utilization}; "
                "give a share, not percent"
            )

    @property
    def work(self) -> float:
        """Device-seconds of useful work."""
        return self.request.devices * self.duration * self.utilization


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Equal devices, and what sharing one costs.

    Jobs on a device whose utilizations sum to ``load`` each take
    ``max(1, load) * (1 + interference * load of the others)`` times as long: a full device is
    split, and even below that caches and the bus are shared.

    Attributes:
        devices: Number of devices.
        memory: Memory of each, GiB.
        tenants: Most jobs on one device.
        interference: Slowdown by a neighbour that keeps the device busy.
    """

    devices: int = 16
    memory: float = 16.0
    tenants: int = 3
    interference: float = 0.25

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.devices < 1 or self.tenants < 1:
            raise ValueError("cluster: devices and tenants must be at least 1")
        if self.memory <= 0:
            raise ValueError(f"cluster: memory must be above 0 GiB, got {self.memory}")
        if self.interference < 0:
            raise ValueError("cluster: interference must not be negative; 0 is none")

    def slowdown(self, own: float, load: float) -> float:
        """Return how many times longer a job takes on a device.

        Args:
            own: Its utilization.
            load: Sum of the utilizations of all jobs there, its own included.
        """
        return max(1.0, load) * (1.0 + self.interference * max(0.0, load - own))

    def check(self, jobs: Sequence[Job]) -> None:
        """Refuse jobs that could never run.

        Raises:
            ValueError: A job needs more than there is, or two have one number.
        """
        for job in jobs:
            request = job.request
            if request.devices > self.devices or request.memory > self.memory:
                raise ValueError(
                    f"job {request.number} needs {request.devices} devices of {request.memory} "
                    f"GiB, the cluster has {self.devices} of {self.memory}; split the job or "
                    "take it out"
                )
        if len({job.request.number for job in jobs}) < len(jobs):
            raise ValueError("two jobs have the same number; number them anew")
