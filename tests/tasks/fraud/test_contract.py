"""A dataset config is a contract, and a person's lines only make it stricter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tasks.cleaning.contract.difference import differences
from tasks.cleaning.contract.model import Contract, ContractError
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.contract.toml import from_toml, to_toml
from tasks.cleaning.sensors.infer import infer_sensors
from tasks.fraud.contract import (
    RULES,
    contract_of,
    own_rules,
    rule_names,
    transaction_contract,
    with_own_lines,
)
from tasks.fraud.dataset import DatasetConfig, EntityColumn, find_config
from tasks.fraud.ingest.checks import CheckedData, DataError, QuarantineLimitError, check

NOW = datetime(2024, 6, 1, tzinfo=UTC)
CONFIG = DatasetConfig(
    "shop",
    "when",
    "paid",
    (EntityColumn("buyer"),),
    label="fraud",
    label_time="known",
    event_id="id",
    numeric=("age",),
    categorical=("channel",),
    max_quarantine_share=0.9,
)


def rows(**columns: list[Any]) -> pa.Table:
    """Five good rows; columns given replace the good ones."""
    good: dict[str, list[Any]] = {
        "id": ["a", "b", "c", "d", "e"],
        "when": [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4, 5)],
        "paid": [1.0, 20.0, 300.0, 4.5, 5.0],
        "fraud": [0, 1, 0, None, 0],
        "known": [None, datetime(2024, 1, 9, tzinfo=UTC), None, None, None],
        "buyer": [1, 2, 1, 2, 3],
        "age": [30.0, None, 17.0, 40.0, 50.0],
        "channel": ["web", "pos", None, "web", "app"],
        "currency": ["EUR", "EUR", "USD", None, "XXX"],
    }
    return pa.table(good | columns)


def run(own: str, table: pa.Table | None = None) -> CheckedData:
    return check(rows() if table is None else table, CONFIG, "file", own=from_toml(own), now=NOW)


def refused(own: str, table: pa.Table | None = None) -> list[tuple[int, str, str]]:
    records = run(own, table).quarantine.to_pylist()
    return [(r["row"], r["rule"], r["expected"]) for r in records]


@pytest.mark.parametrize("name", ["handbook", "transfers", "demo"])
def test_shipped_configs_are_contracts_that_toml_holds(name: str) -> None:
    config = find_config(name)
    contract = transaction_contract(config)
    assert from_toml(to_toml(contract)) == contract
    assert list(contract.columns)[:2] == [config.time, config.amount]
    assert set(contract.columns) == set(config.columns)
    assert contract.columns[config.amount].kind == "integer"
    assert {rule.name for rule in row_rules(contract)} <= set(rule_names(config))


def test_every_name_of_a_rule_is_one_that_records_use() -> None:
    names = {name for parts in rule_names(CONFIG).values() for _, name in parts}
    assert names == set(RULES)


def test_a_contract_that_was_written_changes_nothing_when_read_back() -> None:
    schema = transaction_contract(CONFIG)
    assert with_own_lines(schema, from_toml(to_toml(schema))) == schema
    assert own_rules(schema, schema) == []
    assert run(to_toml(schema)).report.by_rule == {}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("[columns.paid]\nkind = 'decimal'\nmaximum = 200", [(2, "maximum:paid", "at most 200")]),
        ("[columns.paid]\nkind = 'decimal'\nminimum = 4", [(0, "minimum:paid", "at least 4")]),
        ("[columns.when]\nkind = 'datetime'\nminimum = 2024-01-02",
         [(0, "minimum:when", "at least 2024-01-02")]),
        ("[columns.when]\nkind = 'datetime'\nmaximum = 2024-01-04T12:00:00+01:00",
         [(4, "maximum:when", "at most 2024-01-04T12:00:00+01:00")]),
        ("[columns.fraud]\nnullable = false", [(3, "nullable:fraud", "a value")]),
        ("[columns.fraud]\ndomain = ['0']", [(1, "domain:fraud", "one of 0")]),
        ("[columns.buyer]\nkind = 'integer'\nmaximum = 2", [(4, "maximum:buyer", "at most 2")]),
        ("[columns.age]\nkind = 'decimal'\nnullable = false\nminimum = 18",
         [(1, "nullable:age", "a value"), (2, "minimum:age", "at least 18")]),
        ("[columns.channel]\ndomain = ['web', 'pos']", [(4, "domain:channel", "one of web, pos")]),
        ("[columns.currency]\npattern = '[A-W]{3}'", [(4, "pattern:currency", "[A-W]{3}")]),
        ("[columns.id]\npattern = '[a-d]'", [(4, "pattern:id", "[a-d]")]),
        ("[columns.currency]\nunique = true", [(1, "unique:currency", "first in row 0")]),
        ("keys = [['buyer', 'currency']]\n[columns.buyer]\n[columns.currency]", []),
        # Row 1 repeats a currency and is no longer there when channels are looked at.
        ("keys = [['channel']]\n[columns.channel]\n[columns.currency]\nunique = true",
         [(1, "unique:currency", "first in row 0"), (3, "key:channel", "first in row 0")]),
        (("[columns.paid]\nkind = 'decimal'\n[columns.currency]\n[[denial]]\nname = 'web-usd'\n"
         "expected = 'no large ones abroad'\n"
         "forbidden = \"paid > 100 AND currency = 'USD'\""),
         [(2, "denial:web-usd", "no large ones abroad")]),
    ],
)  # fmt: skip
def test_own_lines_set_rows_aside_under_their_own_names(
    lines: str, found: list[tuple[int, str, str]]
) -> None:
    assert refused(lines) == found


def test_the_schema_comes_first_and_repeats_last() -> None:
    table = rows(paid=[-1.0, 20.0, 300.0, 4.5, 5.0], id=["a", "a", "b", "b", "c"])
    own = "[columns.paid]\nkind = 'decimal'\nminimum = 1\nmaximum = 200"
    # Row 2 breaks an own line, so row 3 repeats nothing; row 1 repeats only a bad one.
    assert [name for _, name, _ in refused(own, table)] == ["negative-amount", "maximum:paid"]
    record = run(own, table).quarantine.to_pylist()[1]
    assert (record["observed"], record["detector_version"]) == ("300.0", "fraud-checks/1 shop/1")


def test_a_number_that_cannot_be_read_is_a_gap_unless_somebody_asks_for_numbers() -> None:
    table = rows(age=["30", "old", "", None, "inf"])
    assert refused("[columns.age]", table) == []
    found = refused("[columns.age]\nkind = 'decimal'", table)
    assert found == [(1, "kind:age", "decimal"), (4, "kind:age", "decimal")]


def test_inferred_lines_set_nothing_aside() -> None:
    assert (
        refused("[columns.paid]\nkind = 'decimal'\nmaximum = 2\nconfidence = { maximum = 0.9 }")
        == []
    )


SERIES = "[columns.paid]\n[columns.when]\n[[sensor]]\ncolumn = 'paid'\ntime = 'when'\nspike = 8\n"
PAYMENTS = "[columns.when]\n[[transactions]]\ntime = 'when'\nlate_seconds = 5\n"


def test_a_contract_with_an_inferred_series_is_taken() -> None:
    rng = np.random.default_rng(0)
    start = datetime(2024, 1, 1)  # noqa: DTZ001 - in UTC
    frame = pl.DataFrame(
        {
            "when": [f"{start + timedelta(minutes=i)}" for i in range(400)],
            "paid": [f"{50 + x:.2f}" for x in rng.normal(size=400).cumsum() * 0.1],
        }
    )
    sensors = infer_sensors(frame, ["paid"])
    assert sensors
    own = from_toml("[columns.when]\n[columns.paid]")
    assert contract_of(CONFIG, replace(own, sensors=sensors)) == contract_of(CONFIG, own)


@pytest.mark.parametrize("lines", [SERIES, PAYMENTS])
def test_series_that_were_inferred_are_left_out(lines: str) -> None:
    sure = "confidence = { spike = 0.9, late_seconds = 0.9 }"
    assert contract_of(CONFIG, from_toml(lines + sure)) == contract_of(
        CONFIG, from_toml(lines.partition("[[")[0])
    )
    for doubted in ("", "confidence = { zone = 0.9 }"):
        with pytest.raises(ContractError, match="is no check of single rows"):
            contract_of(CONFIG, from_toml(lines + doubted))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("[columns.paid]\nkind = 'decimal'\nminimum = -5",
         "minimum -5 would let pass what 0 refuses"),
        ("[columns.when]\nkind = 'datetime'\nminimum = 1980-01-01",
         "minimum '1980-01-01' would let pass"),
        ("[columns.paid]\nkind = 'decimal'\nmaximum = 1e18", "maximum 1e\\+18 would let pass"),
        ("[columns.fraud]\ndomain = ['0', '1', '2']", "domain may only get smaller; 2 is not"),
        ("[columns.when]\nkind = 'integer'", "kind is 'datetime' by the dataset config"),
        ("[columns.paid]\nkind = 'decimal'\nscales = { kEUR = 1000 }", "scales is no check"),
        ("[columns.paid]\n[[denial]]\nname = 'x'\nforbidden = \"paid LIKE '5%'\"",
         "denial 'x': LIKE compares a text"),
        (("[columns.paid]\n[columns.age]\n[[dependency]]\ndeterminant = ['paid']\n"
         "dependent = 'age'"), "dependencies is no check"),
        ("max_quarantine_share = 0.95\n[columns.paid]", "max_quarantine_share 0.95 would let"),
    ],
)  # fmt: skip
def test_lines_that_would_be_laxer_or_idle_are_refused(lines: str, message: str) -> None:
    with pytest.raises(ContractError, match=f"^contract 'table': .*{message}"):
        contract_of(CONFIG, from_toml(lines))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("[columns.iban]", "file: no column 'iban'.*mend the contract"),
        ("min_rows = 6\n[columns.paid]", "5 rows; the contract of 'shop' asks for 6 to any"),
        ("max_rows = 4\n[columns.paid]", "asks for 0 to 4"),
    ],
)
def test_tables_that_the_lines_do_not_fit_are_refused(lines: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(lines)


def test_the_limit_is_a_line_of_the_contract() -> None:
    own = "max_quarantine_share = 0.1\n[columns.paid]\nkind = 'decimal'\nmaximum = 200"
    with pytest.raises(QuarantineLimitError, match=r"above max_quarantine_share 0\.1 \(maximum:pa"):
        run(own)


def test_differences_tell_what_a_person_made_stricter() -> None:
    own = from_toml(
        "[columns.paid]\nkind = 'decimal'\nmaximum = 200\n[columns.channel]\nnullable = false"
    )
    found = differences(transaction_contract(CONFIG), contract_of(CONFIG, own))
    assert [(d.where, d.line, d.effect) for d in found] == [
        ("paid", "maximum", "stricter"),
        ("channel", "nullable", "stricter"),
    ]
    laxer = replace(CONFIG, earliest="1980-01-01")
    found = differences(transaction_contract(CONFIG), transaction_contract(laxer))
    assert [(d.where, d.effect) for d in found] == [("when", "looser"), ("known", "looser")]


def test_a_contract_without_columns_of_the_schema_is_fine() -> None:
    own = Contract(name="mine", columns=from_toml("[columns.currency]").columns, version=3)
    merged = contract_of(CONFIG, own)
    assert merged.version == 3
    assert list(merged.columns) == [*transaction_contract(CONFIG).columns, "currency"]
