"""Texts as instants: with Z, an offset or as seconds they need no zone, else they do."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cleaning.contract.model import ColumnContract
from tasks.cleaning.contract.values import Both, instant
from tasks.cleaning.profile.times import as_text, is_repeated_hour, require_zone, seconds_of
from tasks.cleaning.profile.values import read_values
from tasks.cleaning.sensors.check import sensor_findings
from tasks.cleaning.sensors.model import SensorRules
from tasks.cleaning.transactions.checks import transaction_findings
from tasks.cleaning.transactions.model import TransactionRules

BERLIN = "Europe/Berlin"


def read(text, zone=""):
    return seconds_of(pl.Series("t", [text], pl.String), zone)[0]


@pytest.mark.parametrize("zone", ["", BERLIN])
@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T11:00:00Z",
        "2024-01-01 12:00:00+01:00",
        "2024-01-01T05:30:00.0-05:30",
        "2024-01-01T12:00+01:00",
        "1704106800",
    ],
)
def test_what_says_its_instant_needs_no_zone(text, zone):
    assert read(text, zone) == 1_704_106_800
    assert as_text(1_704_106_800.0, "1", zone) == "1704106800"
    assert read(as_text(1_704_106_860.0, text, zone), zone) == 1_704_106_860
    assert not is_repeated_hour(pl.Series([text]), BERLIN).any()


def test_a_local_time_is_of_its_zone_beside_others():
    texts = pl.Series(["2024-01-01 12:00", "2024-01-01T11:00:00Z", None, "x", "2024-03-31 02:30"])
    assert np.array_equal(
        seconds_of(texts, BERLIN), [1_704_106_800, 1_704_106_800, *[np.nan] * 3], equal_nan=True
    )


@pytest.mark.parametrize(
    ("like", "expected"),
    [
        ("2024-01-01T00:00:00+01:00", "2024-07-01T13:00:00+01:00"),
        ("2024-01-01T00:00:00.00-05:30", "2024-07-01T06:30:00.25-05:30"),
        ("2024-01-01 00:00:00Z", "2024-07-01 12:00:00Z"),
        ("2024-01-01 00:00:00", "2024-07-01 14:00:00"),
        ("1.5", "1719835200.2"),
    ],
)
def test_a_time_is_written_as_another_one_is(like, expected):
    assert as_text(1_719_835_200.25, like, BERLIN) == expected


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - clocks without zone
    st.sampled_from(["", "Z", "+00:00", "-00:30", "+05:45", "-14:59"]),
)
def test_instants_are_those_of_contracts(moment, end):
    text = moment.isoformat(timespec="microseconds") + end
    frame = pl.DataFrame({"t": [text]})
    told = frame.select(instant(Both(pl.col("t"), "t")).expr.dt.epoch("us")).item()
    assert read(text) == told / 1e6
    values = read_values(frame["t"], ColumnContract(kind="datetime"))
    assert values.numbers.tolist() == [told / 1e6 / 86_400]


def test_series_and_payments_with_offsets_are_checked():
    clocks = [f"2024-01-01T12:{minute:02}:00+01:00" for minute in range(30)]
    frame = pl.DataFrame({"t": clocks, "v": [f"{i % 7}" for i in range(30)]})
    rules = SensorRules(column="v", time="t", interval=60, gap_after=180)
    assert sensor_findings(frame, rules)[0].is_empty()
    payments = pl.DataFrame({"t": ["2024-01-01T12:00:00+01:00"], "r": ["2024-01-01T10:00:00Z"]})
    found = transaction_findings(payments, TransactionRules(time="t", arrival="r"))
    assert found["rule"].to_list() == ["future:t"]


def test_only_local_times_were_never_shown():
    times = ["2024-03-31 02:30:00", "2024-03-31T02:30:00Z", "1711852200"]
    found = transaction_findings(
        pl.DataFrame({"t": times}), TransactionRules(time="t", zone=BERLIN)
    )
    assert found["row"].to_list() == [0]


def test_a_folder_of_zones_is_no_zone():
    with pytest.raises(ValueError, match="'Europe' is not known"):
        require_zone("Europe")
