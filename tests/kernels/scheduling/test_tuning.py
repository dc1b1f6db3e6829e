"""Traces, forecasts of jobs, tuning, and the file between tuning and deciding."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from kernels.scheduling.bound import makespan_bound
from kernels.scheduling.history import History
from kernels.scheduling.jobs import Cluster, Request
from kernels.scheduling.policy import Policy
from kernels.scheduling.policy_config import PROFILED
from kernels.scheduling.policy_file import PolicyFile, PolicyFileError, read_policy, write_policy
from kernels.scheduling.simulator import simulate
from kernels.scheduling.trace import TraceConfig, TraceGenerator
from kernels.scheduling.tuning import TuningConfig, cost, learned, tune
from tests.benchmarks import schedule_sim

CLUSTER = Cluster()


@pytest.fixture(scope="module")
def generator():
    return TraceGenerator(TraceConfig(jobs=60), CLUSTER, 3)


@pytest.fixture(scope="module")
def tuned(generator):
    config = TuningConfig(candidates=6, finalists=2, days=1)
    return tune(generator.day(0), CLUSTER, config)


def test_a_trace_is_what_its_config_says():
    config = TraceConfig(jobs=6_000)
    jobs = TraceGenerator(config, CLUSTER, 1).day(0)
    assert jobs == TraceGenerator(config, CLUSTER, 1).day(0)
    assert jobs != TraceGenerator(config, CLUSTER, 1).day(1)
    counts = np.array([job.request.devices for job in jobs])
    for devices, share in zip(config.devices, config.device_shares, strict=True):
        assert (counts == devices).mean() == pytest.approx(share, abs=0.02)
    new = np.mean([job.request.kind.startswith("new") for job in jobs])
    assert new == pytest.approx(config.new, abs=0.02)
    arrivals = [job.request.arrival for job in jobs]
    assert arrivals == sorted(arrivals)
    assert 0 == arrivals[0] < arrivals[-1] <= config.hours * 3_600
    minutes = np.array([job.duration for job in jobs]) / 60
    assert 15 < np.median(minutes) < 60
    assert minutes.max() <= config.most_hours * 60
    accuracy = np.array([job.duration / job.request.estimate for job in jobs])
    assert accuracy.min() > 0.02
    assert accuracy.max() <= 1


def test_history_beats_the_limits_of_users():
    """Mean absolute error of the logarithm on another day, ten clusters."""
    gains = []
    for seed in range(10):
        generator = TraceGenerator(TraceConfig(), CLUSTER, seed)
        history = learned(generator.day(0))
        day = generator.day(1)
        known = [job for job in day if not job.request.kind.startswith("new")]
        by_user = [abs(math.log(job.request.estimate / job.duration)) for job in known]
        foretold = [abs(math.log(history.duration(j.request) / j.duration)) for j in known]
        gains.append(np.mean(by_user) - np.mean(foretold))
    assert min(gains) > 0
    assert np.mean(gains) > 0.2


def test_history_of_one_kind():
    history = History()
    request = Request(number=1, kind="a", arrival=0, devices=1, memory=1, estimate=10_000)
    assert history.duration(request) == pytest.approx(3_500)
    assert history.utilization(request) is None
    history.measured(request, 0.4)
    history.measured(request, 0.6)
    for _ in range(50):
        history.finished(request, 1_000)
    assert history.utilization(request) == pytest.approx(0.5)
    assert history.duration(request) == pytest.approx(1_000, rel=0.01)
    assert history.duration(replace(request, estimate=500)) == 500


def test_bound_of_cases_that_are_known(generator):
    day = generator.day(2)
    one = [replace(day[0], duration=5.0)]
    assert makespan_bound(one, CLUSTER) == pytest.approx(5.0)
    whole = replace(
        day[0], duration=8.0, utilization=1.0, request=replace(day[0].request, devices=16)
    )
    two = [replace(whole, request=replace(whole.request, number=n)) for n in (1, 2)]
    assert makespan_bound(two, CLUSTER) == pytest.approx(16.0)


def test_tuning_is_no_worse_on_its_profile_and_the_same_again(generator, tuned):
    assert tuned.cost <= tuned.start_cost
    assert tuned.replays in {6 + 2, 6 + 3}  # the start may be among the finalists
    again = tune(generator.day(0), CLUSTER, TuningConfig(candidates=6, finalists=2, days=1))
    assert again == tuned


def test_cost_weighs_waiting(generator):
    day = generator.day(0)
    replay = simulate(day, Policy(PROFILED, CLUSTER))
    assert cost(day, CLUSTER, PROFILED, 0.0) == replay.makespan
    assert cost(day, CLUSTER, PROFILED, 2.0) == replay.makespan + 2 * replay.mean_wait


def test_the_file_decides_as_what_was_written(generator, tuned, tmp_path):
    history = learned(generator.day(0))
    content = PolicyFile(
        policy=tuned.policy, cluster=CLUSTER, history=history, profile={"jobs": 60}
    )
    path = tmp_path / "schedule_policy.json"
    write_policy(path, content)
    found = read_policy(path)
    assert (found.policy, found.cluster, found.profile) == (tuned.policy, CLUSTER, {"jobs": 60})
    day = generator.day(1)
    expected = simulate(day, Policy(tuned.policy, CLUSTER, learned(generator.day(0))))
    assert simulate(day, found.make()) == expected
    assert simulate(day, found.make()) == expected  # the first replay taught the file nothing
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(version=2), "version 1"),
        (lambda r: r["policy"].update(tenants=0), "tenants must be at least 1"),
        (lambda r: r["policy"].update(tenants=2.5), "tenants must be int"),
        (lambda r: r["policy"].update(share="yes"), "share must be bool"),
        (lambda r: r["policy"].update(speed=1), "no setting speed"),
        (lambda r: r["cluster"].pop("memory"), "lacks memory"),
        (lambda r: r.pop("policy"), "PolicyConfig is missing"),
        (lambda r: r.pop("history"), "history"),
        (lambda r: r["history"]["kinds"].update(a={"runs": 1}), "history"),
    ],
)
def test_a_wrong_file_is_refused_with_the_fix(change, message, tmp_path):
    path = tmp_path / "schedule_policy.json"
    write_policy(path, PolicyFile(policy=PROFILED, cluster=CLUSTER, history=History()))
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(PolicyFileError, match=message) as error:
        read_policy(path)
    assert "penstock schedule tune" in str(error.value)
    assert str(path) in str(error.value)


def test_an_absent_or_torn_file_is_told(tmp_path):
    with pytest.raises(PolicyFileError, match="cannot be read"):
        read_policy(tmp_path / "none.json")
    torn = tmp_path / "torn.json"
    torn.write_text('{"version": 1,')
    with pytest.raises(PolicyFileError, match="holds no JSON"):
        read_policy(torn)


def test_benchmark(capsys):
    schedule_sim.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["traces"] == 2
    assert 0 < result["util_fifo"] < result["util_ours"] <= result["util_bound"] <= 1
    assert result["util_easy"] < result["util_ours"]
    assert 0 < result["makespan_ratio"] < 1
    assert result["gap_to_bound"] >= 0
    assert result["gain_over_easy_low"] <= result["gain_over_easy_high"]
