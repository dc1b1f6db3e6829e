"""A makespan that no policy can beat, with or without sharing.

Whatever the policy, a device does at most one second of useful work a second, holds at most its
memory, and at most so many jobs; and what arrives after a moment can only be done after it. The
longest job needs its duration. The bound is the largest of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.scheduling.jobs import Cluster, Job


def makespan_bound(jobs: Sequence[Job], cluster: Cluster) -> float:
    """Return a lower bound of the makespan, seconds.

    Args:
        jobs: The trace.
        cluster: The devices.

    Raises:
        ValueError: There is no job, or one that the cluster cannot hold.
    """
    if not jobs:
        raise ValueError("bound: no jobs; give at least one")
    cluster.check(jobs)
    ordered = sorted(jobs, key=lambda job: job.request.arrival)
    arrival = np.array([job.request.arrival for job in ordered])
    duration = np.array([job.duration for job in ordered])
    area = np.array([job.request.devices for job in ordered]) * duration
    memory = np.array([job.request.memory for job in ordered])
    work = np.array([job.work for job in ordered])
    needs = (work, area * memory / cluster.memory, area / cluster.tenants)
    # From each arrival on: all that is still to come, on all devices.
    rest = [np.cumsum(need[::-1])[::-1] / cluster.devices for need in needs]
    ends = [*(arrival + part for part in rest), arrival + duration]
    return float(max(end.max() for end in ends) - arrival[0])
