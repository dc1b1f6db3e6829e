"""The policy on a real Prefect server: queues, limits, and slots that nobody can take twice."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from dataclasses import replace

import pytest

from infra.errors import ConfigurationError, ServiceError
from kernels.scheduling.history import History
from kernels.scheduling.jobs import Cluster, Request
from kernels.scheduling.policy_config import PROFILED
from kernels.scheduling.policy_file import PolicyFile

POOL = "schedule-test"
CLUSTER = Cluster(devices=2, memory=16.0, tenants=2)


def request(number, *, kind="small", devices=1, memory=6.0, estimate=3_600.0):
    return Request(
        number=number, kind=kind, arrival=0, devices=devices, memory=memory, estimate=estimate
    )


@pytest.fixture(scope="module")
def content():
    history = History()
    for _ in range(20):
        history.measured(request(0), 0.4)
        history.finished(request(0), 600.0)
        history.measured(request(0, kind="large"), 1.0)
        history.finished(request(0, kind="large", estimate=36_000.0), 30_000.0)
    return PolicyFile(policy=PROFILED, cluster=CLUSTER, history=history, thresholds=(1.0, -1.0))


@pytest.fixture(scope="module")
def limits(content, prefect_server):
    from flows.hand_over import apply_limits

    apply_limits(content, POOL, most=3)
    return apply_limits(content, POOL)  # again, with other limits


def test_pool_queues_and_slots_are_on_the_server(limits):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        pool = client.read_work_pool(POOL)
        queues = {q.name: q for q in client.read_work_queues(work_pool_name=POOL)}
        slots = client.read_global_concurrency_limit_by_name(f"{POOL}.device-1.gib")
    assert pool.concurrency_limit == limits.most == 4
    ours = [queues[f"priority-{n}"] for n in (1, 2, 3)]
    assert [q.concurrency_limit for q in ours] == [4, 3, 2]
    assert ours[0].priority < ours[1].priority < ours[2].priority
    assert ours[2].priority < queues["default"].priority
    assert (slots.limit, slots.active_slots) == (16, 0)


def test_a_run_goes_to_the_queue_that_the_policy_says(content, limits):
    from prefect import flow
    from prefect.client.orchestration import get_client

    from flows.hand_over import submit

    @flow(name="scheduled")
    def scheduled(size: int = 1) -> int:
        return size

    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow(scheduled), "here", work_pool_name=POOL)
        small = submit("scheduled/here", request(1), content, parameters={"size": 3})
        large = submit("scheduled/here", request(2, kind="large", estimate=36_000.0), content)
        waiting = {
            name: [
                r.flow_run.id
                for r in client.get_scheduled_flow_runs_for_work_pool(POOL, work_queue_names=[name])
            ]
            for name in ("priority-1", "priority-3")
        }
    assert waiting == {"priority-1": [large.id], "priority-3": [small.id]}
    assert small.parameters == {"size": 3}
    with pytest.raises(ConfigurationError, match="penstock deploy"):
        submit("scheduled/nowhere", request(1), content)


def test_devices_are_shared_up_to_their_limits_and_given_back(content, limits):
    from flows.hand_over import on_devices

    with (
        on_devices(request(1), content, POOL) as first,
        on_devices(request(2, devices=2), content, POOL) as both,
    ):
        assert both == (0, 1)
        # One device holds two jobs, the other has no memory left for 12 GiB.
        with (
            pytest.raises(ServiceError, match="did not fit"),
            on_devices(request(3, memory=12.0), content, POOL, timeout=0.1),
        ):
            pass
        with on_devices(request(4), content, POOL) as other:
            assert {*first, *other} == {0, 1}
    with on_devices(request(5, kind="large", devices=2, memory=16.0), content, POOL) as whole:
        assert whole == (0, 1)


def test_a_part_of_a_gib_that_no_slot_stands_for_is_not_given_away(content, limits):
    """Of 15.5 GiB a server has 15 slots: 10 and 5.5 fit in GiB, but 10 and 6 not in slots."""
    from flows.hand_over import apply_limits, on_devices

    pool = f"{POOL}-parts"
    policy, cluster = replace(PROFILED, fullest_first=True), replace(CLUSTER, memory=15.5)
    uneven = replace(content, policy=policy, cluster=cluster)
    assert apply_limits(uneven, pool).gib == 15
    with (
        on_devices(request(1, memory=10.0), uneven, pool) as first,
        # Looking at the full one for ever would leave the other one idle.
        on_devices(request(2, memory=5.5), uneven, pool, timeout=0.1) as second,
    ):
        assert {*first, *second} == {0, 1}
        with on_devices(request(3, memory=5.0), uneven, pool, timeout=0.1) as third:
            assert third == first


def test_who_waits_gets_the_devices_when_they_are_free(content, limits, monkeypatch):
    from flows import hand_over
    from flows.hand_over import on_devices

    monkeypatch.setattr(hand_over, "ASK_AGAIN_SECONDS", 0.2)
    order = []

    def later():
        with on_devices(request(7, kind="large"), content, POOL, timeout=60):
            order.append("later")

    with on_devices(request(6, kind="large", devices=2), content, POOL):
        # Prefect's settings are of this context: without it the thread would start a server.
        thread = threading.Thread(target=copy_context().run, args=(later,))
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(60)
    assert order == ["first", "later"]


def test_what_can_never_fit_and_an_unknown_pool_are_refused(content, limits):
    from flows.hand_over import on_devices

    with (
        pytest.raises(ConfigurationError, match="larger cluster"),
        on_devices(request(8, devices=3), content, POOL),
    ):
        pass
    with (
        pytest.raises(ConfigurationError, match="penstock schedule apply"),
        on_devices(request(9), content, "nowhere"),
    ):
        pass
