"""The drift switch: off by default, nothing in the first month, then as documented."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tasks.fraud.simulate import CardsConfig, Drift, simulate_cards
from tasks.fraud.simulate.cards import LIMIT_CENTS, TESTER_CENTS
from tasks.fraud.simulate.drift import STEADY, conditions

DAY = 86_400
DAYS = 240
SEEDS = range(3)


def columns(config: CardsConfig) -> dict[str, np.ndarray]:
    table = pa.Table.from_batches(simulate_cards(config))
    found = {name: table[name].to_numpy() for name in table.column_names}
    return found | {"day": found["t"] // DAY}


def runs(drift: Drift | None) -> list[dict[str, np.ndarray]]:
    size = {"cards": 2_000, "terminals": 4_000, "days": DAYS}
    return [columns(CardsConfig(**size, seed=seed, drift=drift)) for seed in SEEDS]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    return list(zip(runs(None), runs(Drift()), strict=True))


def test_drift_is_off_by_default() -> None:
    assert CardsConfig().drift is None
    assert conditions(None, 10_000) == STEADY
    assert Drift().at(30) == STEADY
    assert Drift().at(31) != STEADY


def test_the_first_month_is_that_of_the_steady_world(pairs) -> None:
    """Payments are the same rows; only which third of a card is hit looks ahead past day 30."""
    for steady, moved in pairs:
        first = [run["day"] <= 30 for run in (steady, moved)]
        for name in ("t", "customer", "terminal"):
            assert (steady[name][first[0]] == moved[name][first[1]]).all()
        whole = steady["day"] <= 30 - 13
        for name in steady:
            assert (steady[name][whole] == moved[name][: whole.sum()]).all()
        counts = [
            np.bincount(r["scenario"][f], minlength=5)
            for r, f in zip((steady, moved), first, strict=True)
        ]
        assert counts[1][4] == 0
        assert abs(counts[0][3] - counts[1][3]) <= 0.05 * counts[0][3]


def test_habits_move_as_documented(pairs) -> None:
    drift = Drift()
    now = drift.at(DAYS - 15)
    for steady, moved in pairs:
        late = [run["day"] >= DAYS - 30 for run in (steady, moved)]
        honest = [
            f & (r["scenario"] == 0) & (r["amount_cents"] < LIMIT_CENTS / 2)
            for r, f in zip((steady, moved), late, strict=True)
        ]
        assert late[1].sum() / late[0].sum() == pytest.approx(now.rate, rel=0.06)
        hour = [np.mean(r["t"][f] % DAY) / 3600 for r, f in zip((steady, moved), late, strict=True)]
        assert hour[0] == pytest.approx(12, abs=0.1)
        assert 2.0 < hour[1] - hour[0] < 0.5 * 7  # the day's end cuts a part of the 3.25 hours off
        median = [
            np.median(r["amount_cents"][f]) for r, f in zip((steady, moved), honest, strict=True)
        ]
        assert 1.03 < median[1] / median[0] < now.amount + 0.03


def test_the_fraud_mix_moves_as_documented(pairs) -> None:
    late = np.zeros((2, 5))
    for pair in pairs:
        for row, run in enumerate(pair):
            late[row] += np.bincount(run["scenario"][run["day"] >= DAYS - 30], minlength=5)
    _, one, two, three, four = late[1] / np.maximum(late[0], 1)
    assert one > 1.2
    assert two < 0.5
    assert three > 1.8
    assert late[0][4] == 0
    assert four > 100


def test_every_large_amount_stays_a_fraud_and_tests_are_small(pairs) -> None:
    for _, moved in pairs:
        assert (moved["fraud"][moved["amount_cents"] > LIMIT_CENTS] == 1).all()
        small = moved["amount_cents"][moved["scenario"] == 4]
        low, high = TESTER_CENTS
        assert small.min() >= low
        assert small.max() <= high
        assert moved["day"][moved["scenario"] == 4].min() > 60


def test_the_movement_ends_after_its_months() -> None:
    drift = Drift(start_day=10, months=2)
    assert drift.at(70) == drift.at(700)
    assert drift.at(69) != drift.at(70)
    assert drift.at(70).amount == pytest.approx(1.02**2)
    assert drift.at(70).peak == pytest.approx(43_200 + 3600)
    assert Drift(tester_months=0).at(45).testers == pytest.approx(0.5)


def test_a_part_can_be_switched_off() -> None:
    still = Drift(
        amount_growth=0,
        rate_growth=0,
        later_hours=0,
        bad_terminal_growth=0,
        bad_card_growth=0,
        tester_months=99,
    )
    size = {"cards": 200, "terminals": 400, "days": 80, "seed": 5}
    steady, moved = columns(CardsConfig(**size)), columns(CardsConfig(**size, drift=still))
    assert all((steady[name] == moved[name]).all() for name in steady)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start_day": -1}, "drift.start_day must be 0 or more, got -1"),
        ({"months": -2.0}, "drift.months must be 0 or more"),
        ({"tester_months": -1.0}, "drift.tester_months must be 0 or more"),
        ({"amount_growth": -1.0}, r"drift.amount_growth is a share per month"),
        ({"bad_card_growth": 15.0}, r"drift.bad_card_growth .* must lie in \(-1, 1\], got 15"),
        ({"later_hours": 2.0}, "moves the daily peak by more than 12 hours; lower one"),
    ],
)
def test_impossible_movements_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Drift(**fields)
