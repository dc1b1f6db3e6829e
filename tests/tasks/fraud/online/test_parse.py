"""A value that a file may hold is read alike from a file and from a message."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.ingest.checks import check
from tasks.fraud.ingest.parsing import DataError
from tasks.fraud.online.parse import RowError, parse_label, parse_transaction

NOW = datetime(2018, 6, 1, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)
CONFIG = DatasetConfig(
    name="parse",
    time="when",
    amount="paid",
    entities=(EntityColumn("payer"), EntityColumn("shop")),
    event_id="id",
    label="fraud",
    label_time="known",
    numeric=("age",),
    categorical=("channel",),
    time_unit="s",
    max_quarantine_share=1.0,
)
GOOD = {"id": 7, "when": 1_522_584_000, "paid": 12.5, "payer": "C-1", "shop": 12.0, "age": 3,
        "channel": "web"}  # fmt: skip


def by_table(row, config):
    """Return the row as the checks of files read it, or the rule it breaks."""
    other = {**GOOD, "id": 8, "paid": 12, "fraud": 1, "known": None}
    arrays = {}
    for name in config.columns:
        pair = [row.get(name), other[name]]
        if len({isinstance(v, str) for v in pair if v is not None}) > 1:
            pair = [None if v is None else str(v) for v in pair]
        arrays[name] = pa.array(pair)
    found = check(pa.table(arrays), config, "t", now=NOW)
    for record in found.quarantine.to_pylist():
        if record["row"] == 0:
            return record["rule"], record["column"]
    tx = found.transactions
    i = int((tx.event_id != 8).argmax())
    return (
        int(tx.event_id[i]),
        int(tx.time[i]),
        int(tx.amount[i]),
        tuple(str(tx.index[e.kind][tx.entities[e.column][i]]) for e in config.entities),
    )


def by_value(row, config):
    try:
        tx = parse_transaction(row, config, NOW_MS)
    except RowError as error:
        return error.rule, error.column
    return tx.event_id, tx.time, tx.amount, tx.entities


times = st.one_of(
    st.integers(-(10**18), 10**18),
    st.integers(1_500_000_000, 1_530_000_000),
    st.floats(1.5e9, 1.53e9),
    st.sampled_from(["1522584000", " 1522584000.001 ", "soon", "", None, "1e9", "nan"]),
)
amounts = st.one_of(
    st.integers(-5, 10**17),
    st.floats(allow_nan=False),
    st.decimals(0, 10**6, places=3).map(float),
    st.decimals(0, 10**6, places=3).map(str),
    st.sampled_from([None, "", " 7 ", "1.015", "12,50", "inf", "-0.0", "1e400", "0x10", "1_0"]),
)
ids = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\x1f"), max_size=20),
    st.integers(0, 2**40).map(float),
    st.sampled_from([None, "", " ", "12.0", "007", "12.50", "tx-9", "9223372036854775808"]),
)


@given(
    when=times,
    paid=amounts,
    payer=ids,
    key=ids.filter(lambda key: str(key).strip() not in ("8", "8.0")),
    unit=st.sampled_from(["major", "minor"]),
)
@settings(max_examples=300, deadline=None)
def test_messages_are_read_as_files_are(when, paid, payer, key, unit):
    config = replace(CONFIG, amount_unit=unit)
    row = {**GOOD, "when": when, "paid": paid, "payer": payer, "id": key}
    try:
        wanted = by_table(row, config)
    except (DataError, pa.ArrowInvalid):
        return  # a file is refused whole for a column that no message can speak of
    got = by_value(row, config)
    assert got == wanted


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2018-04-01T12:00:00", 1_522_584_000_000),
        ("2018-04-01 14:00:00+02:00", 1_522_584_000_000),
        ("2018-04-01T12:00:00.0019", 1_522_584_000_001),
    ],
)
def test_iso_times(text, ms):
    config = replace(CONFIG, time_unit="auto")
    assert parse_transaction({**GOOD, "when": text}, config, NOW_MS).time == ms
    for bad in ("yesterday", 1_522_584_000):
        with pytest.raises(RowError, match="unparsable-time"):
            parse_transaction({**GOOD, "when": bad}, config, NOW_MS)


def test_extras_are_optional():
    tx = parse_transaction(
        {k: v for k, v in GOOD.items() if k not in ("age", "channel")}, CONFIG, NOW_MS
    )
    assert math.isnan(tx.numeric[0])
    assert tx.categorical == (None,)
    tx = parse_transaction({**GOOD, "age": "4.5", "channel": 3}, CONFIG, NOW_MS)
    assert (tx.numeric, tx.categorical) == ((4.5,), ("3",))
    assert math.isnan(parse_transaction({**GOOD, "age": "old"}, CONFIG, NOW_MS).numeric[0])


@pytest.mark.parametrize(
    ("change", "rule", "column"),
    [
        ({"payer": {"a": 1}}, "invalid-entity", "payer"),
        ({"payer": "x" * 300}, "invalid-entity", "payer"),
        ({"payer": "a\0b"}, "invalid-entity", "payer"),
        ({"payer": 2.0**60}, "invalid-entity", "payer"),
        ({"id": True}, "invalid-id", "id"),
        ({"id": 2**63}, "invalid-id", "id"),
        ({"id": [1]}, "invalid-id", "id"),
        ({"when": "1970-01-01"}, "unparsable-time", "when"),
        ({"when": 0}, "impossible-time", "when"),
        ({"when": 10**40}, "impossible-time", "when"),
        ({"paid": {}}, "unparsable-amount", "paid"),
        ({"channel": []}, "invalid-category", "channel"),
    ],
)
def test_what_only_a_message_can_hold(change, rule, column):
    with pytest.raises(RowError) as caught:
        parse_transaction({**GOOD, **change}, CONFIG, NOW_MS)
    assert (caught.value.rule, caught.value.column) == (rule, column)


def test_labels():
    row = {**GOOD, "fraud": "1.0"}
    label = parse_label(row, CONFIG, NOW_MS)
    assert (label.event_id, label.label, label.entities) == (7, 1, ("C-1", "12"))
    assert label.label_time == label.time + CONFIG.delay_ms
    later = parse_label({**row, "known": 1_522_584_000 + 8 * 86_400}, CONFIG, NOW_MS)
    assert later.label_time == later.time + 8 * 86_400_000
    early = parse_label({**row, "known": 1_522_584_001}, CONFIG, NOW_MS)
    assert early.label_time == early.time + CONFIG.delay_ms
    for bad in (None, "maybe", 2, -1):
        with pytest.raises(RowError, match="invalid-label"):
            parse_label({**row, "fraud": bad}, CONFIG, NOW_MS)
    with pytest.raises(RowError, match="unparsable-label-time"):
        parse_label({**row, "known": "later"}, CONFIG, NOW_MS)
