"""Rules that no policy may break, on jobs that hypothesis makes up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.scheduling.bound import makespan_bound
from kernels.scheduling.jobs import Cluster, Job, Request
from kernels.scheduling.policy import Policy, Start, View
from kernels.scheduling.policy_config import (
    EASY,
    EASY_SHARED,
    FIFO,
    FIRST_FIT,
    FIRST_FIT_SHARED,
    PROFILED,
    PolicyConfig,
)
from kernels.scheduling.simulator import PlacementError, simulate

CLUSTER = Cluster(devices=4, memory=16.0)
POLICIES = {
    "fifo": FIFO,
    "easy": EASY,
    "first-fit": FIRST_FIT,
    "easy-shared": EASY_SHARED,
    "first-fit-shared": FIRST_FIT_SHARED,
    "ours": PROFILED,
}


def job(number=0, *, kind="a", arrival=0.0, devices=1, memory=4.0, duration=600.0, **more):
    more = {"estimate": 2 * duration, "utilization": 0.5} | more
    return Job(
        request=Request(
            number=number,
            kind=kind,
            arrival=arrival,
            devices=devices,
            memory=memory,
            estimate=more["estimate"],
        ),
        duration=duration,
        utilization=more["utilization"],
    )


@st.composite
def traces(draw):
    count = draw(st.integers(1, 14))
    made = []
    for number in range(count):
        duration = draw(st.integers(1, 9_000))
        made.append(
            job(
                number,
                kind=draw(st.sampled_from("abc")),
                arrival=float(draw(st.integers(0, 5_000))),
                devices=draw(st.sampled_from([1, 1, 2, 3, 4])),
                memory=draw(st.sampled_from([0.0, 3.0, 5.5, 8.0, 16.0])),
                duration=float(duration),
                estimate=duration * draw(st.sampled_from([1.0, 1.5, 4.0])),
                utilization=draw(st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0])),
            )
        )
    return made


def overlaps(outcomes, device):
    """Jobs on a device at the start of each."""
    there = [o for o in outcomes if device in o.devices]
    for one in there:
        yield [o for o in there if o.start <= one.start < o.end]


@settings(max_examples=60, deadline=None)
@given(traces(), st.sampled_from(sorted(POLICIES)))
def test_every_job_runs_once_within_the_devices(jobs, name):
    config = POLICIES[name]
    replay = simulate(jobs, Policy(config, CLUSTER))
    assert sorted(o.job.request.number for o in replay.outcomes) == [j.request.number for j in jobs]
    for o in replay.outcomes:
        assert o.start >= o.job.request.arrival
        assert len(set(o.devices)) == o.job.request.devices
        assert o.end - o.start >= o.job.duration * (1 - 1e-9)
        if not config.share:
            assert o.end - o.start == pytest.approx(o.job.duration)
    for device in range(CLUSTER.devices):
        for together in overlaps(replay.outcomes, device):
            assert len(together) <= (CLUSTER.tenants if config.share else 1)
            assert sum(o.job.request.memory for o in together) <= CLUSTER.memory + 1e-9
    assert replay.makespan >= makespan_bound(jobs, CLUSTER) * (1 - 1e-9)
    assert 0 < replay.utilization <= replay.allocation + 1e-9 <= 1 + 2e-9


@settings(max_examples=40, deadline=None)
@given(traces())
def test_strict_order_starts_jobs_as_they_arrive(jobs):
    replay = simulate(jobs, Policy(FIFO, CLUSTER))
    by_arrival = sorted(
        replay.outcomes, key=lambda o: (o.job.request.arrival, o.job.request.number)
    )
    starts = [o.start for o in by_arrival]
    assert starts == sorted(starts)


class Watched(Policy):
    """Notes the first promise made to each job."""

    def __init__(self, *args):
        super().__init__(*args)
        self.promised = {}

    def choose(self, view):
        starts = super().choose(view)
        if self.reservation:
            self.promised.setdefault(self.reservation.number, self.reservation.time)
        return starts


@settings(max_examples=60, deadline=None)
@given(traces())
def test_easy_never_delays_the_first_waiting_job(jobs):
    policy = Watched(EASY, CLUSTER)
    for outcome in simulate(jobs, policy).outcomes:
        promised = policy.promised.get(outcome.job.request.number)
        assert promised is None or outcome.start <= promised * (1 + 1e-9)


def test_easy_fills_the_gap_that_strict_order_leaves():
    jobs = [
        job(0, devices=3, duration=1_000.0, estimate=1_000.0),
        job(1, devices=4, duration=1_000.0, estimate=1_000.0),
        job(2, devices=1, duration=900.0, estimate=900.0),
        job(3, devices=1, duration=1_100.0, estimate=1_100.0),
    ]

    def starts(config):
        return {
            o.job.request.number: o.start for o in simulate(jobs, Policy(config, CLUSTER)).outcomes
        }

    assert starts(FIFO) == {0: 0, 1: 1_000, 2: 2_000, 3: 2_000}
    assert starts(EASY) == {0: 0, 1: 1_000, 2: 0, 3: 2_000}
    assert starts(FIRST_FIT) == {1: 0, 0: 1_000, 2: 1_000, 3: 1_900}  # largest first


def test_pace_of_shared_devices_is_exact():
    """Two jobs of .8 and .4 on one device: 1.2 * (1 + .25 * load of the other) times as long."""
    cluster = Cluster(devices=1, memory=16.0, interference=0.25)
    jobs = [
        job(0, kind="a", duration=1_000.0, utilization=0.8),
        job(1, kind="b", duration=1_000.0, utilization=0.4),
    ]
    config = PolicyConfig(share=True, load_limit=2.0, unmeasured=0.5)
    first, second = simulate(jobs, Policy(config, cluster)).outcomes
    heavy, light = 1.2 * (1 + 0.25 * 0.4), 1.2 * (1 + 0.25 * 0.8)
    assert first.job.request.number == 0
    assert first.end == pytest.approx(1_000 * heavy)
    assert second.end == pytest.approx(first.end + 1_000 - first.end / light)


def test_a_kind_never_measured_stays_alone_until_probes_have_seen_it():
    cluster = Cluster(devices=1)
    jobs = [job(0, duration=3_000.0), job(1, kind="a", duration=3_000.0)]
    outcomes = simulate(jobs, Policy(EASY_SHARED, cluster)).outcomes
    assert sorted(o.start for o in outcomes) == [0.0, 300.0]


def test_a_replay_is_the_same_again():
    jobs = [job(n, devices=1 + n % 4, arrival=60.0 * n, duration=500.0 + n) for n in range(40)]
    one, two = (simulate(jobs, Policy(PROFILED, CLUSTER)) for _ in range(2))
    assert one == two


class Wrong(Policy):
    def __init__(self, start):
        super().__init__(FIFO, CLUSTER)
        self.start = start

    def choose(self, view: View):
        return [self.start] if self.start and view.queue else []


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (Start(0, (0, 0)), "2 different devices"),
        (Start(0, (0, 9)), "no device 9"),
        (Start(5, (0, 1)), "does not wait"),
        (None, "1 jobs wait"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_found_out(start, message):
    with pytest.raises(PlacementError, match=message):
        simulate([job(0, devices=2)], Wrong(start))


def test_what_cannot_run_is_refused():
    with pytest.raises(ValueError, match="needs 5 devices"):
        simulate([job(0, devices=5)], Policy(FIFO, CLUSTER))
    with pytest.raises(ValueError, match="same number"):
        simulate([job(0), job(0)], Policy(FIFO, CLUSTER))
    with pytest.raises(ValueError, match="no jobs"):
        simulate([], Policy(FIFO, CLUSTER))
    with pytest.raises(ValueError, match="raise the estimate"):
        job(0, duration=100.0, estimate=50.0)
    with pytest.raises(ValueError, match="not percent"):
        job(0, utilization=55.0)
    with pytest.raises(ValueError, match="load_limit"):
        PolicyConfig(load_limit=0.0)
