"""Rules of transactions: each breaks where it should, in its column, and nowhere else."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cleaning.contract.model import ColumnContract, Contract
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.transactions.checks import checks_of, transaction_findings
from tasks.cleaning.transactions.currency import MINOR_UNITS
from tasks.cleaning.transactions.model import TransactionRules
from tasks.cleaning.transactions.places import distance_km

DAY = "2026-03-02"


def broken(rules, **columns):
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    found = transaction_findings(frame, rules)
    return dict(found.group_by("rule").agg("row").sort("rule").iter_rows())


def at(*clocks):
    return [f"{DAY} {clock}" for clock in clocks]


def test_the_same_number_again():
    rules = TransactionRules(time="t", id="n")
    got = broken(rules, t=at("01:00", "02:00", "03:00", "04:00"), n=["a", "b", "a", None])
    assert got == {"repeated-id:n": [2]}


def test_retries_are_copies_and_a_second_coffee_is_not():
    rules = TransactionRules(
        time="t", account="a", merchant="m", amount="x", currency="c", near_seconds=60
    )
    got = broken(
        rules,
        t=at("10:00:00", "10:00:30", "10:01:20", "10:05:00", "10:00:10", "10:00:20", "10:00:05"),
        a=["1", "1", "1", "1", "2", "1", "1"],
        m=["k", "k", "k", "k", "k", "o", "k"],
        x=["4.50", "4.5", "4.50", "4.50", "4.50", "4.50", "4.51"],
        c=["EUR"] * 7,
    )
    assert got == {"near-copy:t": [1, 2]}


@pytest.mark.parametrize("name", ["row", "amount", "time", "key", "0"])
def test_a_column_may_be_called_anything(name):
    rules = TransactionRules(time="t", account=name, amount="x", near_seconds=60)
    columns = {"t": at("10:00:00", "10:00:30", "10:00:31"), "x": ["5"] * 3, name: ["a", "a", "b"]}
    assert broken(rules, **columns) == {"near-copy:t": [1]}


def test_what_comes_behind_the_watermark_is_late():
    rules = TransactionRules(time="t", late_seconds=600)
    clocks = at("10:00", "10:20", "10:11", "10:09", "10:21")
    assert broken(rules, t=clocks) == {"late:t": [3]}
    arrived = at("10:00", "10:30", "10:12", "10:10", "10:31")  # in order of arrival nothing is
    rules = TransactionRules(time="t", arrival="r", late_seconds=600)
    assert broken(rules, t=clocks, r=arrived) == {}


def test_what_happened_after_it_arrived():
    rules = TransactionRules(time="t", arrival="r", ahead_seconds=60)
    got = broken(
        rules, t=at("10:00:00", "10:01:00", "10:05:00"), r=at("10:00:00", "10:00:01", "10:00:00")
    )
    assert got == {"future:t": [2]}


def test_times_before_the_account_and_times_that_never_were():
    rules = TransactionRules(time="t", opened="o", zone="Europe/Berlin")
    got = broken(
        rules,
        t=["2026-03-28 12:00", "2026-03-29 02:30", "2026-10-25 02:30", "x"],
        o=["2026-03-29", "2026-01-01", "2026-01-01", None],
    )
    assert got == {"before-opening:t": [0], "never-shown:t": [1]}


def test_labels_known_too_early():
    rules = TransactionRules(time="t", label_time="l", label_delay_seconds=3_600)
    got = broken(rules, t=at("10:00", "10:00", "10:00"), l=[*at("09:00", "10:30"), None])
    assert got == {"early-label:l": [0, 1]}


def test_currencies_and_their_decimals():
    rules = TransactionRules(time="t", amount="x", currency="c")
    got = broken(
        rules,
        t=at(*["10:00"] * 7),
        x=["10.5", "10.00", "10.125", "10.125", "1.005", "3", "7.123"],
        c=["JPY", "JPY", "KWD", "EUR", "XXX", "eur", None],
    )
    assert got == {"currency:c": [4, 5], "decimals:x": [0, 3]}
    assert (MINOR_UNITS["EUR"], MINOR_UNITS["JPY"], MINOR_UNITS["BHD"]) == (2, 0, 3)
    assert len(MINOR_UNITS) > 160


BERLIN, PARIS, TOKYO = ("52.52", "13.405"), ("48.857", "2.352"), ("35.68", "139.69")


def travel(*stops):
    rules = TransactionRules(
        time="t", account="a", latitude="la", longitude="lo", max_speed_kmh=1_000
    )
    accounts, clocks, places = zip(*stops, strict=True)
    return broken(
        rules, t=at(*clocks), a=list(accounts), la=[p[0] for p in places], lo=[p[1] for p in places]
    )


def test_nobody_is_in_tokyo_an_hour_after_berlin():
    assert travel(("1", "08:00", BERLIN), ("1", "10:00", PARIS)) == {}
    assert travel(("1", "08:00", BERLIN), ("2", "09:00", TOKYO)) == {}
    assert travel(("1", "08:00", BERLIN), ("1", "09:00", TOKYO)) == {"too-far:la": [1]}


def test_one_wrong_place_is_found_alone():
    stops = [("1", "08:00", BERLIN), ("1", "09:00", TOKYO), ("1", "10:00", BERLIN)]
    assert travel(*stops) == {"too-far:la": [1]}
    assert travel(*reversed(stops)) == {"too-far:la": [1]}  # whatever the order of rows
    first = [("1", "08:00", TOKYO), ("1", "09:00", BERLIN), ("1", "10:00", BERLIN)]
    assert travel(*first) == {"too-far:la": [0]}


def test_places_off_the_map():
    rules = TransactionRules(time="t", latitude="la", longitude="lo")
    got = broken(
        rules,
        t=at(*["10:00"] * 5),
        la=["91", "0", "0.0", "-90", None],
        lo=["0", "181", "0", "180", "5"],
    )
    assert got == {"off-the-map:la": [0, 1, 2]}


def test_distances_over_the_globe():
    far = distance_km(*(np.array([float(v)]) for v in (*BERLIN, *TOKYO)))
    assert far[0] == pytest.approx(8_918, rel=0.005)
    half = distance_km(np.array([0.0]), np.array([-90.0]), np.array([0.0]), np.array([90.0]))
    assert half[0] == pytest.approx(20_015, rel=0.001)


def test_inferred_lines_are_half_sure_at_most():
    frame = pl.DataFrame({"t": at("10:00", "10:00"), "n": ["a", "a"]})
    sure = transaction_findings(frame, TransactionRules(time="t", id="n"))
    guessed = transaction_findings(
        frame, TransactionRules(time="t", id="n", confidence={"id": 0.9})
    )
    assert (sure["confidence"][0], guessed["confidence"][0]) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ({"time": ""}, "the column of their time"),
        ({"near_seconds": 5.0, "account": "a"}, "near_seconds needs the column of amount"),
        ({"max_speed_kmh": 5.0}, "needs the column of account and of latitude and of longitude"),
        ({"latitude": "la"}, "named together"),
        ({"late_seconds": -1.0}, "late_seconds is -1.0; give a positive number"),
        ({"zone": "Nowhere"}, "zone 'Nowhere' is not known"),
    ],
)
def test_rules_that_cannot_be_checked_are_refused(lines, told):
    with pytest.raises(ValueError, match=told):
        TransactionRules(**{"time": "t", **lines})


texts = st.none() | st.sampled_from(
    ["1", "x", "", "2026-03-29 02:30:00", "2026-01-01", "1e400", "nan", "EUR", "-5.5"]
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[texts] * 8), max_size=10))
def test_no_table_is_too_strange(rows):
    names = ["t", "r", "x", "c", "a", "m", "la", "lo"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    rules = TransactionRules(
        time="t", id="t", arrival="r", amount="x", currency="c", account="a", merchant="m",
        latitude="la", longitude="lo", opened="r", label_time="r", zone="Europe/Berlin",
        near_seconds=1.0, late_seconds=1.0, max_speed_kmh=1.0,
    )  # fmt: skip
    for check in checks_of(rules):
        found = check.broken(frame)
        assert found.dtype == np.bool_
        assert found.shape == (len(rows),)


def test_two_hundred_thousand_rows_in_seconds():
    n, rng = 200_000, np.random.default_rng(1)
    times = pl.Series((1.77e15 + 1e6 * rng.integers(0, 10**6, n)).astype(np.int64))
    frame = pl.DataFrame(
        {
            "t": times.cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M:%S"),
            "n": np.arange(n).astype(str),
            "x": np.round(rng.exponential(30, n), 2).astype(str),
            "c": rng.choice(["EUR", "USD", "JPY"], n),
            "a": rng.integers(0, 5_000, n).astype(str),
            "m": rng.integers(0, 900, n).astype(str),
            "la": rng.uniform(40, 55, n).astype(str),
            "lo": rng.uniform(0, 20, n).astype(str),
        }
    )
    rules = TransactionRules(
        time="t", id="n", amount="x", currency="c", account="a", merchant="m", latitude="la",
        longitude="lo", near_seconds=60, late_seconds=600, max_speed_kmh=1_000,
    )  # fmt: skip
    start = time.process_time()
    transaction_findings(frame, rules)
    assert time.process_time() - start < 10.0


@pytest.mark.parametrize("wrong", ["2099-01-01 00:00", "x"])
def test_a_time_ahead_of_its_arrival_moves_no_watermark(wrong):
    rules = TransactionRules(time="t", arrival="r", late_seconds=600)
    times = [*at("10:00"), wrong, *at("10:01", "09:30")]
    arrived = at("10:00", "10:00", "10:01", "10:02")
    got = broken(rules, t=times, r=arrived)
    assert got.pop("late:t") == [3]
    assert got == ({"future:t": [1]} if wrong != "x" else {})


def test_a_column_may_play_two_parts():
    rules = TransactionRules(time="t", id="n", account="n")
    assert broken(rules, t=at("10:00", "10:01"), n=["a", "a"]) == {"repeated-id:n": [1]}
    contract = Contract(
        name="t", columns={"t": ColumnContract(), "n": ColumnContract()}, transactions=(rules,)
    )
    (rule,) = (one for one in row_rules(contract) if one.name.startswith("repeated-id"))
    frame = pl.DataFrame({"t": at("10:00", "10:01"), "n": ["a", "a"]})
    assert frame.select(rule.broken).to_series().to_list() == [False, True]


@pytest.mark.parametrize(
    ("amount", "fine"),
    [
        ("1.234e2", True), ("1.234e1", True), ("1.2345e1", False), ("12e-2", True),
        ("12e-3", False), ("120e-3", True), ("1.230", True), ("1.234", False), ("0e-9", True),
        ("0.000", True), (" .125 ", False), ("x.123", True), ("1.e-3", False), ("100", True),
    ],
)  # fmt: skip
def test_decimals_are_those_of_the_number(amount, fine):
    rules = TransactionRules(time="t", amount="x", currency="c")
    got = broken(rules, t=at("10:00"), x=[amount], c=["EUR"])
    assert got == ({} if fine else {"decimals:x": [0]})
