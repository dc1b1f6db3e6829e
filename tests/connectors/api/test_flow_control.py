"""Rate limit and load control: pure arithmetic over a clock that the tests hold."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.api.load_control import PERIOD, Level, LoadControl, LoadLimits
from connectors.api.rate_limit import RateLimiter, TokenBucket


def test_bucket_lets_bursts_through_and_then_the_rate():
    bucket = TokenBucket(rate=10, burst=5)
    assert [bucket.take(1, 0.0) for _ in range(5)] == [0.0] * 5
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(1, 0.1) == 0.0
    assert bucket.take(1, 100.0) == 0.0
    assert bucket.level == pytest.approx(4.0)


def test_more_than_the_burst_passes_a_full_bucket_and_puts_it_in_debt():
    bucket = TokenBucket(rate=10, burst=5)
    assert bucket.take(50, 0.0) == 0.0
    assert bucket.take(1, 1.0) > 3


@given(st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 9)), min_size=1, max_size=80))
def test_never_more_than_rate_and_burst(steps):
    bucket, now, passed = TokenBucket(rate=20, burst=10), 0.0, 0
    for wait, units in steps:
        now += wait
        if bucket.take(units, now) == 0:
            passed += units
    assert passed <= 10 + 20 * now + 1e-6


def test_clients_have_buckets_of_their_own():
    limiter = RateLimiter(1, 1)
    assert limiter.take("a", 1, 0.0) == 0
    assert limiter.take("a", 1, 0.0) > 0
    assert limiter.take("b", 1, 0.0) == 0


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(rate=0, burst=1)
    with pytest.raises(ValueError, match="ascend"):
        LoadLimits(0.025, no_reasons=0.9, tabular=0.5)


def control(budget=0.025):
    return LoadControl(LoadLimits(budget))


def test_a_quiet_loop_waits_for_nothing():
    load = control()
    for _ in range(5):
        load.beat()
        load.spend(0.0003)
    load.beat()
    load.beat()
    assert load.wait() == 0.0
    assert load.level(0.0) is Level.FULL


def test_what_a_round_has_done_so_far_and_half_of_the_one_before_is_the_wait():
    load = control()
    for _ in range(40):
        load.spend(0.0003)
    assert load.wait() == pytest.approx(0.012)
    load.beat()
    assert load.wait() == pytest.approx(0.006)
    load.spend(0.0003)
    assert load.wait() == pytest.approx(0.0063)


def test_one_stall_turns_nobody_away_but_lasting_slowness_does():
    load = control()
    for _ in range(20):
        load.spend(0.0003)
        load.beat()
    load.spend(0.5)
    assert load.level(load.wait()) is Level.FULL
    for _ in range(40):
        load.spend(0.005)
    assert load.level(load.wait()) is Level.REFUSE


def test_slices_of_batches_count_whole():
    load = control()
    load.spend_slice(0.02)
    assert load.wait() == pytest.approx(0.02)


def test_what_is_left_out_grows_with_the_wait():
    load = control(budget=0.1)
    levels = [load.level(wait) for wait in (0.0, 0.039, 0.041, 0.061, 0.081, 0.101)]
    assert levels == [
        Level.FULL,
        Level.FULL,
        Level.NO_REASONS,
        Level.TABULAR,
        Level.RULES_ONLY,
        Level.REFUSE,
    ]


def test_it_sees_the_rounds_of_a_loop():
    load = control()

    async def scenario():
        load.start(asyncio.get_running_loop())
        for _ in range(50):
            load.spend(0.001)
        busy = load.wait()
        await asyncio.sleep(5 * PERIOD)
        await asyncio.sleep(5 * PERIOD)
        calm = load.wait()
        load.stop()
        return busy, calm

    busy, calm = asyncio.run(scenario())
    assert busy > 0.03
    assert calm == 0.0


def test_it_beats_only_while_something_is_handled():
    load = control()

    async def scenario():
        load.start(asyncio.get_running_loop())
        beats = []
        load.beat = lambda: (beats.append(1), LoadControl.beat(load))
        await asyncio.sleep(5 * PERIOD)
        idle = len(beats)
        load.spend(0.001)
        await asyncio.sleep(30 * PERIOD)
        after = len(beats)
        load.stop()
        return idle, after

    assert asyncio.run(scenario()) == (0, 2)
