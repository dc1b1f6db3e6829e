"""What lies on each device, as a policy foretells it, and where another job fits."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.scheduling.jobs import Cluster, Request

SLACK = 1e-9  # sums of memory and shares are rounded


class Occupancy:
    """Load, memory and number of jobs of each device.

    Args:
        cluster: The devices.
        load_limit: Largest sum of utilizations on a device with more than one job.
        tenants: Most jobs on one device.

    Attributes:
        ends: Second, job, utilization and devices of each job that will leave.
    """

    def __init__(self, cluster: Cluster, load_limit: float, tenants: int) -> None:
        self._cluster = cluster
        self._limit = load_limit
        self._most = tenants
        self._load = [0.0] * cluster.devices
        self._memory = [0.0] * cluster.devices
        self._tenants = [0] * cluster.devices
        self.ends: list[tuple[float, Request, float, tuple[int, ...]]] = []

    def set_levels(self, device: int, *, load: float, memory: float, tenants: int) -> None:
        """Say what lies on a device, where single jobs are not known."""
        self._load[device], self._memory[device] = load, memory
        self._tenants[device] = tenants

    def copy(self) -> Occupancy:
        """Return one that changes by itself; without ends."""
        made = Occupancy(self._cluster, self._limit, self._most)
        made._load = self._load.copy()
        made._memory = self._memory.copy()
        made._tenants = self._tenants.copy()
        return made

    def add(
        self, request: Request, used: float, devices: Sequence[int], *, end: float | None = None
    ) -> None:
        """Put a job on devices; with ``end``, noted as the second at which it leaves them."""
        for device in devices:
            self._load[device] += used
            self._memory[device] += request.memory
            self._tenants[device] += 1
        if end is not None:
            self.ends.append((end, request, used, tuple(devices)))

    def remove(self, request: Request, used: float, devices: Sequence[int]) -> None:
        """Take a job off."""
        for device in devices:
            self._tenants[device] -= 1
            empty = not self._tenants[device]
            self._load[device] = 0.0 if empty else self._load[device] - used
            self._memory[device] = 0.0 if empty else self._memory[device] - request.memory

    def has_room(self) -> bool:
        """Whether any device could take another job at all."""
        limit, most = self._limit, self._most
        return any(
            not count or (count < most and load < limit)
            for count, load in zip(self._tenants, self._load, strict=True)
        )

    def fits(self, request: Request, used: float) -> bool:
        """Whether a job could start."""
        return len(self._open(request, used)) >= request.devices

    def place(
        self, request: Request, used: float, *, fullest_first: bool
    ) -> tuple[int, ...] | None:
        """Return devices for a job, or None; ties go to the lower numbers.

        Args:
            request: The job.
            used: Its utilization.
            fullest_first: Take the fullest devices that can hold it, otherwise the emptiest;
                full is the sum of load and share of memory.
        """
        found = self._open(request, used)
        if len(found) < request.devices:
            return None
        sign, memory = (-1 if fullest_first else 1), self._cluster.memory

        def rank(device: int) -> tuple[float, int]:
            return sign * (self._load[device] + self._memory[device] / memory), device

        found.sort(key=rank)
        return tuple(sorted(found[: request.devices]))

    def slowdown(self, used: float, devices: Sequence[int], *, there: bool = False) -> float:
        """Return how many times longer a job takes on devices; it waits for the slowest.

        Args:
            used: Its utilization.
            devices: Where.
            there: It is on them already.
        """
        load = max(self._load[device] for device in devices) + (0.0 if there else used)
        return self._cluster.slowdown(used, load)

    def _open(self, request: Request, used: float) -> list[int]:
        room = self._cluster.memory - request.memory + SLACK
        limit, most = self._limit - used + SLACK, self._most
        load, memory, tenants = self._load, self._memory, self._tenants
        return [
            device
            for device in range(len(load))
            if not tenants[device]
            or (tenants[device] < most and load[device] <= limit and memory[device] <= room)
        ]
