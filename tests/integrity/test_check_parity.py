"""The same nasty rows are refused under the same rule in a file, by the API and in the stream."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pytest

from tasks.cleaning.contract.rules import row_rules
from tasks.fraud.contract import RULES, rule_names, transaction_contract, until
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.ingest.checks import check
from tasks.fraud.online.parse import RowError, parse_transaction
from tests.kernels.test_stream_parser import Dead, Parser, as_json

CONFIG = DatasetConfig(
    "parity",
    "t",
    "amount",
    (EntityColumn("card"), EntityColumn("shop")),
    event_id="id",
    numeric=("age",),
    categorical=("kind",),
    time_unit="s",
    max_quarantine_share=1.0,
)
MINOR, ISO = replace(CONFIG, amount_unit="minor"), replace(CONFIG, time_unit="auto")
GOOD = {"id": 7, "t": 1.5e9, "amount": 12.5, "card": "c", "shop": "s", "age": 3.0, "kind": "k"}
WHOLE, DATED = GOOD | {"amount": 12.0}, GOOD | {"t": "2017-07-14T02:40:00"}
FAR = 4e9 * 1_000

CASES: list[tuple[DatasetConfig, dict[str, Any], str]] = [
    # What is wrong by a line of the contract, and the edges of what is right.
    (CONFIG, {}, ""),
    (CONFIG, {"t": None}, "missing-time t"),
    (CONFIG, {"t": math.nan}, "missing-time t"),
    (CONFIG, {"t": 631_151_999.9}, "impossible-time t"),
    (CONFIG, {"t": 631_152_000.0}, ""),
    (CONFIG, {"t": FAR}, "impossible-time t"),
    (CONFIG, {"t": 1e300}, "impossible-time t"),
    (CONFIG, {"t": -math.inf}, "impossible-time t"),
    (ISO, {"t": "2017-07-14T02:40:00+05:00"}, ""),
    (ISO, {"t": "14.07.2017"}, "unparsable-time t"),
    (ISO, {"t": " "}, "missing-time t"),
    (ISO, {"t": "1989-12-31T23:59:59.999"}, "impossible-time t"),
    (ISO, {"t": "1990-01-01"}, ""),
    (ISO, {"t": "9999-12-31T23:59:59"}, "impossible-time t"),
    (ISO, {"t": "0001-01-01T00:00:00"}, "impossible-time t"),
    (CONFIG, {"amount": None}, "missing-amount amount"),
    (CONFIG, {"amount": math.nan}, "missing-amount amount"),
    (CONFIG, {"amount": "12,50"}, "unparsable-amount amount"),
    (CONFIG, {"amount": "1_0"}, "unparsable-amount amount"),
    (CONFIG, {"amount": "٣"}, "unparsable-amount amount"),
    (CONFIG, {"amount": " 7 "}, ""),
    (CONFIG, {"amount": "1e400"}, "infinite-amount amount"),
    (CONFIG, {"amount": math.inf}, "infinite-amount amount"),
    (CONFIG, {"amount": 1e13}, ""),
    (CONFIG, {"amount": 1.0001e13}, "overflow-amount amount"),
    (CONFIG, {"amount": -1e18}, "overflow-amount amount"),
    (CONFIG, {"amount": -0.001}, "negative-amount amount"),
    (CONFIG, {"amount": -0.0}, ""),
    (MINOR, {"amount": 0.5}, "fractional-amount amount"),
    (MINOR, {"amount": -0.5}, "negative-amount amount"),
    (MINOR, {"amount": 1e15}, ""),
    (MINOR, {"amount": 2e15}, "overflow-amount amount"),
    (MINOR, {"amount": -1e300}, "overflow-amount amount"),
    (CONFIG, {"card": None}, "missing-entity card"),
    (CONFIG, {"shop": " \t"}, "missing-entity shop"),
    (CONFIG, {"id": None}, "missing-id id"),
    (CONFIG, {"id": 7.5}, "invalid-id id"),
    (CONFIG, {"id": "tx-7"}, ""),
    # What no row is set aside for.
    (CONFIG, {"age": None}, ""),
    (CONFIG, {"age": math.inf}, ""),
    (CONFIG, {"kind": None}, ""),
    # Several faults: the first line of the contract names the row.
    (CONFIG, {"t": None, "amount": -1.0, "card": None, "id": None}, "missing-time t"),
    (CONFIG, {"amount": -1.0, "card": None, "id": 7.5}, "negative-amount amount"),
    (MINOR, {"amount": 0.5, "shop": None}, "fractional-amount amount"),
    (CONFIG, {"shop": "", "id": 7.5}, "missing-entity shop"),
]
"""Config, what differs from a good row, and rule and column; "" for a good one."""


INTENDED: list[tuple[dict[str, Any], str, str]] = [
    # An answer is kept by its id, so the API is stricter about ids; no file has such values.
    ({"id": True}, "", "invalid-id id"),
    ({"id": "x" * 257}, "", "invalid-id id"),
    ({"kind": [1]}, "", "invalid-category kind"),
    # Whole numbers beyond 64 bits: numbers to one, none to the other, refused by both.
    ({"t": 2**70}, "unparsable-time t", "impossible-time t"),
    ({"amount": 2**70}, "unparsable-amount amount", "overflow-amount amount"),
]
"""What differs from a good row, and what the stream and the API say of it."""


def of_file(config: DatasetConfig, row: dict[str, Any]) -> str:
    """Return what the checks of files say, a good row of the same types beside it."""
    other = good_row(config) | {"id": 8}
    columns = {}
    for name, value in row.items():
        pair = [value, other[name]]
        if isinstance(value, str):
            pair = [value, str(pair[1])]
        if isinstance(value, float):
            pair = [value, float(pair[1])]
        columns[name] = pa.array(pair)
    for record in check(pa.table(columns), config, "rows").quarantine.to_pylist():
        if record["row"] == 0:
            return f"{record['rule']} {record['column']}"
    return ""


def of_body(config: DatasetConfig, row: dict[str, Any]) -> str:
    """Return what the API says of a body; JSON has no NaN, null stands for it."""
    endless = {name: value for name, value in row.items() if value in (math.inf, -math.inf)}
    sent = orjson.loads(as_json(row | dict.fromkeys(endless, None))) | endless
    try:
        parse_transaction(sent, config, round(datetime.now(UTC).timestamp() * 1000))
    except RowError as error:
        return f"{error.rule} {error.column}"
    return ""


def good_row(config: DatasetConfig) -> dict[str, Any]:
    return {"minor": WHOLE}.get(config.amount_unit, DATED if config.time_unit == "auto" else GOOD)


@pytest.mark.parametrize(("config", "change", "verdict"), CASES)
def test_files_and_bodies_agree(
    config: DatasetConfig, change: dict[str, Any], verdict: str
) -> None:
    row = good_row(config) | change
    assert (of_file(config, row), of_body(config, row)) == (verdict, verdict)


def test_the_stream_agrees(flink_gateway: Any) -> None:
    parser = Parser(flink_gateway)
    for config in (CONFIG, MINOR, ISO):
        cases = [(change, verdict) for c, change, verdict in CASES if c == config]
        rows = [as_json(good_row(config) | change) for change, _ in cases]
        for (change, verdict), found in zip(cases, parser.parse(config, rows), strict=True):
            said = f"{found.rule} {found.column}" if isinstance(found, Dead) else ""
            assert said == verdict, change


def test_where_stream_and_bodies_differ_it_is_meant(flink_gateway: Any) -> None:
    rows = [GOOD | change for change, _, _ in INTENDED]
    stream = Parser(flink_gateway).parse(CONFIG, [as_json(row) for row in rows])
    said = [f"{one.rule} {one.column}" if isinstance(one, Dead) else "" for one in stream]
    assert [*zip(said, (of_body(CONFIG, row) for row in rows), strict=True)] == [
        (of_stream, body) for _, of_stream, body in INTENDED
    ]


def test_every_rule_of_the_contract_has_a_case() -> None:
    """Labels apart, which have messages of their own, and repeats, which need a second row."""
    names = rule_names(CONFIG)
    ruled = {rule.name for rule in row_rules(until(transaction_contract(CONFIG), CONFIG, NOW))}
    assert ruled <= set(names)
    wanted = {name for parts in names.values() for _, name in parts} - {"duplicate-of"}
    assert wanted == {verdict.split()[0] for _, _, verdict in CASES if verdict}
    assert wanted < set(RULES)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
