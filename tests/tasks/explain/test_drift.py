"""Drift of explanations: silent without change, loud with it; profiles and segments by counting."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.explain.drift import DAY_MS, WEEK_MS, DriftConfig, drift, profile_of, segments
from tasks.explain.errors import ExplanationError
from tasks.explain.players import Players
from tasks.explain.record import Contract, ExplanationSet, ModelName

LABELS = ("amount", "country", "device")
MONDAY = 1_514_764_800_000  # 2018-01-01
FAST = DriftConfig(draws=300)


def weeks(sizes, scale=None, seed=0, heavy=False):
    """Contributions by week; ``scale`` multiplies the players of the last week."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_t(3, size=(sum(sizes), 3)) if heavy else rng.normal(size=(sum(sizes), 3))
    values = draw * [1.0, 0.7, 0.4]
    times = np.concatenate([
        MONDAY + w * WEEK_MS + rng.integers(0, WEEK_MS, n) for w, n in enumerate(sizes)
    ])  # fmt: skip
    if scale is not None:
        values[-sizes[-1] :] *= scale
    return values, times


def test_a_player_that_grew_is_named_in_the_alarm():
    values, times = weeks([400, 400, 400], scale=[1.0, 1.0, 4.0])
    found = drift(values, times, LABELS)
    assert [one.alarm for one in found.periods] == [False, False, True]
    (text,) = found.alarms
    assert text.startswith("2018-01-15: contributions moved by")
    assert "device 19% ->" in text or "device 20% ->" in text or "device 18% ->" in text
    last = found.periods[-1].strength
    assert last.low <= last.value <= last.high
    assert found.periods[0].text == "2018-01-01: the reference, 400 rows"


def test_without_change_alarms_are_as_rare_as_the_level_says():
    """Forty histories of five weeks at level .05 a profile: 4 expected, 10 is one in 200."""
    alarms = sum(
        bool(drift(*weeks([200, 150, 150, 200, 300], seed=s, heavy=True), LABELS, FAST).alarms)
        for s in range(40)
    )
    assert alarms <= 10


def test_many_days_alarm_no_more_often_and_few_draws_do_not_matter():
    """Thirty histories of sixty days: 1.5 expected by each profile, 6 is one in 250."""
    alarms = np.zeros(2, int)
    for seed in range(30):
        values = np.random.default_rng(seed).normal(size=(3_000, 4))
        times = MONDAY + np.repeat(np.arange(60), 50) * DAY_MS
        config = DriftConfig(period_ms=DAY_MS, draws=100)
        found = drift(values, times, tuple("abcd"), config).periods[1:]
        alarms += [any(p.strength.alarm for p in found), any(p.first.alarm for p in found)]
    assert (alarms <= 5).all()


def test_a_smaller_level_has_a_larger_limit_whatever_the_draws():
    history = weeks([200, 200, 100])
    limits = [
        [one.strength.limit for one in found.periods[1:]]
        for found in (
            drift(*history, LABELS, DriftConfig(draws=100, level=level)) for level in (0.2, 0.001)
        )
    ]
    assert limits[1][0] > 1.5 * limits[0][0]
    assert limits[0][1] > limits[0][0]  # fewer rows, more chance


def test_intervals_cover_the_distance_of_long_histories():
    truth = drift(*weeks([20_000, 20_000], scale=[1, 1, 2], seed=99), LABELS, FAST)
    true = truth.periods[1].strength.value
    inside = 0
    for seed in range(40):
        found = drift(*weeks([400, 400], scale=[1, 1, 2], seed=seed), LABELS, FAST).periods[1]
        inside += found.strength.low <= true <= found.strength.high
    assert inside >= 33  # of 40; a right interval of 95 % falls below once in a thousand times


def test_rows_of_one_card_are_drawn_together():
    """Sixty cards that each repeat one row ten times tell as much as sixty rows."""
    alone = together = 0
    for seed in range(24):
        values = np.repeat(np.random.default_rng(seed).normal(size=(120, 3)), 10, axis=0)
        times = MONDAY + np.repeat([0, WEEK_MS], 600)
        card = np.repeat(np.arange(120), 10)
        alone += drift(values, times, LABELS, FAST).periods[1].strength.alarm
        judged = drift(values, times, LABELS, FAST, clusters=card).periods[1].strength
        together += judged.alarm
    assert together <= 5  # 1 or 2 expected
    assert alone >= 12


def test_weeks_of_few_cards_are_not_judged():
    """One card in the reference would make all draws equal, and any week an alarm."""
    values = np.random.default_rng(0).normal(size=(400, 3))
    times = MONDAY + np.repeat(np.arange(4), 100) * WEEK_MS
    with pytest.raises(ExplanationError, match="0 of 4 periods have 50 rows of 20 clusters"):
        drift(values, times, LABELS, FAST, clusters=np.zeros(400, np.int64))
    card = np.repeat([0, *range(1, 51), 51, *range(52, 102)], ([100] + [2] * 50) * 2)
    found = drift(values, times, LABELS, FAST, clusters=card)
    assert found.reference == 1
    assert found.periods[2].text == "2018-01-15: 100 rows of 1 clusters, too few to judge"
    assert [one.strength is not None for one in found.periods] == [False, False, False, True]
    with pytest.raises(ExplanationError, match="least_clusters >= 2"):
        DriftConfig(least_clusters=1)


def test_a_week_of_fewer_cards_is_judged_by_its_cards():
    """Thirty cards of twenty rows are no surer than thirty cards of ten."""
    values = np.random.default_rng(0).normal(size=(1_200, 3))
    times = MONDAY + np.repeat([0, WEEK_MS], 600)
    many, few = np.repeat(np.arange(60), 10), np.repeat(np.arange(60, 90), 20)
    alike = np.concatenate([many, many + 60])
    sure = drift(values, times, LABELS, FAST, clusters=alike).periods[1].strength.limit
    unsure = drift(values, times, LABELS, FAST, clusters=np.concatenate([many, few]))
    assert unsure.periods[1].strength.limit > 1.1 * sure


def test_weeks_of_many_rows_take_little_memory_and_the_same_limit(monkeypatch):
    history = weeks([30_000, 30_000])
    tracemalloc.start()
    found = drift(*history, LABELS, FAST).periods[1].strength
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * 2**20  # weights of 300 draws alone had 137 MiB
    monkeypatch.setattr("tasks.explain.drift_chance.PARTS", 10**9)
    whole = drift(*history, LABELS, FAST).periods[1].strength
    assert found.limit == pytest.approx(whole.limit, rel=0.25)
    assert found.value == whole.value


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=30),
    st.floats(0.1, 10),
)
def test_a_profile_is_what_counting_gives(rows, factor):
    values = np.array(rows)
    found = profile_of(values)
    counts = [0, 0, 0]
    for row in rows:
        counts[row.index(max(row))] += 1
    assert np.allclose(found.first, np.array(counts) / len(rows))
    assert np.allclose(found.strength, [np.mean([abs(r[p]) for r in rows]) for p in range(3)])
    assert np.allclose(profile_of(values * factor).share, found.share)


def test_weeks_begin_on_mondays_and_short_ones_are_said_not_judged():
    values, times = weeks([120, 10, 120])
    found = drift(values, times, LABELS)
    assert [one.start for one in found.periods] == [MONDAY + w * WEEK_MS for w in range(3)]
    assert found.periods[1].text == "2018-01-08: 10 rows, too few to judge"
    assert found.periods[1].strength is None
    days = drift(values, times, LABELS, DriftConfig(period_ms=DAY_MS, least_rows=5))
    assert len(days.periods) > 14


def test_the_same_history_gives_the_same_answer():
    history = weeks([100, 100])
    one, two = drift(*history, LABELS), drift(*history, LABELS)
    assert one.periods[1].strength == two.periods[1].strength


@pytest.mark.parametrize(
    ("sizes", "config", "says"),
    [
        ([100], None, "1 of 1 periods have 50 rows"),
        ([10, 10], None, "0 of 2 periods"),
    ],
)
def test_too_short_a_history_is_refused(sizes, config, says):
    with pytest.raises(ExplanationError, match=says):
        drift(*weeks(sizes), LABELS, config)


def test_wrong_shapes_and_settings_are_refused():
    values, times = weeks([60, 60])
    with pytest.raises(ExplanationError, match="P labels"):
        drift(values, times, LABELS[:2])
    with pytest.raises(ExplanationError, match="one cluster for each row"):
        drift(values, times, LABELS, clusters=np.zeros(3, np.int64))
    values[70, 1] = np.nan
    with pytest.raises(ExplanationError, match="value of 'country' in row 70 is nan: drift needs"):
        drift(values, times, LABELS)
    with pytest.raises(ExplanationError, match="level must lie"):
        DriftConfig(level=1.0)
    with pytest.raises(ExplanationError, match="draws >= 100"):
        DriftConfig(draws=10)
    with pytest.raises(ExplanationError, match="at least one"):
        profile_of(np.zeros((0, 3)))


def record(values, channel, decided):
    n = len(values)
    thresholds = {"review": 0.5, "block": 0.9}
    contract = Contract(
        "players", "exact", "score", Players.single(LABELS), LABELS, ModelName("m"), 0.0, 1e-9,
        thresholds=thresholds,
    )  # fmt: skip
    return ExplanationSet(
        contract, tuple(map(str, range(n))), values, np.zeros_like(values), values.sum(axis=1),
        decided, np.zeros((n, 3)), segments={"channel": channel},
    )  # fmt: skip


def test_segments_are_compared_by_alert_rate_and_strongest_players():
    values = np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 5.0, 1.0]])
    found = segments(record(values, ("web", "web", "shop"), np.array([0.6, 0.1, 0.95])), "channel")
    assert [(s.name, s.profile.rows, s.flagged) for s in found] == [
        ("web", 2, 0.5), ("shop", 1, 1.0),
    ]  # fmt: skip
    assert found[0].strongest[0] == "amount"
    assert found[1].strongest[:2] == ("country", "device")
    assert found[0].profile.strength.tolist() == [1.5, 0, 0]
    with pytest.raises(ExplanationError, match="no division 'hour'"):
        segments(record(values, ("a",) * 3, np.zeros(3)), "hour")
