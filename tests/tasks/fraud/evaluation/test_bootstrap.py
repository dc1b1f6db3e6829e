"""Paired bootstrap: intervals cover, see real gains, and find none between equals."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.fraud.evaluation.bootstrap import JudgedScores, paired_days, paired_interval
from tasks.fraud.evaluation.metrics import average_precision, roc_auc


def judged(gain: float, seed: int = 0, n: int = 3000) -> JudgedScores:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.05).astype(int)
    base = 1.5 * label + rng.normal(size=n)
    return JudgedScores(
        label=label,
        unit=rng.integers(0, 400, n),
        first=base + gain * label,
        second=base + 0.05 * rng.normal(size=n),
    )


@pytest.mark.parametrize(("metric", "function"), [("ap", average_precision), ("auc", roc_auc)])
def test_difference_is_the_mean_over_folds(metric: str, function: object) -> None:
    parts = [judged(0.5, 1), judged(0.5, 2)]
    found = paired_interval(metric, parts, resamples=100)
    expected = np.mean([function(p.label, p.first) - function(p.label, p.second) for p in parts])
    assert found.difference == pytest.approx(expected)
    assert found.low < found.difference < found.high


def test_a_real_gain_is_seen() -> None:
    found = paired_interval("ap", [judged(0.6, 3)], resamples=200)
    assert found.low > 0
    assert found.better > 0.99


def test_equals_are_not_told_apart() -> None:
    found = paired_interval("ap", [judged(0.0, 4)], resamples=200)
    assert found.low < 0 < found.high


def test_draws_repeat_whole_units() -> None:
    """With one unit every draw is the data itself: the interval has no width."""
    one = judged(0.5, 5)
    alone = JudgedScores(one.label, np.zeros(len(one.label), int), one.first, one.second)
    found = paired_interval("auc", [alone], resamples=20)
    assert found.low == found.high == found.difference


def test_same_seed_same_interval() -> None:
    a, b = (paired_interval("ap", [judged(0.3)], resamples=50, seed=9) for _ in range(2))
    assert a == b
    assert a.to_dict()["level"] == 0.95


def test_days_of_entity_precision() -> None:
    rng = np.random.default_rng(6)
    second = rng.random(28)
    found = paired_days(second + 0.02 + 0.01 * rng.normal(size=28), second)
    assert 0 < found.low < 0.02 < found.high + 0.01
    median = paired_days(second, second, statistic=lambda d: np.median(d, axis=1))
    assert median.difference == median.low == median.high == 0.0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="no folds"):
        paired_interval("ap", [])
    with pytest.raises(ValueError, match="resamples"):
        paired_days([0.1], [0.2], resamples=3)
    empty = judged(0.0)
    legit = JudgedScores(np.zeros_like(empty.label), empty.unit, empty.first, empty.second)
    with pytest.raises(ValueError, match="one class"):
        paired_interval("ap", [legit], resamples=20)
    rare = JudgedScores(np.array([1, 0]), np.array([0, 1]), np.ones(2), np.ones(2))
    assert paired_interval("auc", [rare], resamples=50).difference == 0.0
