"""Rows as JSON: the JVM module must accept, refuse and read them as the batch checks do."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.ingest.checks import check
from tests.kernels.stream_config import framed, stream_config

BASE = DatasetConfig(
    "rows",
    "t",
    "amount",
    (EntityColumn("card"), EntityColumn("shop")),
    event_id="id",
    numeric=("lat",),
    categorical=("kind",),
    time_unit="s",
    max_quarantine_share=1.0,
)
LABELS = replace(BASE, label="fraud", label_time="known")
GOOD = {"t": 1.5e9, "amount": 1.0, "card": "c", "shop": "s", "lat": 0.5, "kind": "k"}
GOOD |= {"fraud": 1, "known": 1.6e9}
MODES = ("text", "int", "float", "bool")


@dataclass(frozen=True)
class Dead:
    """A row set aside."""

    rule: str
    column: str
    observed: str | None


@dataclass(frozen=True)
class Good:
    """A row as read; ``label_time`` and ``label`` are 0 for transactions."""

    id: int
    time: int
    amount: int
    label_time: int
    label: int
    name: str
    entities: tuple[str, ...]
    categories: tuple[str | None, ...]
    numeric: tuple[float | None, ...]


class Parser:
    """The module's parser; Hypothesis would take the gateway's own object for a mock."""

    def __init__(self, gateway) -> None:
        self._class = gateway.jvm.io.penstock.stream.Probe
        self._probes: dict[str, object] = {}

    def parse(self, config: DatasetConfig, rows: list[bytes], *, labels: bool = False):
        text = json.dumps(stream_config(config), sort_keys=True)
        if text not in self._probes:
            self._probes[text] = self._class(text)
        return list(decode(self._probes[text].parse(framed(rows), labels), len(config.numeric)))


@pytest.fixture(scope="session")
def parser(flink_gateway):
    return Parser(flink_gateway)


def decode(raw: bytes, numeric: int):
    """Yield what became of every row."""
    at = 0

    def text() -> str | None:
        nonlocal at
        (length,) = struct.unpack_from("<i", raw, at)
        at += 4 + max(length, 0)
        return None if length < 0 else raw[at - length : at].decode()

    while at < len(raw):
        dead, at = raw[at], at + 1
        if dead:
            yield Dead(text(), text(), text())
            continue
        head = struct.unpack_from("<5q", raw, at)
        at += 40
        name, *entities, joined = (text() for _ in range(4))
        categories = tuple(None if c == "\0" else c for c in joined.split("\x1f"))
        numbers = struct.unpack_from(f"<{numeric}d", raw, at) if joined else ()
        at += 8 * len(numbers)
        plain = tuple(None if math.isnan(n) else n for n in numbers)
        yield Good(*head, name, tuple(entities), categories if joined else (), plain)


def encode(value) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null" if math.isnan(value) else f"{'-' if value < 0 else ''}1e999"
    return json.dumps(value)


def as_json(row: dict) -> bytes:
    return ("{" + ",".join(f"{encode(k)}:{encode(v)}" for k, v in row.items()) + "}").encode()


digits = st.integers(-(10**6), 10**12).map(lambda n: n / 1000)
numbers = digits | st.floats() | st.sampled_from([0.0, -0.0, 1.005, 2.675, 1e-9, 1e15, 1e22, 0.125])
number_texts = (
    numbers.map(repr)
    | st.integers(-(2**70), 2**70).map(str)
    | st.from_regex(r"[+-]?[0-9]{0,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.sampled_from(["nan", "+INF", "-Infinity", "0x1p3", "1d", "1_000", "١٢", "1,5", "", " "])
)
padded = st.tuples(st.sampled_from(["", " ", "\t\r\n"]), number_texts).map(lambda t: t[0] + t[1])
integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-10, 10**7)
# The two separators and ids too long are refused by the stream alone; see below.
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1f")
words = st.text(letters, max_size=12) | st.sampled_from(
    ["12.0", "-7.00", "+1.0", "٣.0", ".0", "1.", "x.0"]
)
booleans = st.booleans()


def column(texts, ints, floats):
    """Values of one column: one type, some of them missing."""
    kinds = {"text": texts, "int": ints, "float": floats, "bool": booleans}
    return st.sampled_from(MODES).flatmap(
        lambda mode: st.tuples(
            st.just(mode), st.lists(kinds[mode] | st.none(), min_size=4, max_size=4)
        )
    )


TYPES = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
SAMPLE = {"text": "1", "int": 1, "float": 1.0, "bool": True}


def tables(columns: dict, good: dict) -> tuple[pa.Table, list[dict]]:
    """Return a table of the columns with one good row in front, and its rows."""
    arrays, rows = {}, [{} for _ in range(5)]
    for name, (mode, values) in columns.items():
        first = good.get((name, mode), SAMPLE[mode])
        arrays[name] = pa.array([first, *values], TYPES[mode])
        for row, value in zip(rows, [first, *values], strict=True):
            row[name] = value
    return pa.table(arrays), rows


def truth(table: pa.Table, config: DatasetConfig) -> dict[int, str | Good]:
    """Return by row the rule it breaks, or what it says, from the batch checks."""
    done = check(table, config, "rows")
    found: dict[int, str | Good] = {}
    for record in done.quarantine.to_pylist():
        found[record["row"]] = Dead(record["rule"], record["column"], record["observed"])
    tx = done.transactions
    keys = {int(key): i for i, key in enumerate(tx.event_id)}
    for row, key in enumerate(table.column("id").to_pylist()):
        if row in found:
            continue
        i = keys[key]
        kind = tx.categorical["kind"][i]
        lat = float(tx.numeric["lat"][i])
        found[row] = Good(
            key,
            int(tx.time[i]),
            int(tx.amount[i]),
            int(tx.label_time[i]),
            int(tx.label[i]),
            "",
            tuple(str(tx.index[c][tx.entities[c][i]]) for c in ("card", "shop")),
            (None if kind < 0 else str(tx.categories["kind"][kind]),),
            (None if math.isnan(lat) else lat,),
        )
    return found


EPOCHS = {"ns": 1.5e18, "us": 1.5e15, "ms": 1.5e12, "s": 1.5e9, "min": 2.5e7, "h": 4e5, "d": 1.7e4}


@st.composite
def times(draw, unit: str):
    near = st.floats(0.5, 1.2).map(lambda share: EPOCHS[unit] * share)
    texts = near.map(repr) | near.map(lambda n: str(int(n))) | padded
    return draw(column(texts, near.map(int) | integers, near | numbers))


@given(
    st.data(),
    st.sampled_from(sorted(EPOCHS)),
    st.sampled_from(["major", "minor"]),
    st.integers(0, 6),
)
@settings(max_examples=150, deadline=None)
def test_transactions(parser, data, unit, amount_unit, decimals):
    config = replace(BASE, time_unit=unit, amount_unit=amount_unit, decimals=decimals)
    exact = st.floats(-(2.0**53), 2.0**53) | st.integers(-(2**53), 2**53).map(float)
    ids = column(words, integers, exact)
    columns = {
        "t": data.draw(times(unit)),
        "amount": data.draw(column(padded, integers, numbers)),
        "card": data.draw(ids),
        "shop": data.draw(ids),
        "lat": data.draw(column(padded, integers, numbers)),
        "kind": data.draw(ids),
        "id": ("int", [11, 12, 13, 14]),
    }
    good = {("t", "text"): str(int(EPOCHS[unit])), ("t", "int"): int(EPOCHS[unit])}
    good |= {("t", "float"): EPOCHS[unit], ("t", "bool"): True}
    table, rows = tables(columns, good)
    if columns["t"][0] == "bool":
        # In 1970 no transaction was made: no good row is left for the batch checks.
        config = replace(config, earliest="1960-01-01")
    wanted = truth(table, config)
    got = parser.parse(config, [as_json(row) for row in rows])
    for row, found in enumerate(got):
        expected = wanted[row]
        if isinstance(expected, Good):
            expected = replace(expected, label_time=0, label=0)
        assert found == comparable(expected, found), rows[row]


def comparable(expected: Dead | Good, found: Dead | Good) -> Dead | Good:
    """Leave the observed value out where a table and JSON spell it differently (1.0 and 1)."""
    if isinstance(expected, Dead) and isinstance(found, Dead):
        return replace(expected, observed=found.observed)
    return expected


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_labels(parser, data):
    spelled = st.sampled_from(
        ["1", "0", "True", " FALSE ", "1.00", "0.", "2", "", "yes", "1.0.0", "00"]
    )
    columns = {
        "t": data.draw(times("s")),
        "amount": ("int", [1, 1, 1, 1]),
        "card": ("text", ["c"] * 4),
        "shop": ("text", ["s"] * 4),
        "lat": ("float", [0.5] * 4),
        "kind": ("text", ["k"] * 4),
        "fraud": data.draw(
            column(spelled, st.integers(-1, 2), st.sampled_from([0.0, 1.0, 0.5, math.nan]))
        ),
        "known": data.draw(times("s")),
        "id": ("int", [11, 12, 13, 14]),
    }
    good = {
        (name, mode): value
        for name in ("t", "known")
        for mode, value in {"text": "1500000000", "int": 1_500_000_000, "float": 1.5e9}.items()
    }
    config = replace(LABELS, earliest="1960-01-01")
    table, rows = tables(columns, good)
    wanted = truth(table, config)
    got = parser.parse(config, [as_json(row) for row in rows], labels=True)
    early = ("missing-time", "unparsable-time", "impossible-time", "invalid-label")
    for row, found in enumerate(got):
        expected = wanted[row]
        if isinstance(expected, Good):
            expected = replace(expected, amount=0, categories=(), numeric=())
        missing = not isinstance(expected, Dead) or expected.rule not in early
        if missing and isinstance(found, Dead) and found.rule == "missing-label":
            assert rows[row]["fraud"] in (None, "") or math.isnan(rows[row]["fraud"])
            continue
        assert found == comparable(expected, found), rows[row]


@st.composite
def instants(draw):
    moment = draw(st.datetimes(datetime(1991, 1, 1), datetime(2026, 1, 1)))  # noqa: DTZ001
    if draw(st.booleans()):
        minutes = draw(st.integers(-1439, 1439))
        moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    parts = ["hours", "minutes", "seconds", "milliseconds", "microseconds", "auto"]
    text = moment.isoformat(draw(st.sampled_from("T _é")), draw(st.sampled_from(parts)))
    form = draw(st.integers(0, 5))
    if form == 0:
        text = text.replace("-", "").replace(":", "")
    elif form == 1:
        year, week, day = moment.isocalendar()
        text = f"{year}-W{week:02}-{day}" + text[10:]
    elif form == 2:
        year, week, day = moment.isocalendar()
        text = f"{year}W{week:02}{day}" + text[10:].replace(":", "")
    elif form == 3:
        text = text.replace("+00:00", "Z").replace(".", ",") + draw(
            st.sampled_from(["", "0", "999"])
        )
    elif form == 4 and text:
        at = draw(st.integers(0, len(text) - 1))
        text = (
            text[:at]
            + draw(st.sampled_from(["", "9", "-", ":", "Z", "+", "W", " "]))
            + text[at + 1 :]
        )
    return text


@given(st.lists(instants() | words, min_size=4, max_size=4))
@settings(max_examples=300, deadline=None)
def test_iso_times(parser, texts):
    config = replace(BASE, time_unit="auto", earliest="1990-01-01")
    columns = {
        name: ("float" if name in ("amount", "lat") else "text", [value] * 4)
        for name, value in GOOD.items()
        if name not in ("t", "fraud", "known")
    }
    columns |= {"t": ("text", texts), "id": ("int", [11, 12, 13, 14])}
    # A week date is for Python's parser alone, which so reads the whole column.
    table, rows = tables(columns, {("t", "text"): "2018-W13-1"})
    wanted = truth(table, config)
    for row, found in enumerate(parser.parse(config, [as_json(row) for row in rows])):
        expected = wanted[row]
        if isinstance(expected, Good):
            expected = replace(expected, label_time=0, label=0)
        assert found == comparable(expected, found), rows[row]


@given(st.lists(words | st.integers().map(str), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_event_ids_in_text(parser, texts):
    from tasks.fraud.ingest.identifiers import event_key

    rows = [as_json(GOOD | {"id": text}) for text in texts]
    for text, found in zip(texts, parser.parse(BASE, rows), strict=True):
        if text.strip(" \t\r\n"):
            assert (found.id, found.name) == (event_key(text), text)
        else:
            assert found == Dead("missing-id", "id", text)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (7, 7),
        (7.0, 7),
        (-0.0, 0),
        (True, 1),
        (7.5, "invalid-id"),
        (2.0**60, "invalid-id"),
        (2**63, "invalid-id"),
        (math.inf, "invalid-id"),
        (None, "missing-id"),
        ([7], "invalid-id"),
        ({"a": 7}, "invalid-id"),
    ],
)
def test_event_ids_that_are_no_text(parser, value, outcome):
    (found,) = parser.parse(BASE, [as_json(GOOD | {"id": value})])
    assert (found.rule if isinstance(found, Dead) else found.id) == outcome


GARBAGE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"}",
    b"{}{}",
    b'{"t":1}x',
    b'{"t":}',
    b'{"t":NaN}',
    b"{'t':1}",
    b'{"t":01}',
    b'{"t":+1}',
    b'{"card":"\xff"}',
    b'{"card":"\xc3"}',
    b'{"card":"\\ud800"}',
    b'{"card":"\\udc00\\ud800"}',
    b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"t":' + b"9" * 2000 + b"}",
    b'{"card":"a\nb"}',
    b"\x00" * 10,
    bytes(range(256)),
]


@pytest.mark.parametrize("payload", GARBAGE)
def test_what_is_no_json_object(parser, payload):
    assert parser.parse(BASE, [payload]) == [Dead("not-json", "", None)]


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_no_bytes_stop_the_parser(parser, junk, at, byte):
    row = bytearray(as_json(GOOD | {"id": 1}))
    row[at % len(row)] = byte
    found = parser.parse(BASE, [junk, bytes(row), as_json(GOOD | {"id": 1})])
    assert isinstance(found[0], Dead)
    assert found[2].id == 1


def test_too_large_rows_are_cut(parser):
    row = as_json(GOOD | {"id": 1, "more": "x" * 70_000})
    assert parser.parse(BASE, [row]) == [Dead("too-large", "", f"{len(row)} bytes")]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("a\x1fb", "invalid-entity"),
        ("a\0b", "invalid-entity"),
        ("x" * 257, "invalid-entity"),
        ("é" * 129, "invalid-entity"),
        ("𝔸" * 65, "invalid-entity"),
        ([1], "invalid-entity"),
        (2.0**54, "invalid-entity"),
        (2**64, "invalid-entity"),
        (math.inf, "missing-entity"),
        (None, "missing-entity"),
        ("  ", "missing-entity"),
    ],
)
def test_ids_that_cannot_be_keys(parser, value, rule):
    (found,) = parser.parse(BASE, [as_json(GOOD | {"id": 1, "shop": value})])
    assert (found.rule, found.column) == (rule, "shop")


def test_the_longest_ids_and_the_last_of_repeated_members(parser):
    row = as_json(GOOD | {"id": 1, "shop": "𝔸" * 64})[:-1] + b',"card":"first","card":"last"}'
    (found,) = parser.parse(BASE, [row])
    assert found.entities == ("last", "𝔸" * 64)


def test_bare_numbers_without_a_unit_are_no_times(parser):
    config = replace(BASE, time_unit="auto")
    (found,) = parser.parse(config, [as_json(GOOD | {"id": 1})])
    assert found == Dead("unparsable-time", "t", "1500000000.0")


def test_separators_in_categories_are_replaced(parser):
    (found,) = parser.parse(BASE, [as_json(GOOD | {"id": 1, "kind": "a\x1fb\0"})])
    assert found.categories == ("a\ufffdb\ufffd",)


def test_without_an_id_column_the_place_stands_in(parser):
    config = replace(BASE, event_id="")
    one, other = parser.parse(config, [as_json(GOOD), as_json(GOOD)])
    assert one.id != other.id


def test_the_future_is_impossible(parser):
    ahead = (datetime.now(UTC) + timedelta(days=2)).timestamp()
    (found,) = parser.parse(BASE, [as_json(GOOD | {"id": 1, "t": ahead})])
    assert found.rule == "impossible-time"
