"""Proposed configs fit well-known layouts, read back, and pass the check they lead to."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.fraud.dataset import DatasetConfig, EntityColumn, Split
from tasks.fraud.ingest.checks import check
from tasks.fraud.ingest.columns_profile import profile
from tasks.fraud.ingest.propose_config import ProposalError, propose, split_for, to_toml

N = 3_000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def iso(seconds: np.ndarray) -> list[str]:
    return [str(t).replace("T", " ") for t in seconds.astype("datetime64[s]")]


def gaps(rng: np.random.Generator, values: np.ndarray, share: float) -> pa.Array:
    return pa.array(values, mask=rng.random(len(values)) < share)


def flags(rng: np.random.Generator, n: int = N) -> np.ndarray:
    return (rng.random(n) < 0.03).astype(np.int8)


def works(table: pa.Table, name: str, tmp_path: Path) -> DatasetConfig:
    """Propose, write, read back and check; return the config."""
    config, notes = propose(table, name)
    path = tmp_path / "c.toml"
    path.write_text(to_toml(config, notes), encoding="utf-8")
    assert DatasetConfig.from_toml(path) == config
    report = check(table, config, name).report
    assert report.rows_used == table.num_rows
    assert report.frauds > 0
    return config


def test_cards_in_cents(rng: np.random.Generator, tmp_path: Path) -> None:
    table = pa.table(
        {
            "tx_id": np.arange(N),
            "t": np.sort(rng.integers(0, 157 * 86_400, N)),
            "customer": rng.integers(0, 300, N),
            "terminal": rng.integers(0, 500, N),
            "amount_cents": rng.integers(1, 10**5, N),
            "fraud": flags(rng),
            "scenario": rng.integers(0, 4, N),
        }
    )
    config = works(table, "my cards!", tmp_path)
    assert config.name == "my-cards"
    assert (config.time, config.time_unit, config.event_id) == ("t", "s", "tx_id")
    assert (config.amount, config.amount_unit, config.label) == ("amount_cents", "minor", "fraud")
    assert [e.column for e in config.entities] == ["customer", "terminal"]
    assert config.numeric == config.categorical == ()  # the scenario would tell the label
    assert config.split == Split()


def test_transfers_between_accounts(rng: np.random.Generator, tmp_path: Path) -> None:
    table = pa.table(
        {
            "tx_id": np.arange(N),
            "t": np.sort(rng.integers(0, 120 * 86_400, N)),
            "sender": rng.integers(0, 300, N),
            "receiver": rng.integers(0, 300, N),
            "amount_cents": rng.integers(1, 10**5, N),
            "fraud": flags(rng),
            "ring": rng.integers(-1, 4, N),
        }
    )
    config = works(table, "transfers", tmp_path)
    assert config.kinds == {"account": ["sender", "receiver"]}
    assert config.numeric == ()


def test_ieee_cis_names(rng: np.random.Generator, tmp_path: Path) -> None:
    table = pa.table(
        {
            "TransactionID": np.arange(2_987_000, 2_987_000 + N),
            "isFraud": flags(rng),
            "TransactionDT": np.sort(rng.integers(86_400, 15_811_131, N)),
            "TransactionAmt": np.round(rng.lognormal(4, 1, N), 3),
            "ProductCD": rng.choice(list("WCRHS"), N),
            "card1": rng.integers(1_000, 1_800, N),
            "card2": gaps(rng, rng.integers(100, 600, N).astype(float), 0.015),
            "card4": rng.choice(["visa", "mastercard"], N),
            "P_emaildomain": gaps(rng, rng.choice(["a.com", "b.com"], N), 0.16),
            "D1": gaps(rng, rng.integers(0, 500, N).astype(float), 0.3),
            "M1": gaps(rng, rng.choice(["T", "F"], N), 0.4),
            "V1": np.ones(N),
        }
    )
    config = works(table, "ieee", tmp_path)
    assert (config.time, config.time_unit) == ("TransactionDT", "s")
    assert (config.amount, config.amount_unit) == ("TransactionAmt", "major")
    assert (config.label, config.event_id) == ("isFraud", "TransactionID")
    assert config.entities == (EntityColumn("card1"),)
    assert config.categorical == ("ProductCD", "card4", "P_emaildomain", "M1")
    assert config.numeric == ("card2", "D1")  # V1 never changes


def test_paysim_names(rng: np.random.Generator, tmp_path: Path) -> None:
    table = pa.table(
        {
            "step": np.sort(rng.integers(1, 744, N)),
            "type": rng.choice(["CASH_OUT", "PAYMENT"], N),
            "amount": np.round(rng.lognormal(8, 1, N), 2),
            "nameOrig": [f"C{i}" for i in range(N)],
            "oldbalanceOrg": rng.random(N),
            "newbalanceOrig": rng.random(N),
            "nameDest": [f"M{i}" for i in rng.integers(0, 900, N)],
            "oldbalanceDest": rng.random(N),
            "newbalanceDest": rng.random(N),
            "isFraud": flags(rng),
            "isFlaggedFraud": np.arange(N) % 2,
        }
    )
    config = works(table, "paysim", tmp_path)
    assert (config.time, config.time_unit, config.label) == ("step", "h", "isFraud")
    assert config.kinds == {"account": ["nameOrig", "nameDest"]}
    assert config.event_id == ""
    assert config.numeric == ("oldbalanceOrg", "oldbalanceDest")
    assert config.categorical == ("type",)
    assert config.split.folds == 2


def test_sparkov_names(rng: np.random.Generator, tmp_path: Path) -> None:
    seconds = np.sort(rng.integers(1_546_300_800, 1_577_836_800, N))
    table = pa.table(
        {
            "Unnamed: 0": np.arange(N),
            "trans_date_trans_time": iso(seconds),
            "cc_num": rng.integers(4 * 10**15, 4 * 10**15 + 200, N),
            "merchant": [f"M{i}" for i in rng.integers(0, 300, N)],
            "category": rng.choice(["a", "b", "c"], N),
            "amt": np.round(rng.lognormal(3, 1, N), 2),
            "first": [f"F{i}" for i in rng.integers(0, 350, N)],
            "zip": rng.integers(10_000, 90_000, N),
            "lat": rng.random(N),
            "dob": iso(rng.integers(0, 10**9, N)),
            "trans_num": [f"{i:032x}" for i in rng.permutation(N)],
            "unix_time": np.arange(N) + 1_325_376_018,
            "empty": pa.nulls(N),
            "is_fraud": flags(rng),
        }
    )
    config = works(table, "sparkov", tmp_path)
    assert (config.time, config.time_unit) == ("trans_date_trans_time", "auto")
    assert (config.amount, config.label, config.event_id) == ("amt", "is_fraud", "trans_num")
    assert [e.column for e in config.entities] == ["cc_num", "merchant"]
    assert config.numeric == ("lat",)
    assert config.categorical == ("category",)
    _, notes = propose(table, "sparkov")
    assert "dob: left out, a second time" in notes
    assert "empty: left out, it is empty" in notes


def test_ledgers_with_repeated_names(rng: np.random.Generator, tmp_path: Path) -> None:
    table = pa.table(
        {
            "Timestamp": pa.array(np.sort(rng.integers(0, 12 * 86_400, N)), pa.timestamp("s")),
            "Account": [f"A{i}" for i in rng.integers(0, 200, N)],
            "Account.1": [f"A{i}" for i in rng.integers(0, 200, N)],
            "Amount Paid": rng.random(N) * 100,
            "Is Laundering": flags(rng).astype(bool),
            "label_time": pa.array(rng.integers(10**9, 10**9 + 9, N), pa.timestamp("s")),
            "tags": [["x"]] * N,
        }
    )
    table = table.set_column(
        0,
        "Timestamp",
        pa.array(np.sort(rng.integers(10**9, 10**9 + 12 * 86_400, N)), pa.timestamp("s")),
    )
    config = works(table, "ledger", tmp_path)
    assert config.kinds == {"account": ["Account", "Account.1"]}
    assert (config.time, config.label_time) == ("Timestamp", "label_time")
    assert config.label_delay_days == 1.0
    _, notes = propose(table, "ledger")
    assert any("too few to judge" in note for note in notes)


def test_numbers_and_flags_as_text(rng: np.random.Generator, tmp_path: Path) -> None:
    table = pa.table(
        {
            "date": iso(np.sort(rng.integers(1_600_000_000, 1_610_000_000, N))),
            "price": [f"{v:.2f}" for v in rng.random(N) * 10],
            "user_id": [f"u{i}" for i in rng.integers(0, 99, N)],
            "label": [str(bool(v)) for v in flags(rng)],
        }
    )
    config = works(table, "text", tmp_path)
    assert (config.time, config.amount, config.label) == ("date", "price", "label")
    assert config.entities == (EntityColumn("user_id"),)


@pytest.mark.parametrize(
    ("first", "unit"),
    [(1_600_000_000, "s"), (1_600_000_000_000, "ms"), (1.6e15, "us"), (1.6e18, "ns")],
)
def test_epoch_units_are_recognised(first: float, unit: str) -> None:
    table = pa.table(
        {
            "ts": np.arange(100, dtype=np.int64) + int(first),
            "amount": np.arange(100.0),
            "card": np.arange(100) % 20,
        }
    )
    config, notes = propose(table, "x")
    assert (config.time_unit, config.time_origin) == (unit, "1970-01-01T00:00:00")
    assert any("no label" in note for note in notes)


@pytest.mark.parametrize(
    ("drop", "message"),
    [("ts", "no time column"), ("amount", "no amount column"), ("card", "no entity column")],
)
def test_tables_that_cannot_be_guessed_are_refused(drop: str, message: str) -> None:
    table = pa.table(
        {"ts": np.arange(100), "amount": np.arange(100.0), "card": np.arange(100) % 20}
    )
    with pytest.raises(ProposalError, match=message):
        propose(table.drop_columns([drop]), "x")


def test_many_columns_are_capped(rng: np.random.Generator) -> None:
    table = pa.table(
        {
            "day": np.arange(100),
            "amount": np.arange(100.0),
            "card": np.arange(100) % 20,
            "job": [f"job {i}" for i in range(99)] + ["x y"],
            "mcc": np.arange(100) % 7,
            **{f"V{i}": rng.random(100) for i in range(60)},
        }
    )
    config, notes = propose(table.append_column("words", [[f"w{i}" for i in range(100)]]), "")
    assert config.name == "transactions"
    assert (config.time, config.time_unit) == ("day", "d")
    assert len(config.numeric) == 50
    assert config.categorical == ("job", "mcc", "words")
    assert sum("more than 50 numeric" in note for note in notes) == 10


@pytest.mark.parametrize("days", [1, 5, 20, 60, 119, 138, 400])
def test_splits_fit_the_days_there_are(days: int) -> None:
    split = split_for(days, 7.0 if days >= 28 else 1.0)
    needed = split.warmup_days + split.test_days * (split.folds + split.validation_folds)
    if days >= 20:
        assert needed + split.train_days + (7 if days >= 28 else 1) <= days
    assert split.train_days >= 1


def test_strings_survive_toml() -> None:
    config = DatasetConfig("n", 'ti"me', "a\\b", (EntityColumn("Zoë", "k"),), numeric=("x\ty",))
    text = to_toml(config, ["a note\nof two lines"])
    assert DatasetConfig.from_dict(tomllib.loads(text)) == config


def test_profile_of_odd_columns() -> None:
    table = pa.table({"b": [b"x"], "n": pa.nulls(1), "f": [True], "d": ["2020-01-01"]})
    assert [profile(table, n).content for n in table.column_names] == [
        "other", "empty", "flag", "time",
    ]  # fmt: skip
