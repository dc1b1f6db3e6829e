"""Each fault of a series is found where it is, and what the process did itself is not one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.findings import FINDINGS
from tasks.cleaning.sensors.check import sensor_findings
from tasks.cleaning.sensors.gaps import fill_gaps
from tasks.cleaning.sensors.infer import infer_rules, infer_sensors, resolution_of
from tasks.cleaning.sensors.model import SensorRules

N = 1_200


def walk(seed=0, n=N):
    return 20.0 + 0.1 * np.cumsum(np.random.default_rng(seed).normal(size=n))


def texts(values, times=None, **columns):
    times = 60.0 * np.arange(len(values)) if times is None else times
    clock = pl.Series((np.asarray(times) * 1e6).astype(np.int64)).cast(pl.Datetime("us"))
    shown = [None if np.isnan(v) else f"{v:.3f}" for v in values]
    return pl.DataFrame({"t": clock.dt.to_string("%Y-%m-%d %H:%M:%S"), "x": shown, **columns})


RULES = SensorRules(column="x", time="t", interval=60.0, gap_after=150.0, resolution=0.001)


def found(frame, rules, rule):
    made, _ = sensor_findings(frame, rules)
    assert dict(made.schema) == dict(FINDINGS)
    return made.filter(pl.col("rule").str.starts_with(rule))


def rows(frame, rules, rule):
    return found(frame, rules, rule)["row"].to_list()


def test_spikes_are_found_and_told_within_their_interval():
    values = walk()
    truth = values.copy()
    values[[100, 400, 401, 700]] += [3.0, -4.0, -4.5, 2.5]
    made = found(texts(values), replace(RULES, spike=8.0), "spike:x")
    assert made["row"].to_list() == [100, 400, 401, 700]
    assert (made["confidence"] > 0.5).all()
    for row, told, expected in made.select("row", "suggestion", "expected").iter_rows():
        assert abs(float(told) - truth[row]) < 0.6
        low, high = (float(part) for part in expected.removesuffix(" (95 %)").split(" to "))
        assert low <= float(told) <= high


def test_steps_ramps_and_waves_are_no_spikes():
    noise = 0.05 * np.random.default_rng(1).normal(size=N)
    at = np.arange(N)
    for process in (np.where(at > 500, 9.0, 0.0), 0.8 * at, 9.0 * np.sin(at / 6.0)):
        assert rows(texts(process + noise), replace(RULES, spike=8.0), "spike") == []


def test_a_process_with_short_pulses_of_its_own_is_left_to_a_person():
    rng = np.random.default_rng(2)
    values = 40.0 + 0.05 * rng.normal(size=N)
    for k, start in enumerate(range(20, N - 20, 30)):
        values[start : start + 1 + k % 6] += 5.0
    made, bounds = sensor_findings(texts(values), replace(RULES, spike=8.0))
    assert bounds["spike:x"].rate > 0.01
    assert (made.filter(pl.col("rule") == "spike:x")["confidence"] <= 0.5).all()


def test_what_a_peer_shows_too_is_no_fault():
    values = walk()
    values[[100, 400]] += 4.0
    peer = 2.0 * walk()
    peer[400] += 8.0
    frame = texts(values, peer=[f"{v:.3f}" for v in peer])
    made = found(frame, replace(RULES, spike=8.0, peers=("peer",)), "spike:x")
    assert made.filter(pl.col("confidence") > 0.5)["row"].to_list() == [100]
    assert made.filter(pl.col("row") == 400)["premise"].str.contains("as its peers").all()


def test_stuck_readings_are_found_and_states_are_not_believed():
    values = walk()
    values[300:340] = values[300]
    rules = replace(RULES, stuck_after=600.0)
    assert rows(texts(values), rules, "stuck") == list(range(301, 340))
    values[600:640] = values[900:950] = 0.0  # off, twice
    made = found(texts(values), rules, "stuck")
    assert set(made.filter(pl.col("confidence") > 0.5)["row"]) == set(range(301, 340))
    assert made.filter(pl.col("confidence") <= 0.5).height == 39 + 49


def test_a_coarse_sensor_may_repeat_itself_and_one_that_stands_may_do_so_for_ever():
    fine = infer_rules(texts(walk()), "x", "t")
    coarse = infer_rules(texts(np.round(2 * walk()) / 2), "x", "t")
    constant = infer_rules(texts(np.repeat([4.0, 7.0, 5.0], N // 3)), "x", "t")
    assert 0 < fine.stuck_after < coarse.stuck_after or coarse.stuck_after == 0
    assert constant.stuck_after == 0
    assert rows(texts(np.full(N, 5.0)), constant, "stuck") == []
    assert (fine.resolution, coarse.resolution) == (0.001, 0.5)


def test_a_gap_is_told_and_filled_only_where_asked_for():
    values, times = walk(), 60.0 * np.arange(N)
    kept = np.ones(N, bool)
    kept[500:520] = False
    frame = texts(values[kept], times[kept])
    made = found(frame, RULES, "gap:t")
    assert made.select("row", "repairable").rows() == [(500, False)]
    told = fill_gaps(frame, RULES, longest=3_600.0)
    assert told["t"].to_list() == texts(values)["t"][500:520].to_list()
    low, high = told["low"].to_numpy(), told["high"].to_numpy()
    inside = (low <= values[500:520]) & (values[500:520] <= high)
    assert inside.mean() > 0.8
    assert (high - low)[9] > 2 * (high - low)[0]  # least sure in the middle
    assert fill_gaps(frame, RULES, longest=600.0).is_empty()
    assert fill_gaps(frame.clear(), RULES, longest=600.0).is_empty()


def test_missing_readings_are_a_gap_too():
    values = walk()
    values[200:210] = np.nan
    assert rows(texts(values), RULES, "gap:t") == [210]


@pytest.mark.parametrize("amount", [7_200.0, -7_200.0])
def test_a_clock_that_jumps_and_comes_back_is_put_right(amount):
    times = 60.0 * np.arange(N)
    times[300:360] += amount
    made = found(texts(walk(), times), RULES, "clock")
    assert made["row"].to_list() == list(range(300, 360))
    right = texts(walk())["t"]
    assert made["suggestion"].to_list() == right[300:360].to_list()
    assert (made["confidence"] <= 0.5).all()  # a person puts times right
    assert rows(texts(walk(), times), RULES, "gap") == []


def test_repeated_times_and_steps_back():
    times = 60.0 * np.arange(N)
    times[300] = times[299]  # a wrong stamp: its own is missing
    made = found(texts(walk(), times), RULES, "clock-duplicate")
    assert made.select("row", "suggestion").rows() == [(300, texts(walk())["t"][300])]
    twice = np.insert(60.0 * np.arange(N), 300, 60.0 * 299)  # the reading came twice
    made = found(texts(walk(n=N + 1), twice), RULES, "clock-duplicate")
    assert made.select("row", "suggestion").rows() == [(300, None)]
    back = 60.0 * np.arange(N)
    back[600:] -= 600.0
    assert rows(texts(walk(), back), RULES, "clock-backward") == list(range(600, 610))


def test_summer_time_is_named_and_a_zone_explains_it():
    """In Berlin clocks went from 03:00 back to 02:00 on 2026-10-25, and from 02:00 on in March."""
    start = 1_792_882_800.0  # 2026-10-24 23:00 UTC, 01:00 in Berlin
    utc = start + 60.0 * np.arange(300)
    local = utc + np.where(utc < 1_792_890_000.0, 7_200.0, 3_600.0)
    frame = texts(walk(n=300), local)
    assert set(found(frame, RULES, "clock")["rule"]) == {"clock-dst:t"}
    berlin = replace(RULES, zone="Europe/Berlin")
    assert found(frame, berlin, "clock").is_empty()
    assert found(frame, berlin, "gap").is_empty()
    never = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 5)
        .then(pl.lit("2026-03-29 02:30:00"))
        .otherwise("t")
        .alias("t")
    )
    assert rows(never, berlin, "clock-impossible") == [5]


@pytest.mark.parametrize(
    ("factor", "offset", "name"),
    [(1.8, 32.0, "Fahrenheit"), (25.4, 0.0, "millimetres"), (1_000.0, 0.0, "thousandths")],
)
def test_a_change_of_unit_is_told_and_converted_back(factor, offset, name):
    values = walk()
    truth = values.copy()
    values[400:520] = values[400:520] * factor + offset
    made = found(texts(values), RULES, "unit:x")
    assert made["row"].to_list() == list(range(400, 520))
    assert made["premise"].str.contains(name).all()
    told = made["suggestion"].cast(pl.Float64).to_numpy()
    assert np.abs(told - truth[400:520]).max() < 1e-3
    assert (made["confidence"] <= 0.5).all()


def test_other_steps_are_no_change_of_unit():
    rng = np.random.default_rng(4)
    for seed in range(10):
        level = np.repeat(np.random.default_rng(seed).uniform(10, 90, 12), N // 12)
        frame = texts(level + 0.5 * rng.normal(size=N))
        assert rows(frame, RULES, "unit") == []


def test_drift_against_a_peer_is_found_and_no_shared_move_is():
    values = walk()
    peer = 3.0 + 0.5 * values + 0.05 * np.random.default_rng(5).normal(size=N)
    rules = replace(RULES, peers=("peer",))
    frame = texts(values, peer=[f"{v:.3f}" for v in peer])
    assert rows(frame, rules, "drift") == []
    offset = np.zeros(N)
    offset[700:1_000] = np.linspace(0.0, 2.0, 300)
    made = found(texts(values + offset, peer=[f"{v:.3f}" for v in peer]), rules, "drift:x")
    drifted = set(made["row"])
    assert set(range(800, 1_000)) <= drifted <= set(range(650, 1_060))
    told = made.filter(pl.col("row").is_between(800, 950))
    off = told["suggestion"].cast(pl.Float64).to_numpy() - values[told["row"].to_numpy()]
    assert np.abs(off).max() < 0.5


def test_a_declared_speed_is_kept_and_jumps_that_stay_are_doubted():
    values = np.full(N, 10.0) + 0.01 * np.random.default_rng(6).normal(size=N)
    values[300] = 14.0
    values[800:] += 30.0
    made = found(texts(values), replace(RULES, max_rate=0.01), "speed:x")
    repaired = set(made.filter(pl.col("repairable"))["row"])
    assert {300} <= repaired <= {299, 300, 301}
    assert made.filter(~pl.col("repairable"))["row"].min() > 700


def test_series_are_told_apart_by_group():
    one, two = walk(1), 500.0 + walk(2)
    values = np.empty(2 * N)
    values[::2], values[1::2] = one, two
    frame = texts(values, np.repeat(60.0 * np.arange(N), 2), machine=["a", "b"] * N)
    rules = infer_rules(frame, "x", "t", ("machine",))
    made, _ = sensor_findings(frame, rules)
    assert made.is_empty()
    assert [one.group for one in infer_sensors(frame, ["x"])] == [("machine",)]
    values[500] += 10.0
    frame = texts(values, np.repeat(60.0 * np.arange(N), 2), machine=["a", "b"] * N)
    assert rows(frame, rules, "spike") == [500]


def test_payments_at_any_time_are_no_sensor():
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.exponential(60.0, N))
    assert infer_sensors(texts(rng.exponential(20.0, N), times), ["x"]) == ()


def test_resolution_of_readings():
    assert resolution_of(pl.Series(["1.25", "1.50", "2.75"] * 40)) == 0.25
    assert resolution_of(pl.Series(["1", "2", "3"] * 40)) == 1.0


@pytest.mark.parametrize("n", [0, 1, 2, 5, 20])
def test_short_series_are_looked_at_without_complaint(n):
    rules = replace(RULES, spike=6.0, stuck_after=60.0, max_rate=1.0, peers=("peer",), drift=1.0)
    frame = texts(walk(n=n), peer=pl.Series(["1.0"] * n, dtype=pl.String))
    assert sensor_findings(frame, rules)[0].height >= 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ({"time": ""}, "a column of readings and another one of times"),
        ({"spike": -1.0}, "spike is -1.0; give a positive number"),
        ({"gap_after": 30.0}, "gap_after 30.0 is not above interval 60.0"),
        ({"spike_length": 0}, "spike_length is 0; give 1 to 20"),
        ({"peers": ("x",)}, "peers of 'x' are other columns"),
        ({"zone": "Mars/Base"}, "zone 'Mars/Base' is not known"),
    ],
)
def test_rules_that_nothing_could_meet_are_refused(lines, told):
    with pytest.raises(ValueError, match=told):
        replace(RULES, **lines)


def test_a_spike_in_another_unit_waits_for_a_person_with_it():
    values = walk()
    values[400:520] = values[400:520] * 25.4
    values[[450, 800]] += [150.0, 5.0]
    frame = texts(values)
    assert found(frame, RULES, "unit:x").height == 120
    made = found(frame, replace(RULES, spike=8.0), "spike:x").sort("row")
    assert made["row"].to_list() == [450, 800]
    assert (made["confidence"] > 0.5).to_list() == [False, True]
