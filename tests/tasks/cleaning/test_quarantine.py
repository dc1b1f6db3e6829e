"""The quarantine record keeps the original row and says what was wrong with it."""

from __future__ import annotations

import datetime as dt
import decimal
import json

import numpy as np
import pyarrow as pa
import pytest

from tasks.cleaning.quarantine import (
    QUARANTINE_SCHEMA,
    Rule,
    empty_quarantine,
    quarantine_rows,
    row_payloads,
)

RULE = Rule("negative-amount", "zero or more", detector_version="test/1")


def table() -> pa.Table:
    return pa.table(
        {
            "id": [1, 2, 3],
            "amount": [1.5, float("nan"), -2.0],
            "when": pa.array([0, None, 1_000_000], pa.timestamp("us", tz="UTC")),
            "who": ["Zoë", None, 'a"b'],
        }
    )


def test_record_has_the_fields_of_the_schema() -> None:
    when = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
    mask = np.array([False, False, True])
    records = quarantine_rows(
        table(), mask, RULE, source="f.csv", column="amount", time=when, first_row=100
    )
    assert records.schema.equals(QUARANTINE_SCHEMA)
    (record,) = records.to_pylist()
    payload = json.loads(record.pop("payload"))
    assert payload["id"] == 3
    assert payload["who"] == 'a"b'
    assert record == {
        "source": "f.csv",
        "row": 102,
        "rule": "negative-amount",
        "column": "amount",
        "observed": "-2.0",
        "expected": "zero or more",
        "severity": "error",
        "detector_version": "test/1",
        "confidence": 1.0,
        "time": when,
    }


def test_rows_by_number_keep_their_order_and_own_expectations() -> None:
    records = quarantine_rows(
        table(), np.array([2, 0]), RULE, source="s", expected=["first in row 1", "x"]
    )
    assert records.column("row").to_pylist() == [2, 0]
    assert records.column("expected").to_pylist() == ["first in row 1", "x"]
    assert records.column("observed").to_pylist() == [None, None]
    assert records.column("column").to_pylist() == ["", ""]
    assert records.column("time")[0].as_py().tzinfo is not None


def test_missing_value_is_observed_as_null() -> None:
    records = quarantine_rows(table(), np.array([1]), RULE, source="s", column="who")
    assert records.column("observed").to_pylist() == [None]


def test_no_rows_give_an_empty_table() -> None:
    records = quarantine_rows(table(), np.zeros(3, np.bool_), RULE, source="s")
    assert records.equals(empty_quarantine())


def test_payload_is_strict_compact_json_whatever_the_types() -> None:
    odd = pa.table(
        {
            "f": [float("inf")],
            "d": [decimal.Decimal("1.10")],
            "b": [b"\xff\x01"],
            "l": [[1.0, float("nan")]],
            "s": [{"x": dt.date(2024, 1, 2)}],
            "t": [True],
        }
    )
    (payload,) = row_payloads(odd)
    assert payload == (
        rb'{"f":"inf","d":"1.10","b":"\\xff\u0001","l":[1.0,"nan"],"s":{"x":"2024-01-02"},"t":true}'
    )
    assert row_payloads(table())[0].startswith(b'{"id":1,"amount":1.5,"when":"1970')
    assert "Zoë".encode() in row_payloads(table())[0]


@pytest.mark.parametrize(("name", "confidence"), [("", 1.0), ("x", 1.5), ("x", -0.1)])
def test_impossible_rules_are_refused(name: str, confidence: float) -> None:
    with pytest.raises(ValueError, match="rule"):
        Rule(name, "y", confidence=confidence)


@pytest.mark.parametrize(
    ("kind", "ticks", "text"),
    [
        (pa.timestamp("ms"), 2**61, f"{2**61} ms"),
        (pa.timestamp("s", "UTC"), -(2**40), f"{-(2**40)} s"),
        (pa.date32(), 2**30, f"{2**30}"),
    ],
)
def test_times_that_no_calendar_has_are_kept_as_ticks(
    kind: pa.DataType, ticks: int, text: str
) -> None:
    size = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    table = pa.table({"when": pa.array([ticks, 0, None], size).cast(kind)})
    rule = Rule("impossible-time", "a time")
    kept = quarantine_rows(table, np.arange(3), rule, source="t", column="when")
    assert kept["observed"].to_pylist()[0] == json.loads(kept["payload"][0].as_py())["when"] == text
    assert kept["observed"].to_pylist()[1].startswith("1970-01-01")
    assert kept["observed"].to_pylist()[2] is None
