"""Sensors, transactions and check digits in contracts: read, written, compared, enforced."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tasks.cleaning.clean import clean
from tasks.cleaning.contract.difference import differences
from tasks.cleaning.contract.infer import infer
from tasks.cleaning.contract.model import ContractError
from tasks.cleaning.contract.rules import flink_sql
from tasks.cleaning.contract.toml import from_toml, to_toml
from tasks.cleaning.transactions.check_digits import holds

PAYMENTS = """
name = "payments"
[columns.id]
[columns.t]
[columns.account]
[columns.amount]
kind = "decimal"
[columns.currency]
[columns.iban]
check_digit = "iban"
[[transactions]]
time = "t"
id = "id"
account = "account"
amount = "amount"
currency = "currency"
near_seconds = 60.0
"""
SERIES = """
name = "oven"
[columns.t]
[columns.x]
kind = "decimal"
[[sensor]]
column = "x"
time = "t"
interval = 60.0
gap_after = 150.0
spike = 8.0
"""


def payments():
    return pl.DataFrame(
        {
            "id": ["1", "2", "3", "3", "5", "6"],
            "t": [f"2026-03-02 10:0{m}:00" for m in (0, 1, 3, 5, 7, 9)],
            "account": ["a", "a", "b", "c", "d", "e"],
            "amount": ["5.00", "5", "7", "8", "1.50", "9"],
            "currency": ["EUR", "EUR", "EUR", "EUR", "JPY", "EUR"],
            "iban": ["DE89370400440532013000"] * 5 + ["DE89370400440532013001"],
        }
    )


def oven(spiked=()):
    rng = np.random.default_rng(0)
    values = 20.0 + 0.1 * np.cumsum(rng.normal(size=600))
    values[list(spiked)] += 5.0
    clock = pl.datetime_range(
        pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 1, 9, 59), "1m", eager=True
    )
    return pl.DataFrame(
        {"t": clock.dt.to_string("%Y-%m-%d %H:%M:%S"), "x": [f"{v:.3f}" for v in values]}
    )


def test_contracts_come_back_as_they_were_written():
    for text in (PAYMENTS, SERIES):
        contract = from_toml(text)
        assert from_toml(to_toml(contract)) == contract
    assert from_toml(SERIES).sensors[0].gap_after == 150.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PAYMENTS.replace('"iban"\n[[', '"vat"\n[['), "check_digit is 'vat'; give one of luhn"),
        (SERIES.replace('column = "x"', 'column = "y"'), "sensor y names 'y', which is no column"),
        (SERIES + "speed = 1\n", r"\[\[sensor\]\] 1 has no 'speed'; known: column, time"),
        (SERIES + SERIES[SERIES.index("[[sensor]]") :], r"two \[\[sensor\]\] tables name .* 'x'"),
        (SERIES + 'zone = "Mars"\n', r"\[\[sensor\]\] 1: zone 'Mars' is not known"),
        (PAYMENTS + "max_speed_kmh = 900.0\n", "needs the column of latitude"),
        (PAYMENTS.replace('account = "account"', 'account = "who"'), "transactions 1 names 'who'"),
    ],
)
def test_lines_that_nobody_could_check_are_refused(text, told):
    with pytest.raises(ContractError, match=told):
        from_toml(text)


def test_rows_that_break_declared_rules_are_set_aside():
    done = clean(payments(), from_toml(PAYMENTS), "f")
    aside = {(r["row"], r["rule"], r["column"]) for r in done.quarantine.to_pylist()}
    assert aside == {
        (1, "near-copy:t", "t"),
        (3, "repeated-id:id", "id"),
        (4, "decimals:amount", "amount"),
        (5, "check_digit:iban", "iban"),
    }


def test_inferred_lines_of_transactions_only_show():
    contract = from_toml(PAYMENTS)
    guessed = replace(contract.transactions[0], confidence={"near_seconds": 0.9})
    done = clean(payments(), replace(contract, transactions=(guessed,)), "f")
    assert 1 in done.rows.to_list()
    shown = done.review.filter(pl.col("rule") == "near-copy:t")
    assert shown.select("row", "confidence").rows() == [(1, 0.5)]


def test_check_digits_are_the_same_on_lazy_and_streamed_frames():
    from tasks.cleaning.contract.rules import row_rules

    rule = next(r for r in row_rules(from_toml(PAYMENTS)) if r.name == "check_digit:iban")
    lazy = payments().lazy().select(rule.broken.alias("broken"))
    expected = [False] * 5 + [True]
    assert lazy.collect()["broken"].to_list() == expected
    assert lazy.collect(engine="streaming")["broken"].to_list() == expected


def test_streams_refuse_what_needs_other_rows_by_name():
    with pytest.raises(
        ContractError, match=r"check_digit:iban, currency.*near-copy:t: .*whole tables only"
    ):
        flink_sql(from_toml(PAYMENTS), "payments")
    with pytest.raises(ContractError, match="sensor:x: rules across rows"):
        flink_sql(from_toml(SERIES), "oven")


def test_spikes_are_repaired_with_a_bound_and_on_record():
    done = clean(oven([100, 300]), from_toml(SERIES), "f")
    truth = oven()["x"].cast(pl.Float64)
    assert done.changes["row"].to_list() == [100, 300]
    assert set(done.changes["rule"]) == {"spike:x"}
    for row in (100, 300):
        assert abs(float(done.frame["x"][row]) - truth[row]) < 0.5
    assert 0 < done.promised_harm <= 0.01
    assert done.fixed
    assert done.counts["quarantined"] == 0
    again = clean(done.frame, from_toml(SERIES), "f")
    assert again.changes.is_empty()


def test_gaps_are_shown_and_never_filled():
    frame = oven().filter(~pl.int_range(pl.len()).is_between(200, 230))
    done = clean(frame, from_toml(SERIES), "f")
    assert done.frame.equals(frame)
    assert done.review.select("row", "rule", "repairable").rows() == [(200, "gap:t", False)]


def test_two_sensors_of_one_clock_tell_of_its_fault_once():
    frame = oven().with_columns(pl.col("x").alias("y"))
    frame = pl.concat([frame[:300], frame[299:]]).with_columns(
        pl.when(pl.int_range(pl.len()) == 300).then(pl.lit("1.0")).otherwise("y").alias("y")
    )
    text = SERIES.replace("[[sensor]]", "[columns.y]\n[[sensor]]")
    text += '[[sensor]]\ncolumn = "y"\ntime = "t"\ninterval = 60.0\n'
    done = clean(frame, from_toml(text), "f")
    assert done.review.filter(pl.col("rule") == "clock-duplicate:t").height == 1


def test_a_series_and_check_digits_are_inferred():
    contract = infer(oven(), "oven")
    assert [one.column for one in contract.sensors] == ["x"]
    sensor = contract.sensors[0]
    assert (sensor.interval, sensor.resolution) == (60.0, 0.001)
    assert {"interval", "gap_after", "spike", "max_rate"} <= set(sensor.confidence)
    assert from_toml(to_toml(contract)) == contract
    draw = random.Random(2)
    every = [f"4{draw.randrange(10**14):014}{d}" for _ in range(200) for d in range(10)]
    every = [f"{one[:15]}{d}" for one in every[::10] for d in range(10)]
    cards = pl.Series("card", every).filter(holds(pl.Series(every), "luhn"))
    column = infer(cards.to_frame(), "cards").columns["card"]
    assert (column.check_digit, column.confidence["check_digit"]) == ("luhn", 1.0)


def test_differences_are_told():
    before = from_toml(PAYMENTS)
    looser = replace(before, transactions=(replace(before.transactions[0], near_seconds=0.0),))
    told = {(d.where, d.line, d.effect) for d in differences(before, looser)}
    assert told == {("near-copy:t", "transactions", "looser")}
    told = {(d.where, d.line, d.effect) for d in differences(looser, before)}
    assert told == {("near-copy:t", "transactions", "stricter")}
    wider = replace(before, transactions=(replace(before.transactions[0], near_seconds=90.0),))
    assert [d.effect for d in differences(before, wider)] == ["other"]
    unchecked = from_toml(PAYMENTS.replace('check_digit = "iban"\n', ""))
    told = [(d.where, d.line, d.effect) for d in differences(before, unchecked)]
    assert told == [("iban", "check_digit", "looser")]
    oven_before = from_toml(SERIES)
    without = replace(oven_before, sensors=())
    assert [d.line for d in differences(oven_before, without)] == ["sensor"]
