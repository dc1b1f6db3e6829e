"""Traces of jobs drawn from fixed, documented distributions.

The distributions follow published traces in shape: mostly one-device jobs, half-used devices
(52 % on average) and durations over four orders of magnitude (Jeon et al., USENIX ATC 2019);
programs that are run again and again by the same user, and are alike (Weng et al., NSDI 2022; Hu
et al., SC 2021); limits of users that are a multiple of the duration, by any factor, rounded up
to what people like to write (Mu'alem and Feitelson, IEEE TPDS 2001; Tsafrir et al., 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernels.scheduling.jobs import HOUR, Cluster, Job, Request

WRITTEN_HOURS = (0.25, 0.5, 1, 2, 4, 6, 8, 12, 18, 24, 36, 48, 72, 96, 120, 168, 240)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceConfig:
    """Distributions of a trace.

    Attributes:
        jobs: Number of jobs.
        hours: They arrive within these hours, most of them in the middle (sum of two uniforms).
        devices: Numbers of devices, and below their shares.
        device_shares: Share of the jobs that need each.
        kinds: Programs that are run again; their popularity falls by Zipf's law.
        new: Share of the jobs whose program runs only once.
        median_minutes: Median duration over all programs.
        kind_spread: Standard deviation of the logarithm of a program's median.
        run_spread: That of the duration of a program's runs.
        least_minutes: Shortest duration.
        most_hours: Longest duration.
        accuracy: Duration over the user's limit is uniform from here to 1, before rounding up.
        utilization: Parameters of the beta distribution of a program's utilization.
        utilization_spread: Standard deviation of its runs.
        memory: Parameters of the beta distribution of a program's share of a device's memory.
    """

    jobs: int = 240
    hours: float = 12.0
    devices: tuple[int, ...] = (1, 2, 4, 8, 16)
    device_shares: tuple[float, ...] = (0.70, 0.12, 0.10, 0.06, 0.02)
    kinds: int = 60
    new: float = 0.3
    median_minutes: float = 30.0
    kind_spread: float = 1.3
    run_spread: float = 0.9
    least_minutes: float = 1.0
    most_hours: float = 12.0
    accuracy: float = 0.05
    utilization: tuple[float, float] = (2.0, 2.0)
    utilization_spread: float = 0.04
    memory: tuple[float, float] = (2.0, 3.0)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.jobs < 1 or self.kinds < 1:
            raise ValueError("trace: jobs and kinds must be at least 1")
        if len(self.devices) != len(self.device_shares):
            raise ValueError("trace: one share for each of the numbers of devices")
        if abs(sum(self.device_shares) - 1) > 1e-9:
            raise ValueError("trace: device_shares must sum to 1")
        if not 0 < self.accuracy <= 1:
            raise ValueError(f"trace: accuracy must lie in (0, 1], got {self.accuracy}")


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    log_seconds: float
    utilization: float
    memory: float


class TraceGenerator:
    """One cluster's programs; each day has other runs of the same ones.

    Args:
        config: Distributions.
        cluster: Devices that the jobs are for.
        seed: Which cluster.
    """

    def __init__(self, config: TraceConfig, cluster: Cluster, seed: int) -> None:
        self._config = config
        self._cluster = cluster
        self._seed = seed
        rng = np.random.default_rng((seed, 0))
        self._kinds = [self._kind(f"program-{i}", rng) for i in range(config.kinds)]
        weights = 1 / np.arange(1, config.kinds + 1)
        self._popularity = weights / weights.sum()

    def day(self, number: int) -> list[Job]:
        """Return the jobs of a day by arrival; the same for the same numbers.

        Args:
            number: Which day, from 0 on.
        """
        config = self._config
        rng = np.random.default_rng((self._seed, 1 + number))
        arrivals = np.sort(rng.uniform(0, config.hours * HOUR / 2, (config.jobs, 2)).sum(1))
        arrivals -= arrivals[0]
        counts = np.minimum(
            rng.choice(config.devices, config.jobs, p=config.device_shares), self._cluster.devices
        )
        jobs = []
        for i, (arrival, devices) in enumerate(zip(arrivals, counts, strict=True)):
            if rng.random() < config.new:
                kind = self._kind(f"new-{number}-{i}", rng)
            else:
                kind = self._kinds[int(rng.choice(config.kinds, p=self._popularity))]
            jobs.append(self._run(i, kind, float(arrival), int(devices), rng))
        return jobs

    def _kind(self, name: str, rng: np.random.Generator) -> _Kind:
        config = self._config
        memory = float(rng.beta(*config.memory)) * self._cluster.memory
        return _Kind(
            name,
            float(rng.normal(np.log(config.median_minutes * 60), config.kind_spread)),
            float(rng.beta(*config.utilization)),
            min(self._cluster.memory, float(np.ceil(memory))),
        )

    def _run(
        self, number: int, kind: _Kind, arrival: float, devices: int, rng: np.random.Generator
    ) -> Job:
        config = self._config
        seconds = float(np.exp(rng.normal(kind.log_seconds, config.run_spread)))
        seconds = min(max(seconds, config.least_minutes * 60), config.most_hours * HOUR)
        wanted = seconds / float(rng.uniform(config.accuracy, 1))
        used = kind.utilization + float(rng.normal(0, config.utilization_spread))
        written = (hours * HOUR for hours in WRITTEN_HOURS if hours * HOUR >= wanted)
        return Job(
            request=Request(
                number=number,
                kind=kind.name,
                arrival=arrival,
                devices=devices,
                memory=kind.memory,
                estimate=next(written, wanted),
            ),
            duration=seconds,
            utilization=min(max(used, 0.05), 1.0),
        )
