"""Transfers with laundering rings: the fixed parameters, read back from the rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.simulate import (
    TRANSFERS_SCHEMA,
    Drift,
    TransfersConfig,
    simulate_transfers,
)
from tasks.fraud.simulate.rings import RingTransfers, draw_rings
from tasks.fraud.simulate.transfers import AccountPopulation

ROOT = Path(__file__).resolve().parents[4]
DAY = 86_400


def columns(config: TransfersConfig, **options: int) -> dict[str, np.ndarray]:
    table = pa.Table.from_batches(simulate_transfers(config, **options))
    return {name: table[name].to_numpy() for name in table.column_names}


def operations(made: RingTransfers) -> list[tuple[str, int, slice]]:
    """Cut the transfers, in the order they were made up, into (kind, ring, rows)."""
    found = []
    start = 0
    while start < len(made.t):
        passed_on = made.sender[start + 1] == made.receiver[start]
        stop = start + (5 if passed_on else 7)
        closed = made.receiver[stop - 1] == made.sender[start]
        kind = ("cycle" if closed else "chain") if passed_on else "gather"
        found.append((kind, made.ring[start], slice(start, stop)))
        start = stop
    return found


@pytest.fixture(scope="module")
def full() -> dict[str, np.ndarray]:
    return columns(TransfersConfig(seed=1))


@pytest.fixture(scope="module")
def many() -> list[dict[str, np.ndarray]]:
    return [columns(TransfersConfig(accounts=2_000, days=60, seed=seed)) for seed in range(10)]


@pytest.fixture(scope="module")
def rings() -> RingTransfers:
    return draw_rings(np.full(500, 50.0), 120, 400, None, np.random.default_rng(2))


def test_a_full_run_has_the_size_of_the_specification(full) -> None:
    """About 1.15 million transfers and 2,000 frauds in 60 rings."""
    assert len(full["t"]) == pytest.approx(1_150_000, rel=0.04)
    assert full["fraud"].sum() == pytest.approx(2_040, rel=0.08)
    assert len(np.unique(full["ring"])) == 61
    assert full["t"].max() < 120 * DAY


def test_rows_over_ten_seeds(many) -> None:
    for run in many:
        assert (run["sender"] != run["receiver"]).all()
        assert (np.diff(run["t"]) >= 0).all()
        assert (run["tx_id"] == np.arange(len(run["t"]))).all()
        assert ((run["ring"] >= 0) == (run["fraud"] == 1)).all()
        assert run["amount_cents"].min() >= 0
        assert max(run["sender"].max(), run["receiver"].max()) < 2_000
        members = [
            len(np.unique(np.r_[run["sender"][ring], run["receiver"][ring]]))
            for ring in (run["ring"] == number for number in range(60))
        ]
        assert max(members) <= 14
        assert min(members) >= 7
    per_day = np.mean([len(run["t"]) / 60 / 2_000 for run in many])
    assert per_day == pytest.approx(0.96, rel=0.03)  # Gamma(1.2, .8) has mean .96
    assert np.mean([run["fraud"].sum() for run in many]) == pytest.approx(2_040, rel=0.02)


def test_amounts_and_times_of_honest_transfers(many) -> None:
    second = np.concatenate([run["t"] % DAY for run in many])
    assert np.bincount(second // 3600) == pytest.approx(np.full(24, len(second) / 24), rel=0.03)
    for seed, run in enumerate(many):
        mean = AccountPopulation.draw(TransfersConfig(accounts=2_000, days=60, seed=seed)).mean
        honest = (run["fraud"] == 0) & (run["amount_cents"] > 500)
        log = np.log(run["amount_cents"][honest] / 100 / mean[run["sender"][honest]])
        assert np.median(log) == pytest.approx(0, abs=0.02)
        assert log.std() == pytest.approx(0.6, abs=0.02)
        assert np.log(mean).mean() == pytest.approx(4, abs=0.08)
        assert np.log(mean).std() == pytest.approx(0.7, abs=0.06)


def test_nine_in_ten_transfers_go_to_a_partner(many) -> None:
    for seed, run in enumerate(many):
        population = AccountPopulation.draw(TransfersConfig(accounts=2_000, days=60, seed=seed))
        honest = run["fraud"] == 0
        sender, receiver = run["sender"][honest], run["receiver"][honest]
        partner = (population.partners[sender] == receiver[:, None]).any(axis=1)
        assert 0.895 < partner.mean() < 0.925  # a few of the others hit a partner by chance
        received = np.bincount(receiver, minlength=2_000)
        assert received.max() > 5 * received.mean()  # popularity has a heavy tail


def test_chains_and_cycles_pass_money_on(rings) -> None:
    for kind, low, high in (("chain", 0.93, 0.98), ("cycle", 0.95, 0.99)):
        chosen = [rows for name, _, rows in operations(rings) if name == kind]
        ratios = np.concatenate(
            [np.divide(rings.amount[r][1:], rings.amount[r][:-1]) for r in chosen]
        )
        assert ratios.min() >= low
        assert ratios.max() <= high
        assert ratios.mean() == pytest.approx((low + high) / 2, abs=0.002)
        waits = np.concatenate([np.diff(rings.t[r]) for r in chosen])
        assert waits.min() >= 3600
        assert waits.max() < 18 * 3600
        for rows in chosen:
            senders, receivers = rings.sender[rows], rings.receiver[rows]
            assert senders[1:] == receivers[:-1]
            assert len(set(senders) | set(receivers)) == (5 if kind == "cycle" else 6)
        first = np.log(np.array([rings.amount[r.start] for r in chosen]) / 50)
        assert first.mean() == pytest.approx(0.3, abs=0.06)
        assert first.std() == pytest.approx(0.4, abs=0.05)


def test_gatherings_collect_within_three_days(rings) -> None:
    chosen = [rows for name, _, rows in operations(rings) if name == "gather"]
    for rows in chosen:
        assert len(set(rings.receiver[rows])) == 1
        assert len(set(rings.sender[rows]) | set(rings.receiver[rows])) == 8
        assert max(rings.t[rows]) - min(rings.t[rows]) < 3 * DAY
    log = np.log(np.concatenate([rings.amount[r] for r in chosen]) / 50)
    assert log.mean() == pytest.approx(0, abs=0.03)
    assert log.std() == pytest.approx(0.5, abs=0.03)


def test_rings_make_six_operations_a_week_apart(rings) -> None:
    found = operations(rings)
    kinds = Counter(kind for kind, _, _ in found)
    assert set(Counter(ring for _, ring, _ in found).values()) == {6}
    assert all(abs(kinds[kind] - 800) < 120 for kind in ("chain", "cycle", "gather"))
    begin = np.array([min(rings.t[rows]) // DAY for kind, _, rows in found if kind != "gather"])
    number = np.array([i % 6 for i, (kind, _, _) in enumerate(found) if kind != "gather"])
    start = begin - 7 * number
    assert start.min() >= 0
    assert start.max() <= 74 + 3
    assert max(rings.t) < 120 * DAY


def test_ring_transfers_are_all_in_the_stream(full) -> None:
    config = TransfersConfig(seed=1)
    ring = full["ring"] >= 0
    starts = full["t"][ring] // DAY
    assert starts.min() >= 0
    assert starts.max() <= 74 + 35 + 3 + 4
    assert set(np.unique(full["ring"][ring])) == set(range(config.rings))
    seconds = full["t"][ring] % DAY
    assert (seconds == 0).mean() < 0.01  # no transfer stands out by midnight sharp


def test_determinism_and_batch_size() -> None:
    config = TransfersConfig(accounts=500, days=50, rings=5, seed=9)
    first = columns(config)
    for rows in (100, 4096, 10**7):
        again = columns(config, batch_rows=rows)
        assert all((first[name] == again[name]).all() for name in first)
    other = columns(TransfersConfig(accounts=500, days=50, rings=5, seed=10))
    assert len(other["t"]) != len(first["t"]) or (other["t"] != first["t"]).any()


def test_without_rings_nothing_is_a_fraud() -> None:
    run = columns(TransfersConfig(accounts=300, days=3, rings=0))
    assert len(run["t"]) > 500
    assert not run["fraud"].any()
    assert (run["ring"] == -1).all()


def test_columns_are_those_of_the_shipped_dataset_config() -> None:
    config = DatasetConfig.from_toml(ROOT / "tasks/fraud/datasets/transfers.toml")
    assert set(config.columns) <= set(TRANSFERS_SCHEMA.names)
    batch = next(simulate_transfers(TransfersConfig(accounts=20, days=46, rings=1)))
    assert batch.schema.equals(TRANSFERS_SCHEMA)


def test_drift_moves_amounts_rates_and_the_mix_of_operations() -> None:
    drift = Drift(start_day=20, months=6)
    size = {"accounts": 3_000, "days": 200, "seed": 4}
    steady, moved = columns(TransfersConfig(**size)), columns(TransfersConfig(**size, drift=drift))
    early = steady["t"] < 21 * DAY
    honest = {"steady": steady, "moved": moved}
    first = {
        k: run["amount_cents"][(run["t"] < 21 * DAY) & (run["ring"] < 0)]
        for k, run in honest.items()
    }
    assert (first["steady"] == first["moved"]).all()
    assert early.any()
    late = {k: (run["t"] >= 190 * DAY) & (run["ring"] < 0) for k, run in honest.items()}
    now = drift.at(195)
    rate = late["moved"].sum() / late["steady"].sum()
    assert rate == pytest.approx(now.rate, rel=0.03)
    amount = np.median(moved["amount_cents"][late["moved"]]) / np.median(
        steady["amount_cents"][late["steady"]]
    )
    assert amount == pytest.approx(now.amount, rel=0.03)
    mean = np.full(300, 50.0)
    made = draw_rings(mean, 400, 1_500, drift, np.random.default_rng(1))
    late_kinds = Counter(
        kind for kind, _, rows in operations(made) if made.t[rows.start] > 210 * DAY
    )
    total = late_kinds.total()
    weight = now.chains + 1 + now.gathers
    assert late_kinds["chain"] / total == pytest.approx(drift.at(300).chains / weight, rel=0.25)
    assert late_kinds["chain"] < 0.5 * late_kinds["cycle"]
    assert late_kinds["gather"] > 2 * late_kinds["cycle"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accounts": 13}, "accounts = 13 is too few for a ring of 14 accounts; use at least 14"),
        ({"accounts": 1, "rings": 0}, "use at least 14 \\(2 with rings = 0\\)"),
        ({"days": 45}, "days = 45 is too short for a ring; use at least 46, or rings = 0"),
        ({"days": 0}, "days must be at least 1"),
        ({"rings": -1}, "rings must be 0 or more"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_impossible_sizes_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransfersConfig(**fields)
