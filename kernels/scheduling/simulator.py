"""Replays a trace under a policy: exact, event by event, the same for the same input.

A job progresses at the pace of its slowest device, whose jobs slow each other down as the cluster
says. Between two events every pace is constant, so the time of the next end is exact.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.scheduling.jobs import Cluster, Job, Request
from kernels.scheduling.policy import Policy, Running, Start, View

PROBE_SECONDS = 300.0
SLACK = 1e-9


class PlacementError(Exception):
    """A policy put a job where it does not fit; a fault of the policy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """When and where a job ran.

    Attributes:
        job: The job.
        start: Second.
        end: Second.
        devices: Where.
    """

    job: Job
    start: float
    end: float
    devices: tuple[int, ...]

    @property
    def wait(self) -> float:
        """Seconds in the queue."""
        return self.start - self.job.request.arrival


@dataclass(frozen=True, slots=True)
class Replay:
    """A whole trace, run.

    Attributes:
        cluster: The devices.
        outcomes: One for each job, by end.
    """

    cluster: Cluster
    outcomes: tuple[Outcome, ...]

    @property
    def makespan(self) -> float:
        """Seconds from the first arrival to the last end."""
        first = min(o.job.request.arrival for o in self.outcomes)
        return max(o.end for o in self.outcomes) - first

    @property
    def utilization(self) -> float:
        """Device-seconds of useful work over devices times makespan.

        Useful is what the jobs would keep busy alone; slowdown by sharing is not work.
        """
        return sum(o.job.work for o in self.outcomes) / (self.cluster.devices * self.makespan)

    @property
    def allocation(self) -> float:
        """Share of the devices' time in which at least one job lies on them."""
        held = sum(_union(self.outcomes, device) for device in range(self.cluster.devices))
        return held / (self.cluster.devices * self.makespan)

    @property
    def mean_wait(self) -> float:
        """Mean seconds in the queue."""
        return float(np.mean([o.wait for o in self.outcomes]))

    @property
    def longest_wait(self) -> float:
        """Longest of them."""
        return max(o.wait for o in self.outcomes)

    @property
    def mean_slowdown(self) -> float:
        """Mean of time in the system over duration alone, jobs below ten minutes taken as ten.

        Bounded slowdown (Feitelson et al. 1997).
        """
        whole = np.array([o.end - o.job.request.arrival for o in self.outcomes])
        alone = np.array([o.job.duration for o in self.outcomes])
        return float(np.maximum(whole / np.maximum(alone, 600.0), 1.0).mean())


def simulate(jobs: Sequence[Job], policy: Policy) -> Replay:
    """Run all jobs.

    Args:
        jobs: In any order.
        policy: Decides; it learns while it does.

    Returns:
        What became of each job.

    Raises:
        ValueError: There is no job, or one that the cluster cannot hold.
        PlacementError: The policy broke a rule, or lets jobs wait on idle devices for ever.
    """
    if not jobs:
        raise ValueError("simulate: no jobs; give at least one")
    policy.cluster.check(jobs)
    return _Simulation(jobs, policy).run()


class _Simulation:
    def __init__(self, jobs: Sequence[Job], policy: Policy) -> None:
        self._policy = policy
        self._cluster = policy.cluster
        self._truth = {job.request.number: job for job in jobs}
        self._coming = deque(
            sorted((job.request for job in jobs), key=lambda r: (r.arrival, r.number))
        )
        self._queue: dict[int, Request] = {}
        self._running: dict[int, Running] = {}
        self._pace: dict[int, float] = {}
        self._end: dict[int, float] = {}
        self._on: list[set[int]] = [set() for _ in range(self._cluster.devices)]
        self._now = 0.0
        self._outcomes: list[Outcome] = []

    def run(self) -> Replay:
        while self._coming or self._running or self._queue:
            self._advance()
            self._finish()
            self._measure()
            while self._coming and self._coming[0].arrival <= self._now:
                request = self._coming.popleft()
                self._queue[request.number] = request
            view = View(self._now, list(self._queue.values()), self._running)
            for start in self._policy.choose(view):
                self._place(start)
        return Replay(self._cluster, tuple(self._outcomes))

    def _advance(self) -> None:
        probes = (r.start + PROBE_SECONDS for r in self._running.values() if r.measured is None)
        coming = self._coming[0].arrival if self._coming else math.inf
        time = min(coming, *self._end.values(), *probes, math.inf)
        if math.isinf(time):
            raise PlacementError(f"{len(self._queue)} jobs wait, nothing runs and nothing comes")
        for number, job in self._running.items():
            job.ran += (time - self._now) * self._pace[number]
        self._now = time

    def _finish(self) -> None:
        ended = sorted(number for number, end in self._end.items() if end <= self._now)
        for number in ended:
            job, truth = self._running.pop(number), self._truth[number]
            del self._end[number], self._pace[number]
            for device in job.devices:
                self._on[device].remove(number)
            self._outcomes.append(Outcome(truth, job.start, self._now, job.devices))
            if job.measured is None:
                self._policy.measured(job.request, truth.utilization)
            self._policy.finished(job.request, truth.duration)
        self._set_paces({d for o in self._outcomes[-len(ended) :] for d in o.devices}, ended)

    def _measure(self) -> None:
        for number, job in self._running.items():
            if job.measured is None and job.start + PROBE_SECONDS <= self._now:
                job.measured = self._truth[number].utilization
                self._policy.measured(job.request, job.measured)

    def _place(self, start: Start) -> None:
        request = self._queue.get(start.number)
        if request is None:
            raise PlacementError(f"job {start.number} does not wait")
        places = set(start.devices)
        if len(places) != request.devices or len(start.devices) != request.devices:
            raise PlacementError(f"job {start.number} needs {request.devices} different devices")
        for device in places:
            if not 0 <= device < self._cluster.devices:
                raise PlacementError(f"job {start.number}: there is no device {device}")
            there = [self._running[number].request for number in self._on[device]]
            memory = sum(other.memory for other in there) + request.memory
            if len(there) >= self._cluster.tenants or memory > self._cluster.memory + SLACK:
                raise PlacementError(f"job {start.number} does not fit on device {device}")
        del self._queue[start.number]
        self._running[start.number] = Running(request, start.devices, self._now)
        for device in places:
            self._on[device].add(start.number)
        self._set_paces(places, [start.number])

    def _set_paces(self, changed: set[int], cause: Sequence[int]) -> None:
        """Give jobs on changed devices their pace and the second of their end."""
        if not cause:
            return
        for number in {other for device in changed for other in self._on[device]}:
            job, truth = self._running[number], self._truth[number]
            load = max(
                sum(self._truth[other].utilization for other in sorted(self._on[device]))
                for device in job.devices
            )
            pace = 1 / self._cluster.slowdown(truth.utilization, load)
            if pace != self._pace.get(number):
                self._pace[number] = pace
                self._end[number] = self._now + max(0.0, truth.duration - job.ran) / pace


def _union(outcomes: Sequence[Outcome], device: int) -> float:
    spans = sorted((o.start, o.end) for o in outcomes if device in o.devices)
    held, until = 0.0, -math.inf
    for start, end in spans:
        held += max(0.0, end - max(start, until))
        until = max(until, end)
    return held
