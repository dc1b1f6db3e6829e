"""Rate limit and load control: pure arithmetic over a clock that the tests hold."""

from __future__ import annotations

import asyncio
import time

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


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def control(budget=0.025):
    clock = Clock()
    return LoadControl(LoadLimits(budget), clock), clock


def test_a_quiet_loop_waits_for_nothing():
    load, clock = control()
    for _ in range(5):
        clock.now += PERIOD
        load.beat()
    assert load.wait(clock.now) == pytest.approx(0.0, abs=1e-9)
    assert load.level(0.0) is Level.FULL


def test_long_rounds_are_waits():
    load, clock = control()
    clock.now += 0.030 + PERIOD
    load.beat()
    assert load.wait(clock.now) == pytest.approx(0.015)
    assert load.wait(clock.now + PERIOD + 0.010) == pytest.approx(0.025)


def test_what_is_left_out_grows_with_the_wait():
    load, _ = control(budget=0.1)
    levels = [load.level(wait) for wait in (0.0, 0.039, 0.041, 0.061, 0.081, 0.101)]
    assert levels == [
        Level.FULL,
        Level.FULL,
        Level.NO_REASONS,
        Level.TABULAR,
        Level.RULES_ONLY,
        Level.REFUSE,
    ]


def test_it_sees_a_busy_loop_and_its_recovery():
    load = LoadControl(LoadLimits(0.025), time.monotonic)

    async def scenario():
        load.start(asyncio.get_running_loop())
        await asyncio.sleep(0.02)
        time.sleep(0.08)
        await asyncio.sleep(0)
        busy = load.wait(time.monotonic())
        await asyncio.sleep(0.05)
        calm = load.wait(time.monotonic())
        load.stop()
        return busy, calm

    busy, calm = asyncio.run(scenario())
    assert busy > 0.03
    assert calm < busy / 2
