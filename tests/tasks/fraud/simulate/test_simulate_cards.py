"""Card payments: the statistics of the specification, its rules row by row, bounded memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards
from tasks.fraud.simulate.cards import CardPopulation
from tasks.fraud.simulate.scenarios import CompromisedCards, draw_some
from tasks.fraud.simulate.terminals import NearbyTerminals

ROOT = Path(__file__).resolve().parents[4]
DAY = 86_400


def columns(config: CardsConfig, **options: int) -> dict[str, np.ndarray]:
    table = pa.Table.from_batches(simulate_cards(config, **options))
    return {name: table[name].to_numpy() for name in table.column_names}


@pytest.fixture(scope="module")
def full() -> dict[str, np.ndarray]:
    return columns(CardsConfig(seed=3))


@pytest.fixture(scope="module")
def many() -> list[dict[str, np.ndarray]]:
    return [columns(CardsConfig(days=40, seed=seed)) for seed in range(10)]


def test_a_full_run_has_the_frauds_of_the_specification(full) -> None:
    """845 / 7,670 / 3,969 in one run of another generator; seeds differ by 41 / 143 / 76 (std)."""
    one, two, three = np.bincount(full["scenario"], minlength=4)[1:]
    assert abs(one - 845) < 5 * 41
    assert abs(two - 7670) < 5 * 143
    assert abs(three - 3969) < 5 * 76
    assert full["scenario"].max() == 3
    assert 0.0075 < full["fraud"].mean() < 0.0090


def test_a_full_run_ramps_up_like_the_specification(full) -> None:
    """Few frauds at the start, 59..110 a day from day 30 on (median 85)."""
    day = full["t"] // DAY
    frauds = np.bincount(day[full["fraud"] == 1], minlength=157)
    assert len(np.unique(day)) == 157
    assert frauds[0] < 25
    assert 78 < np.median(frauds[30:]) < 92
    assert np.quantile(frauds[30:], 0.01) > 45
    assert np.quantile(frauds[30:], 0.99) < 130


def test_statistics_over_ten_seeds(many) -> None:
    """Means over seeds lie within a few standard errors of the named figures."""
    amounts = [run["amount_cents"] / 100 for run in many]
    figures = np.array(
        [
            [np.median(amount), amount.mean(), np.percentile(amount, 99), len(amount) / 40]
            for amount in amounts
        ]
    )
    median, mean, p99, per_day = figures.mean(axis=0)
    assert median == pytest.approx(44.65, abs=1.3)
    assert mean == pytest.approx(53.6, abs=1.2)
    assert p99 == pytest.approx(171.6, abs=1.8)
    assert per_day == pytest.approx(9_584, rel=0.015)
    assert (np.abs(figures[:, 3] / 9_584 - 1) < 0.04).all()
    night = [((run["t"] % DAY) // 3600 <= 6).mean() for run in many]
    assert np.allclose(night, 0.1738, atol=0.004)


def test_seconds_follow_the_normal_distribution_cut_to_the_day(many) -> None:
    second = np.concatenate([run["t"] % DAY for run in many])
    assert second.min() >= 1
    assert second.max() <= DAY - 1
    assert second.mean() == pytest.approx(43_200, abs=60)
    assert second.std() == pytest.approx(5.0517 * 3600, rel=0.003)


def test_large_amounts_are_frauds_and_scenarios_name_them(many) -> None:
    for run in many:
        assert (run["fraud"][run["amount_cents"] > 22_000] == 1).all()
        assert ((run["scenario"] > 0) == (run["fraud"] == 1)).all()
        assert (run["amount_cents"][run["scenario"] == 1] > 22_000).all()


def test_rows_are_sorted_and_numbered(many) -> None:
    run = many[0]
    assert (np.diff(run["t"]) >= 0).all()
    assert (run["tx_id"] == np.arange(len(run["t"]))).all()
    assert run["t"][-1] < 40 * DAY
    assert run["amount_cents"].min() >= 0


def test_columns_are_those_of_the_shipped_dataset_config() -> None:
    config = DatasetConfig.from_toml(ROOT / "tasks/fraud/datasets/handbook.toml")
    assert set(config.columns) <= set(CARDS_SCHEMA.names)
    batch = next(simulate_cards(CardsConfig(cards=50, days=3)))
    assert batch.schema.equals(CARDS_SCHEMA)


def test_amounts_of_a_card_follow_its_own_normal_distribution(full) -> None:
    """N(m, m/2), redrawn from U(0, 2m) when negative: mean about 1.029 m."""
    population = CardPopulation.draw(CardsConfig(seed=3))
    honest = full["scenario"] == 0
    card, amount = full["customer"][honest], full["amount_cents"][honest] / 100
    small = population.mean[card] < 60  # clear of the 220 limit
    ratio = amount[small] / population.mean[card[small]]
    negative = 0.02275  # share of a normal amount below zero
    expected = (1 - negative) * (1 + 0.5 * 0.05399 / (1 - negative)) + negative
    assert ratio.mean() == pytest.approx(expected, abs=0.003)
    assert ratio.min() >= -0.01


def test_a_card_pays_at_every_terminal_within_five_and_at_no_other(full) -> None:
    population = CardPopulation.draw(CardsConfig(seed=3))
    offset = population.cards[full["customer"]] - population.terminals[full["terminal"]]
    assert np.hypot(*offset.T).max() < 5
    near = np.hypot(*(population.terminals - population.cards[:, None][7]).T) < 5
    used = np.unique(full["terminal"][full["customer"] == 7])
    assert set(used) <= set(np.flatnonzero(near))


@pytest.mark.parametrize(("cards", "terminals"), [(300, 20), (200, 3000), (50, 1)])
def test_nearby_terminals_agree_with_all_distances(cards: int, terminals: int) -> None:
    random = np.random.default_rng(5)
    a, b = random.uniform(0, 100, (cards, 2)), random.uniform(0, 100, (terminals, 2))
    a[0], b[0] = (0.0, 0.0), (3.0, 4.0 - 1e-9)  # a corner, a hair inside the circle
    nearby = NearbyTerminals(a, b, 5.0, 100.0)
    near = np.hypot(*(a[:, None] - b).transpose(2, 0, 1)) < 5
    assert (nearby.reachable == near.any(axis=1)).all()
    inside = np.flatnonzero(nearby.reachable).astype(np.int32)
    card = np.repeat(inside, 3000)
    drawn = np.zeros_like(near, dtype=np.int64)
    np.add.at(drawn, (card, nearby.draw(card, random)), 1)
    assert ((drawn > 0) == near).all()
    choices = near[inside].sum(axis=1, keepdims=True)
    expected = 3000 / choices
    spread = ((drawn[inside] - expected) ** 2 / expected)[near[inside]].sum()
    freedom = int((choices - 1).sum())  # chi-square: each terminal equally often
    assert abs(spread - freedom) <= 4 * np.sqrt(2 * freedom)


def test_a_card_without_a_terminal_never_pays() -> None:
    config = CardsConfig(cards=400, terminals=40, days=20, seed=1)
    population = CardPopulation.draw(config)
    paying = np.unique(columns(config)["customer"])
    assert 0 < population.nearby.reachable.sum() < 400
    assert population.nearby.reachable[paying].all()


def test_a_compromised_terminal_is_bad_for_whole_days_and_28_of_them() -> None:
    config = CardsConfig(
        cards=2_000, terminals=200, days=120, seed=4, bad_terminals_per_day=0.2, bad_cards_per_day=0
    )
    run = columns(config)
    honest = columns(
        CardsConfig(
            **{f: getattr(config, f) for f in ("cards", "terminals", "days", "seed")}
            | {"bad_terminals_per_day": 0, "bad_cards_per_day": 0}
        )
    )
    assert (run["amount_cents"] == honest["amount_cents"]).all()
    cell = run["terminal"] * 120 + run["t"] // DAY
    total = np.bincount(cell, minlength=200 * 120).reshape(200, 120)
    bad = np.bincount(cell[run["scenario"] == 2], minlength=200 * 120).reshape(200, 120)
    assert (bad == np.where(bad > 0, total, 0)).all()
    runs = 0
    for terminal in np.flatnonzero(total.min(axis=1) > 0):
        day = 0
        for flag, group in itertools.groupby(bad[terminal] > 0):
            length = len(list(group))
            if flag and day + length < 120:
                assert length >= 28
                runs += length == 28
            day += length
    assert runs >= 5
    assert not bad[:, 0].any() or bad[:, 0].astype(bool).sum() <= 1


def test_a_compromised_card_multiplies_a_third_of_its_amounts_by_five() -> None:
    size = {"cards": 300, "terminals": 3_000, "days": 60, "seed": 2, "bad_terminals_per_day": 0}
    honest = columns(CardsConfig(**size, bad_cards_per_day=0))
    run = columns(CardsConfig(**size, bad_cards_per_day=3))
    for name in ("t", "customer", "terminal"):
        assert (run[name] == honest[name]).all()
    hit = run["scenario"] == 3
    assert (run["amount_cents"][~hit] == honest["amount_cents"][~hit]).all()
    before = honest["amount_cents"][hit]
    times = run["amount_cents"][hit][before > 0] / before[before > 0]
    assert set(np.unique(times)) <= {5.0, 25.0, 125.0, 625.0}
    assert (times == 25).any()
    share = hit[(run["t"] // DAY >= 14) & (run["t"] // DAY < 45)].mean()
    # each card is begun 1 % of days: about 13 % of card-days are compromised, a third of them hit
    assert share == pytest.approx(0.04, abs=0.012)


def test_exactly_a_third_of_the_transactions_of_14_days_is_marked() -> None:
    random = np.random.default_rng(0)
    counts = [random.poisson(1.5, 40).astype(np.int32) for _ in range(14)]
    for card_count in (0.0, 1.0, 40.0):
        frauds = CompromisedCards()
        frauds.add(3, counts, card_count, random)
        marked = np.zeros(40, np.int64)
        for ahead, number in enumerate(counts):
            rows = frauds.rows(3 + ahead, number)
            assert len(np.unique(rows)) == len(rows)
            owner = np.repeat(np.arange(40), number)[rows]
            marked += np.bincount(owner, minlength=40)
        third = np.sum(counts, axis=0) // 3
        assert ((marked == third) | (marked == 0)).all()
        assert np.count_nonzero(marked) == min(card_count, np.count_nonzero(third))
        assert len(frauds.rows(3, counts[0])) == 0  # given out once, then forgotten


def test_fractions_of_a_compromise_are_drawn_by_chance() -> None:
    random = np.random.default_rng(0)
    sizes = [len(draw_some(100, 0.3, random)) for _ in range(2000)]
    assert set(sizes) == {0, 1}
    assert np.mean(sizes) == pytest.approx(0.3, abs=0.04)
    assert len(draw_some(4, 9.0, random)) == 4


def test_the_last_day_draws_nothing() -> None:
    assert set(np.unique(columns(CardsConfig(days=1, seed=8))["scenario"])) <= {0, 1}
    assert (columns(CardsConfig(days=2, seed=8))["scenario"] == 2).any()


def test_a_small_bank_has_the_same_share_of_frauds() -> None:
    shares = [
        columns(CardsConfig(cards=500, terminals=1_000, days=90, seed=seed))["fraud"].mean()
        for seed in range(5)
    ]
    assert np.mean(shares) == pytest.approx(0.0078, abs=0.0025)


def test_same_seed_same_rows_other_seed_other_rows() -> None:
    first, again = columns(CardsConfig(days=5)), columns(CardsConfig(days=5))
    other = columns(CardsConfig(days=5, seed=1))
    assert all((first[name] == again[name]).all() for name in first)
    assert len(other["t"]) != len(first["t"]) or (other["t"] != first["t"]).any()


@pytest.mark.parametrize("batch_rows", [997, 20_000, 10**7])
def test_batch_size_changes_no_value(batch_rows: int) -> None:
    config = CardsConfig(cards=1_000, terminals=2_000, days=20, seed=6)
    expected, run = columns(config), columns(config, batch_rows=batch_rows)
    assert all((run[name] == expected[name]).all() for name in expected)
    sizes = [len(batch) for batch in simulate_cards(config, batch_rows=batch_rows)]
    assert all(size == batch_rows for size in sizes[:-1])
    assert 0 < sizes[-1] <= batch_rows


def test_a_bank_where_nobody_reaches_a_terminal_gives_an_empty_stream() -> None:
    (batch,) = simulate_cards(CardsConfig(cards=1, terminals=1, days=3, seed=0))
    assert len(batch) == 0
    assert batch.schema.equals(CARDS_SCHEMA)


MEMORY = """
import resource
from tasks.fraud.simulate import CardsConfig, simulate_cards
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
early = None
rows = 0
for batch in simulate_cards(CardsConfig(cards=20_000, terminals=10_000, days=90)):
    rows += len(batch)
    if early is None and rows > 800_000:
        early = peak()
print(rows, early, peak())
"""


def test_memory_does_not_grow_with_the_number_of_days() -> None:
    """3.5 million rows are 115 MiB of columns; the peak may not grow by a quarter of that."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows, early, last = map(int, done.stdout.split())
    assert rows > 3_000_000
    assert last - early < 25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cards": 0}, "cards must be at least 1, got 0"),
        ({"terminals": -3}, "terminals must be at least 1, got -3"),
        ({"days": 0}, "days must be at least 1, got 0"),
        ({"cards": 2**31}, r"cards must be below 2\*\*31"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"bad_cards_per_day": -0.5}, "bad_cards_per_day must be 0 or more"),
        ({"bad_terminals_per_day": float("nan")}, "0 switches it off"),
    ],
)
def test_impossible_sizes_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CardsConfig(**fields)


def test_an_impossible_batch_size_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="batch_rows must be at least 1, got 0"):
        simulate_cards(CardsConfig(), batch_rows=0)
