"""Finds a policy's settings by replaying a profile: the jobs that a cluster ran before.

Settings are drawn at random (Bergstra and Bengio, JMLR 2012), all are replayed on the profile,
the better ones also on days drawn from its jobs with replacement, so that the luck of one day does
not decide. Replays start without history: a job of the profile must not foretell itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from kernels.scheduling.directions import directions
from kernels.scheduling.history import History
from kernels.scheduling.jobs import Cluster, Job
from kernels.scheduling.policy import Policy
from kernels.scheduling.policy_config import PROFILED, PolicyConfig
from kernels.scheduling.policy_file import PolicyFile
from kernels.scheduling.series import Series
from kernels.scheduling.simulator import simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningConfig:
    """How long is searched.

    Attributes:
        candidates: Settings tried, the start included.
        finalists: How many of them are tried on further days.
        days: Further days, drawn from the profile's jobs.
        margin: Share of the start's cost by which others must be cheaper; days differ by chance.
        waiting: What a second of mean waiting counts against one of makespan.
        seed: Of what is drawn.
    """

    candidates: int = 24
    finalists: int = 6
    days: int = 2
    margin: float = 0.02
    waiting: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not 1 <= self.finalists <= self.candidates:
            raise ValueError("tuning: finalists must lie between 1 and candidates")
        if self.days < 0 or self.waiting < 0 or self.margin < 0:
            raise ValueError("tuning: days, waiting and margin must not be negative")


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found.

    Attributes:
        policy: The settings.
        cost: Their mean cost over the days of the finalists, seconds.
        start_cost: The same for the settings from which the search started.
        replays: Replays that it took.
    """

    policy: PolicyConfig
    cost: float
    start_cost: float
    replays: int


def tune(
    profile: Sequence[Job], cluster: Cluster, config: TuningConfig, start: PolicyConfig = PROFILED
) -> Tuned:
    """Search for the settings of least cost on a profile.

    Args:
        profile: Jobs that ran, with what was measured.
        cluster: The devices.
        config: How long is searched.
        start: Settings to beat by the margin.

    Raises:
        ValueError: The profile is empty, or holds a job that the cluster cannot hold.
    """
    rng = np.random.default_rng(config.seed)
    found = [start, *(draw(start, rng) for _ in range(config.candidates - 1))]
    first = [cost(profile, cluster, each, config.waiting) for each in found]
    order = sorted(range(len(found)), key=lambda i: (first[i], i))[: config.finalists]
    order = sorted({0, *order})
    days = [_drawn_day(profile, rng) for _ in range(config.days)]
    means = {}
    for i in order:
        costs = [cost(day, cluster, found[i], config.waiting) for day in days]
        means[i] = float(np.mean([first[i], *costs]))
    best = min(order, key=lambda i: (means[i], i))
    if means[best] > (1 - config.margin) * means[0]:
        best = 0
    return Tuned(found[best], means[best], means[0], len(found) + len(order) * len(days))


def cost(jobs: Sequence[Job], cluster: Cluster, policy: PolicyConfig, waiting: float) -> float:
    """Return makespan plus weighted mean wait of a replay, seconds."""
    replay = simulate(jobs, Policy(policy, cluster))
    return replay.makespan + waiting * replay.mean_wait


def learned(profile: Sequence[Job]) -> History:
    """Return the history that a profile's jobs make."""
    history = History()
    for job in profile:
        history.measured(job.request, job.utilization)
        history.finished(job.request, job.duration)
    return history


def draw(start: PolicyConfig, rng: np.random.Generator) -> PolicyConfig:
    """Return random settings; what is not searched stays as in ``start``."""
    return replace(
        start,
        reserve_hours=float(rng.choice([0.0, 0.25, 0.5, 1.0])),
        load_limit=float(rng.choice([1.0, 1.1, 1.2, 1.3, 1.5])),
        unmeasured=float(rng.choice([0.4, 0.5, 0.6, 1.0])),
        tenants=int(rng.choice([2, 3])),
        fullest_first=bool(rng.random() < 0.5),
        age=float(rng.choice([0.0, 0.1])),
        size=float(rng.choice([0.5, 1.0, 2.0])),
        length=float(rng.choice([0.5, 1.0, 2.0])),
        load=float(rng.choice([0.0, 1.0, 3.0])),
        memory=float(rng.choice([0.0, 1.0, 2.0])),
    )


def tuned_file(
    profile: Sequence[Job],
    cluster: Cluster,
    config: TuningConfig,
    probes: Series | None = None,
    queues: int = 3,
) -> PolicyFile:
    """Return what `policy_file.write_policy` writes: settings, history, thresholds, the profile.

    Args:
        profile: Jobs that ran, with what was measured.
        cluster: The devices.
        config: How long is searched.
        probes: Their series while the jobs ran; the main directions of load are noted.
        queues: Number of queues; each gets as many of the profile's jobs.
    """
    found = tune(profile, cluster, config)
    history = learned(profile)
    policy = Policy(found.policy, cluster, history)
    scores = [policy.score(job.request) for job in profile]
    parts = np.linspace(1, 0, queues + 1)[1:-1]
    arrivals = [job.request.arrival for job in profile]
    about: dict[str, object] = {
        "jobs": len(profile),
        "hours": (max(arrivals) - min(arrivals)) / 3_600,
        "replays": found.replays,
        "cost_s": found.cost,
        "start_cost_s": found.start_cost,
    }
    if probes is not None:
        about |= {
            "series": len(probes.names),
            "directions": [asdict(each) for each in directions(probes)],
        }
    return PolicyFile(
        policy=found.policy,
        cluster=cluster,
        history=history,
        thresholds=tuple(float(each) for each in np.quantile(scores, parts)),
        profile=about,
    )


def _drawn_day(profile: Sequence[Job], rng: np.random.Generator) -> list[Job]:
    """Return a day of jobs drawn with replacement; the arrivals stay."""
    arrivals = sorted(job.request.arrival for job in profile)
    drawn = rng.integers(0, len(profile), len(profile))
    return [
        replace(profile[i], request=replace(profile[i].request, number=n, arrival=arrival))
        for n, (i, arrival) in enumerate(zip(drawn.tolist(), arrivals, strict=True))
    ]
