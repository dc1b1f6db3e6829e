"""What needs more than single rows: keys among good rows, references, freshness, label noise."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.clean import CleanConfig, clean
from tasks.cleaning.contract.model import ColumnContract, Contract, ContractError, Label
from tasks.cleaning.contract.rules import flink_sql, row_rules
from tasks.cleaning.contract.table_checks import LabelNoiseError, StaleTableError
from tasks.cleaning.contract.toml import from_toml
from tasks.cleaning.contract.verdicts import verdicts

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
ONLY_CHECKED = CleanConfig(repairs=False, drop_copies=False)


def aside(frame, contract, **options):
    done = clean(frame, contract, "f", ONLY_CHECKED, now=NOON, **options)
    return [(r["row"], r["rule"]) for r in done.quarantine.to_pylist()]


def test_keys_are_judged_among_the_rows_that_stay():
    contract = from_toml(
        'keys = [["b"]]\n[columns.a]\nunique = true\n[columns.b]\n[columns.n]\nkind = "integer"'
    )
    frame = pl.DataFrame(
        {
            "a": ["1", "1", "1", "2", None, None],
            "b": ["x", "y", "z", "z", "u", "v"],
            "n": ["bad", "1", "1", "1", "1", "1"],
        }
    )
    # Row 0 takes no good row with it; row 2 is gone when b is judged.
    assert aside(frame, contract) == [(0, "kind:n"), (2, "unique:a")]
    rules = row_rules(contract)
    eager = verdicts(frame, rules).collect()
    assert verdicts(frame.lazy(), rules).collect(engine="streaming").equals(eager)
    assert sum(eager.null_count().row(0)) == 0


def test_transactions_are_judged_among_the_rows_that_stay():
    contract = from_toml(
        """
[columns.id]
[columns.t]
[columns.good]
kind = "decimal"
[[transactions]]
time = "t"
id = "id"
account = "id"
amount = "good"
near_seconds = 60.0
late_seconds = 60.0
"""
    )
    frame = pl.DataFrame(
        {
            "id": ["1", "1", "1", "2", "3"],
            "t": [f"2026-03-02 10:0{m}:00" for m in (9, 0, 4, 4, 2)],
            "good": ["bad", "5", "5", "7", "7"],
        }
    )
    # Row 0 takes no good row with it, be it by its number, be it by its time.
    assert aside(frame, contract) == [(0, "kind:good"), (2, "repeated-id:id"), (4, "late:t")]
    rules = row_rules(contract)
    eager = verdicts(frame, rules).collect()
    assert verdicts(frame.lazy(), rules).collect(engine="streaming").equals(eager)
    assert sum(eager.null_count().row(0)) == 0
    assert verdicts(frame.clear(), rules).collect().height == 0


def test_an_inferred_key_takes_no_row_from_a_declared_one():
    contract = Contract(
        name="t",
        columns={
            "a": ColumnContract(unique=True, confidence={"unique": 0.9}),
            "b": ColumnContract(unique=True),
        },
    )
    frame = pl.DataFrame({"a": ["1", "1", "2"], "b": ["x", "y", "y"]})
    assert aside(frame, contract) == [(2, "unique:b")]


def test_values_must_occur_in_the_other_table():
    columns = "[columns.shop]\n[columns.city]\n"
    one = from_toml(columns + "[[reference]]\ncolumns = ['shop']\ntable = 'shops.csv'\nto = ['id']")
    two = from_toml(
        columns
        + "[[reference]]\ncolumns = ['shop', 'city']\ntable = 'shops.csv'\nto = ['id', 'town']"
    )
    frame = pl.DataFrame({"shop": ["1", "2", "3", None], "city": ["A", "A", "A", "A"]})
    shops = pl.DataFrame({"id": ["1", "2", None], "town": ["A", "B", "C"]})
    assert aside(frame, one, tables={"shops.csv": shops}) == [(2, "reference:shop->shops.csv:id")]
    assert [row for row, _ in aside(frame, two, tables={"shops.csv": shops})] == [1, 2]
    with pytest.raises(ContractError, match=r"'shops.csv' was not given \(given: none\)"):
        row_rules(one)
    with pytest.raises(ContractError, match=r"shops\.csv has no column 'id'; it has x"):
        row_rules(one, {"shops.csv": pl.DataFrame({"x": ["1"]})})
    with pytest.raises(ContractError, match=r"reference:shop->shops\.csv:id: rules across rows"):
        flink_sql(one, "t")
    assert "reference" not in flink_sql(one, "t", rows_only=True)


FRESH = "newest = 'day'\nmax_age_days = 1.5\n[columns.day]\nkind = '{}'"


@pytest.mark.parametrize(
    ("kind", "days", "stale"),
    [
        ("date", ["2020-01-01", "2026-11-09"], False),
        ("date", ["2026-11-08", "2099-01-01", "x"], True),  # to come, or no date: proves nothing
        ("date", [None], True),
        ("datetime", ["2026-11-09T00:00:00"], False),
        ("datetime", ["2026-11-08T23:59:59"], True),
        ("datetime", ["2026-11-08T23:59:59-01:00"], False),
    ],
)
def test_an_old_table_is_refused(kind, days, stale):
    frame, contract = pl.DataFrame({"day": days}, schema={"day": pl.String}), FRESH.format(kind)
    if not stale:
        clean(frame, from_toml(contract), "f", now=NOON)
        return
    with pytest.raises(StaleTableError, match=r"on 2026-11-10 12:00 UTC .* the last 1.5 days"):
        clean(frame, from_toml(contract), "f", now=NOON)
    clean(frame, from_toml(contract), "f", CleanConfig(fresh=False), now=NOON)


def labelled(wrong: float, rows: int = 600) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, rows)
    given = np.where(rng.random(rows) < wrong, 1 - truth, truth)
    return pl.DataFrame(
        {
            "x": (truth * 4 + rng.normal(size=rows)).round(3).astype(str),
            "y": np.where(given == 1, "yes", "no"),
        }
    )


def label_contract(**options) -> Contract:
    columns = {"x": ColumnContract(kind="decimal"), "y": ColumnContract()}
    return Contract(name="t", columns=columns, label=Label("y", 0.06, **options))


def test_too_many_wrong_labels_stop_the_run():
    clean(labelled(0.02), label_contract(), "f", ONLY_CHECKED)
    with pytest.raises(
        LabelNoiseError, match=r"of the labels in 'y' are wrong, as estimated from x"
    ):
        clean(labelled(0.2), label_contract(), "f", ONLY_CHECKED)


def test_labels_that_cannot_be_judged_are_told_of(caplog):
    contract = Contract(
        name="t",
        columns={"x": ColumnContract(), "y": ColumnContract()},
        keys=(("x",),),
        label=Label("y", 0.1),
    )
    done = clean(labelled(0.0), contract, "f", ONLY_CHECKED)
    (finding,) = done.review.rows(named=True)
    assert finding["rule"] == "label-noise"
    assert "not judged: the contract has no column" in finding["expected"]
    assert "not judged" in caplog.text
