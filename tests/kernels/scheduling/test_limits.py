"""A policy in the terms of a queueing server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernels.scheduling.history import History
from kernels.scheduling.jobs import Cluster, Request
from kernels.scheduling.limits import QueueLimit, host_limit, limits_of, parts_of, queue_of
from kernels.scheduling.policy_config import EASY, PROFILED
from kernels.scheduling.policy_file import PolicyFile

CONTENT = PolicyFile(policy=PROFILED, cluster=Cluster(), history=History(), thresholds=(4.0, 1.0))


def request(**changes):
    settings = {"devices": 1, "memory": 4.0, "estimate": 3_600.0} | changes
    return Request(number=1, kind="a", arrival=0, **settings)


def test_each_queue_leaves_an_eighth_to_those_before_it():
    limits = limits_of(CONTENT)
    assert limits.most == 48
    assert limits.queues == (
        QueueLimit("priority-1", 1, 48),
        QueueLimit("priority-2", 2, 42),
        QueueLimit("priority-3", 3, 36),
    )
    assert (limits.jobs, limits.gib, limits.parts) == (3, 16, 120)
    assert limits_of(CONTENT, most=10).most == 10
    assert min(q.most for q in limits_of(CONTENT, most=1).queues) == 1


def test_without_sharing_a_device_has_one_slot():
    limits = limits_of(replace(CONTENT, policy=EASY))
    assert (limits.most, limits.jobs, limits.parts) == (16, 1, 100)
    assert parts_of(1.0, limits) == 100


def test_long_and_wide_jobs_come_first():
    policy = CONTENT.make()
    assert queue_of(CONTENT, policy, request()) == "priority-3"
    assert queue_of(CONTENT, policy, request(devices=4, estimate=36_000.0)) == "priority-2"
    assert queue_of(CONTENT, policy, request(devices=16, estimate=360_000.0)) == "priority-1"


def test_shares_round_up_and_never_exceed_the_device():
    limits = limits_of(CONTENT)
    assert [parts_of(used, limits) for used in (0.0, 0.301, 0.3, 1.0, 5.0)] == [1, 31, 30, 100, 120]


def test_a_host_holds_what_its_memory_will_allow():
    assert host_limit(2, 9.0, 4.0) == 4
    assert host_limit(2, 0.5, 4.0) == 1
    with pytest.raises(ValueError, match="job_gib"):
        host_limit(0, 8.0, 0.0)


def test_thresholds_must_descend():
    with pytest.raises(ValueError, match="descend"):
        replace(CONTENT, thresholds=(1.0, 2.0))
