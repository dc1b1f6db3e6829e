"""A policy in the terms of a queueing server: queues with priorities, limits, slots of devices.

Three slots stand for a device: jobs, GiB of memory, hundredths of its time. Who wants to run
takes of each what it needs, all or nothing, so that no device is over-committed whoever decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernels.scheduling.jobs import Request
from kernels.scheduling.policy import Policy
from kernels.scheduling.policy_file import PolicyFile

PARTS = 100
HELD_BACK = 8  # each queue leaves an eighth of the pool to those before it


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """A queue.

    Attributes:
        name: Its name.
        priority: 1 is served first.
        most: Most jobs of it that run at the same time.
    """

    name: str
    priority: int
    most: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server needs to know.

    Attributes:
        most: Most jobs that run at the same time.
        queues: By priority.
        jobs: Slots of each device for jobs.
        gib: For memory.
        parts: For hundredths of its time.
    """

    most: int
    queues: tuple[QueueLimit, ...]
    jobs: int
    gib: int
    parts: int


def limits_of(content: PolicyFile, *, most: int | None = None) -> Limits:
    """Return the limits of a policy.

    Args:
        content: The policy.
        most: Most jobs that the worker's host can hold, see `host_limit`; None if only the
            devices limit them.
    """
    policy, cluster = content.policy, content.cluster
    tenants = min(policy.tenants, cluster.tenants) if policy.share else 1
    whole = cluster.devices * tenants
    whole = whole if most is None else max(1, min(whole, most))
    held = math.ceil(whole / HELD_BACK)
    queues = tuple(
        QueueLimit(f"priority-{i + 1}", i + 1, max(1, whole - i * held))
        for i in range(len(content.thresholds) + 1)
    )
    return Limits(
        most=whole,
        queues=queues,
        jobs=tenants,
        gib=math.floor(cluster.memory),
        parts=round(PARTS * (policy.load_limit if policy.share else 1.0)),
    )


def host_limit(running: int, free_gib: float, job_gib: float, spare_gib: float = 1.0) -> int:
    """Return how many jobs a host can hold by the forecast of its memory.

    Args:
        running: Jobs that run now.
        free_gib: Memory foretold to be free.
        job_gib: What a job needs on the host.
        spare_gib: What shall stay free.

    Raises:
        ValueError: ``job_gib`` is not above 0.
    """
    if job_gib <= 0:
        raise ValueError(f"host_limit: job_gib must be above 0, got {job_gib}")
    return max(0, running + math.floor((free_gib - spare_gib) / job_gib))


def queue_of(content: PolicyFile, policy: Policy, request: Request) -> str:
    """Return the name of the queue for a job.

    Args:
        content: Where the thresholds are.
        policy: What `PolicyFile.make` made of it.
        request: The job.
    """
    score = policy.score(request)
    return f"priority-{1 + sum(score < each for each in content.thresholds)}"


def parts_of(used: float, limits: Limits) -> int:
    """Return the hundredths of a device that a job takes; at most all that there are."""
    return min(limits.parts, max(1, math.ceil(PARTS * used - 1e-9)))
