"""Every row is used or quarantined, and the report counts it."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.fraud.dataset import DatasetConfig, EntityColumn, find_config
from tasks.fraud.ingest.checks import (
    RULES,
    CheckedData,
    DataError,
    QuarantineLimitError,
    check,
    require_trainable,
)

NOW = datetime(2024, 6, 1, tzinfo=UTC)
T0 = 1_700_000_000  # 2023-11-14


def config(**changes: Any) -> DatasetConfig:
    values = {
        "name": "test",
        "time": "t",
        "time_unit": "s",
        "amount": "amount",
        "event_id": "id",
        "label": "y",
        "entities": (EntityColumn("src", "account"), EntityColumn("dst", "account")),
        "numeric": ("x",),
        "categorical": ("c",),
        "max_quarantine_share": 1.0,
    }
    return DatasetConfig(**{**values, **changes})


def rows(**columns: list[Any]) -> pa.Table:
    """Four good rows; columns given replace the good ones."""
    good: dict[str, Any] = {
        "id": [1, 2, 3, 4],
        "t": [T0, T0 + 1, T0 + 2, T0 + 3],
        "amount": [1.0, 2.0, 3.0, 4.5],
        "y": [0, 1, 0, None],
        "src": ["a", "b", "a", "c"],
        "dst": ["b", "c", "c", "d"],
        "x": [1.0, None, math.nan, math.inf],
        "c": ["u", "v", None, "u"],
    }
    return pa.table({**good, **columns})


def run(table: pa.Table, **changes: Any) -> CheckedData:
    return check(table, config(**changes), "file", now=NOW)


def test_entity_columns_keep_the_order_of_the_config() -> None:
    """Also where one kind stands around another: embeddings are stacked in this order."""
    columns = (EntityColumn("src", "account"), EntityColumn("c"), EntityColumn("dst", "account"))
    table = rows(c=["u", "v", "w", "u"])
    tx = run(table, entities=columns, categorical=()).transactions
    assert list(tx.entities) == ["src", "c", "dst"]


def test_good_rows_become_sorted_transactions() -> None:
    checked = run(rows(t=[T0 + 5, T0 + 1, T0 + 1, T0], id=[1, 9, 3, 4]))
    tx = checked.transactions
    assert tx.event_id.tolist() == [4, 3, 9, 1]
    assert tx.time.tolist() == [T0 * 1000, (T0 + 1) * 1000, (T0 + 1) * 1000, (T0 + 5) * 1000]
    assert tx.amount.tolist() == [450, 300, 200, 100]
    assert tx.label.tolist() == [-1, 0, 1, 0]
    assert (tx.label_time - tx.time == 7 * 86_400_000).all()
    assert tx.index["account"].tolist() == ["a", "b", "c", "d"]
    assert tx.entities["src"].tolist() == [2, 0, 1, 0]
    assert tx.entities["dst"].tolist() == [3, 2, 2, 1]
    assert tx.kinds == {"src": "account", "dst": "account"}
    assert np.isnan(tx.numeric["x"]).tolist() == [True, True, True, False]
    assert tx.categories["c"].tolist() == ["u", "v"]
    assert tx.categorical["c"].tolist() == [0, -1, 1, 0]
    assert tx.event_id.dtype == tx.time.dtype == tx.amount.dtype == np.int64
    assert tx.label.dtype == np.int8
    assert len(checked.quarantine) == 0


def test_the_report_counts_what_was_tolerated() -> None:
    report = run(rows(t=[T0 + 5, T0 + 1, T0 + 90_000, T0])).report
    assert (report.rows_in, report.rows_used, report.rows_quarantined) == (4, 4, 0)
    assert report.unsorted == 2
    assert (report.labelled, report.unlabelled, report.frauds) == (3, 1, 1)
    assert (report.days, report.days_without_fraud) == (2, 1)
    assert report.first_time == "2023-11-14T22:13:20+00:00"
    assert report.entities == {"account": 4}
    assert report.missing == {"x": 3, "c": 1}
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["unlabelled"] == 1
    assert plain["quarantine_share"] == 0.0


@pytest.mark.parametrize(
    ("column", "bad", "rule"),
    [
        ("t", None, "missing-time"),
        ("t", 0, "impossible-time"),
        ("t", 4_000_000_000, "impossible-time"),
        ("t", 2**62, "impossible-time"),
        ("amount", None, "missing-amount"),
        ("amount", math.nan, "missing-amount"),
        ("amount", -0.01, "negative-amount"),
        ("amount", math.inf, "infinite-amount"),
        ("amount", 1e18, "overflow-amount"),
        ("src", None, "missing-entity"),
        ("dst", " ", "missing-entity"),
        ("id", None, "missing-id"),
        ("id", 1, "duplicate-of"),
        ("y", 2, "invalid-label"),
    ],
)
def test_a_bad_value_sends_its_row_to_quarantine(column: str, bad: Any, rule: str) -> None:
    values = rows()[column].to_pylist()
    checked = run(rows(**{column: [*values[:3], bad]}))
    assert checked.report.by_rule == {rule: 1}
    assert checked.transactions.event_id.tolist() == [1, 2, 3]
    (record,) = checked.quarantine.to_pylist()
    assert (record["row"], record["rule"], record["column"]) == (3, rule, column)
    assert record["source"] == "file"
    assert record["time"] == NOW
    assert record["expected"] == (
        "first in row 0" if rule == "duplicate-of" else RULES[rule].expected
    )
    assert json.loads(record["payload"])["dst"] == (bad if column == "dst" else "d")
    if bad is None:
        assert record["observed"] is None
    else:
        assert record["observed"] is not None


def test_text_that_cannot_be_read_is_quarantined_too() -> None:
    table = rows(
        t=["2023-11-14T10:00:00", "yesterday", "2023-11-15", "2023-11-16 01:00:00Z"],
        amount=["1.50", "2", "a lot", "3"],
    )
    report = run(table, time_unit="auto").report
    assert report.by_rule == {"unparsable-time": 1, "unparsable-amount": 1}
    report = run(rows(amount=[1.0, 2.5, 3.0, 4.0]), amount_unit="minor").report
    assert report.by_rule == {"fractional-amount": 1}
    report = run(rows(id=[1.0, 1.5, 2.0, math.inf])).report
    assert report.by_rule == {"invalid-id": 2}


def test_a_row_is_quarantined_once_under_its_first_rule() -> None:
    checked = run(rows(t=[0, T0, T0, T0], amount=[-1.0, 1.0, 1.0, 1.0], src=[None, "a", "b", "c"]))
    assert checked.report.by_rule == {"impossible-time": 1}


def test_of_equal_ids_the_first_good_row_stays() -> None:
    checked = run(rows(id=[7, 7, 7, 8], amount=[-1.0, 2.0, 3.0, 4.0]))
    assert checked.report.by_rule == {"negative-amount": 1, "duplicate-of": 1}
    assert checked.transactions.amount.tolist() == [200, 400]
    record = checked.quarantine.to_pylist()[1]
    assert (record["row"], record["observed"]) == (2, "7")
    assert record["expected"] == "first in row 1"
    assert record["severity"] == "warning"
    assert checked.quarantine["row"].to_pylist() == [0, 2]


def test_textual_ids_work_as_numbers_do() -> None:
    numbers = run(rows(id=[5, 6, 7, 5])).transactions
    texts = run(rows(id=["5", "6", "7", "5"])).transactions
    assert texts.event_id.tolist() == numbers.event_id.tolist() == [5, 6, 7]
    hashed = run(rows(id=["t-1", "t-2", "", "t-1"]))
    assert hashed.report.by_rule == {"missing-id": 1, "duplicate-of": 1}


def test_ids_that_are_no_integers_are_kept_as_written() -> None:
    tx = run(rows(id=["t-1", " 7", "007", "t-1"], t=[T0 + 2, T0 + 1, T0, T0])).transactions
    assert tx.event_names is not None
    assert tx.event_names.tolist() == tx.original_ids.tolist() == ["007", " 7", "t-1"]
    assert tx.event_id.dtype == np.int64
    assert tx.take(np.array([2, 0])).original_ids.tolist() == ["t-1", "007"]
    for whole in (["5", "6", "7", "8"], [5, 6, 7, 8]):
        numbers = run(rows(id=whole)).transactions
        assert numbers.event_names is None
        assert numbers.take(slice(1, 3)).original_ids.tolist() == [6, 7]


def test_without_an_id_the_row_number_stands_in() -> None:
    checked = run(rows(t=[T0 + 1, T0, T0, T0]), event_id="")
    assert checked.transactions.event_id.tolist() == [1, 2, 3, 0]


def test_label_times() -> None:
    known = [None, T0 + 8 * 86_400, T0 - 5, T0 + 9 * 86_400]
    table = rows().append_column("known", [known])
    tx = run(table, label_time="known").transactions
    week = 7 * 86_400
    delays = ((tx.label_time - tx.time) // 1000).tolist()
    assert delays == [week, 8 * 86_400 - 1, week, 9 * 86_400 - 3]
    assert run(rows(), label_delay_days=0).transactions.label_time[0] == T0 * 1000
    table = rows().append_column("known", [["1700000000", "soon", None, "9e12"]])
    report = run(table, label_time="known").report
    assert report.by_rule == {"unparsable-label-time": 1, "impossible-label-time": 1}


def test_one_and_three_entities_unlabelled() -> None:
    one = run(rows(), entities=(EntityColumn("src"),), label="", numeric=(), categorical=())
    assert one.report.entities == {"src": 3}
    assert one.transactions.label.tolist() == [-1] * 4
    assert one.report.missing == {}
    three = (EntityColumn("src", "account"), EntityColumn("dst", "account"), EntityColumn("c"))
    checked = run(rows(), entities=three, categorical=())
    assert checked.report.entities == {"account": 4, "c": 2}
    assert checked.report.by_rule == {"missing-entity": 1}


def test_earliest_and_future_are_configurable() -> None:
    assert run(rows(t=[0, 1, 2, 3]), earliest="1970-01-01").report.rows_used == 4
    soon = int(NOW.timestamp()) + 2 * 86_400
    assert run(rows(t=[T0, T0, T0, soon])).report.by_rule == {"impossible-time": 1}
    assert run(rows(t=[T0, T0, T0, soon]), max_future_days=3).report.by_rule == {}


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        (rows(), {"amount": "price"}, "no column 'price'; the file has id, t, amount"),
        (rows().slice(0, 0), {}, "no rows"),
        (rows(), {"time_unit": "auto"}, "set time_unit"),
        (rows(amount=[b"x"] * 4), {}, "'amount' has type binary"),
        (rows(amount=["x"] * 4), {}, "convert the column"),
        (rows(y=["maybe"] * 4), {}, "'y'"),
        (rows(src=[[1]] * 4), {}, "'src' has type list"),
        (rows(src=[1e17, 2.0, 3.0, 4.0]), {}, "beyond 2\\^53"),
        (rows(c=[b"x"] * 4), {}, "'c' has type binary"),
        (rows(x=["low", "high", None, "low"]), {}, "'x' holds text"),
    ],
)
def test_wrong_columns_and_types_are_fatal(
    table: pa.Table, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        run(table, **changes)
    assert str(caught.value).startswith("file: ")


def test_a_column_named_twice_is_fatal() -> None:
    table = rows()
    table = table.append_column("t", table["t"])
    with pytest.raises(DataError, match="two columns are called 't'"):
        run(table)


def test_too_many_bad_rows_stop_and_can_be_kept() -> None:
    table = rows(amount=[-1.0, 2.0, math.nan, -4.0])
    with pytest.raises(QuarantineLimitError, match=r"3 of 4 rows \(75.0%\)") as caught:
        run(table, max_quarantine_share=0.5)
    assert "negative-amount 2, missing-amount 1" in str(caught.value)
    assert caught.value.report is not None
    assert caught.value.report.rows_used == 1
    assert caught.value.quarantine.num_rows == 3
    assert run(table, max_quarantine_share=0.75).report.rows_used == 1
    with pytest.raises(QuarantineLimitError, match="nothing is left"):
        run(rows(amount=[-1.0] * 4))


def test_training_needs_both_classes() -> None:
    require_trainable(run(rows()).report.to_dict())
    for labels, message in [
        ([0] * 4, "are legitimate"),
        ([1] * 4, "are frauds"),
        ([None] * 4, "no row"),
    ]:
        report = run(rows(y=pa.array(labels, pa.int8()))).report
        with pytest.raises(DataError, match=message):
            require_trainable(report.to_dict())


# --- the invariant on random dirty tables -------------------------------------------------------

ROW = st.fixed_dictionaries(
    {
        "id": st.one_of(st.none(), st.integers(0, 12)),
        "t": st.one_of(st.none(), st.integers(T0, T0 + 9), st.sampled_from([0, 2**61, -5])),
        "amount": st.one_of(
            st.none(),
            st.floats(0, 100),
            st.sampled_from([-1.0, math.nan, math.inf, -math.inf, 1e300, 0.125, -0.0]),
        ),
        "y": st.sampled_from([0, 1, None, 3]),
        "src": st.sampled_from(["a", "b", "", None, "7", "7.0"]),
        "dst": st.sampled_from(["a", "c", "  ", None, "7"]),
        "x": st.one_of(st.none(), st.floats()),
        "c": st.sampled_from(["u", "v", None]),
    }
)
SCHEMA = pa.schema(
    {"id": pa.int64(), "t": pa.int64(), "amount": pa.float64(), "y": pa.int8(), "src": pa.string(),
     "dst": pa.string(), "x": pa.float64(), "c": pa.string()}
)  # fmt: skip


def is_bad(row: dict[str, Any]) -> bool:
    """Plain statement of the rules, duplicates apart."""
    time, amount = row["t"], row["amount"]
    return (
        time is None
        or not T0 <= time <= T0 + 9
        or amount is None
        or not math.isfinite(amount)
        or not 0 <= amount < 1e13
        or row["y"] == 3
        or not (row["src"] or "").strip()
        or not (row["dst"] or "").strip()
        or row["id"] is None
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=30))
def test_rows_in_are_rows_used_and_rows_quarantined(dirty: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(dirty, SCHEMA)
    expected: dict[int, int] = {}  # id -> row that is used
    for number, row in enumerate(dirty):
        if not is_bad(row):
            expected.setdefault(row["id"], number)
    labels = {row["y"] for row in dirty}
    if 3 in labels and not labels & {0, 1}:
        with pytest.raises(DataError, match="neither 0 nor 1"):
            run(table)
        return
    if not expected:
        with pytest.raises(QuarantineLimitError) as caught:
            run(table)
        assert caught.value.quarantine.num_rows == len(dirty)
        return
    checked = run(table)
    tx, report, quarantine = checked.transactions, checked.report, checked.quarantine
    refused = quarantine["row"].to_pylist()
    assert report.rows_in == len(dirty) == len(tx) + len(refused)
    assert refused == sorted(set(range(len(dirty))) - set(expected.values()))
    assert Counter(quarantine["rule"].to_pylist()) == report.by_rule
    order = list(zip(tx.time.tolist(), tx.event_id.tolist(), strict=True))
    assert order == sorted((dirty[r]["t"] * 1000, i) for i, r in expected.items())
    for payload, number in zip(quarantine["payload"].to_pylist(), refused, strict=True):
        assert json.loads(payload)["src"] == dirty[number]["src"]
    for column in ("src", "dst"):
        names = tx.index["account"][tx.entities[column]].tolist()
        truth = [dirty[expected[i]][column].strip() for i in tx.event_id.tolist()]
        assert names == ["7" if name == "7.0" else name for name in truth]
    again = run(table.take(sorted(expected.values())))
    assert again.report.rows_quarantined == 0
    assert again.transactions.event_id.tolist() == tx.event_id.tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=20))
def test_dirty_text_tables_keep_the_invariant(dirty: list[dict[str, Any]]) -> None:
    text = [{k: None if v is None else str(v) for k, v in row.items()} for row in dirty]
    typed, plain = pa.Table.from_pylist(dirty, SCHEMA), pa.Table.from_pylist(text)
    outcomes = []
    for table in (typed, plain.select(SCHEMA.names)):
        try:
            checked = run(table)
        except QuarantineLimitError as error:
            outcomes.append(error.quarantine["row"].to_pylist())
        except DataError:
            return
        else:
            assert len(checked.transactions) + len(checked.quarantine) == len(dirty)
            outcomes.append(checked.quarantine["row"].to_pylist())
    assert outcomes[0] == outcomes[1]


@pytest.mark.data
def test_the_real_handbook_file(data_folder: Path) -> None:
    from connectors.files import read_table

    path = data_folder / "fraud" / "handbook_dev_2018-04-01_2018-09-04.parquet"
    checked = check(read_table(path), find_config("handbook"), path.name)
    report = checked.report
    assert (report.rows_in, report.rows_used, report.rows_quarantined) == (1_504_628, 1_504_628, 0)
    assert report.frauds == 12_484
    assert report.entities == {"customer": 4_989, "terminal": 10_000}
    assert report.first_time.startswith("2018-04-01")
    assert report.last_time.startswith("2018-09-04")
    require_trainable(checked.report.to_dict())
