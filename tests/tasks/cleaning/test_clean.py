"""A table cleaned: every row is clean or on record, and none is both."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cleaning.clean import CleanConfig, QuarantineLimitError, clean
from tasks.cleaning.contract.model import ContractError
from tasks.cleaning.contract.toml import from_toml
from tasks.cleaning.quarantine import QUARANTINE_SCHEMA

CONTRACT = from_toml(
    """
name = "goods"
version = 3
keys = [["id"]]
[columns.id]
kind = "integer"
nullable = false
[columns.weight]
kind = "decimal"
unit_spellings = ["kg"]
minimum = 0
[columns.place]
"""
)


def goods(**columns):
    base = {
        "id": ["1", "2", "3", "4"],
        "weight": ["5 kg", "6", "-1kg", "x"],
        "place": ["a", None, "b", "c"],
    }
    return pl.DataFrame(base | columns)


def test_rows_are_repaired_kept_or_set_aside():
    done = clean(goods(), CONTRACT, "goods.csv")
    assert done.frame.rows() == [("1", "5", "a"), ("2", "6", None)]
    assert done.rows.to_list() == [0, 1]
    assert done.counts == {
        "rows_in": 4,
        "clean": 2,
        "repaired": 1,
        "quarantined": 2,
        "quarantined:kind:weight": 1,
        "quarantined:minimum:weight": 1,
    }
    assert done.quarantine.schema == QUARANTINE_SCHEMA
    bad = done.quarantine.to_pylist()
    assert [record["row"] for record in bad] == [2, 3]
    # The payload is the row as it came; observed is what the rule saw.
    assert json.loads(bad[0]["payload"]) == {"id": "3", "weight": "-1kg", "place": "b"}
    assert (bad[0]["column"], bad[0]["observed"], bad[0]["expected"]) == (
        "weight",
        "-1",
        "at least 0",
    )
    assert bad[0]["detector_version"] == "clean/1 goods/3"
    assert bad[0]["source"] == "goods.csv"


def test_copies_and_doubled_keys_are_set_aside_but_for_the_first():
    frame = goods(
        id=["1", "1", "2", "2"], weight=["5", "5kg", "6", "7"], place=["a", "a", "b", "b"]
    )
    done = clean(frame, CONTRACT, "f")
    assert [(r["row"], r["rule"], r["severity"]) for r in done.quarantine.to_pylist()] == [
        (1, "duplicate-of", "warning"),
        (3, "key:id", "error"),
    ]
    kept = clean(frame, CONTRACT, "f", CleanConfig(drop_copies=False))
    assert [r["rule"] for r in kept.quarantine.to_pylist()] == ["key:id", "key:id"]


def test_what_was_only_inferred_sets_nothing_aside():
    contract = from_toml("[columns.colour]\ndomain = ['red', 'green']")
    column = contract.columns["colour"]
    guessed = replace(contract, columns={"colour": replace(column, confidence={"domain": 0.99})})
    frame = pl.DataFrame({"colour": ["red", "green", "ultramarine"]})
    done = clean(frame, guessed, "f")
    assert done.counts["quarantined"] == 0
    assert done.review.select("row", "rule", "confidence").rows() == [(2, "domain:colour", 0.5)]
    assert clean(frame, contract, "f").counts["quarantined"] == 1


def test_without_repairs_a_table_is_only_checked():
    done = clean(goods(), CONTRACT, "f", CleanConfig(repairs=False))
    assert done.changes.is_empty()
    assert [r["row"] for r in done.quarantine.to_pylist()] == [0, 2, 3]


@pytest.mark.parametrize(
    ("frame", "lines", "told"),
    [
        (goods().drop("place"), "", "columns place are missing; the table has id, weight"),
        (goods(more=["x"] * 4), "", "columns more are not in contract 'goods'"),
        (goods(), "min_rows = 5\n", "4 rows; contract 'table' asks for 5 to any number of"),
        (goods(), "max_rows = 3\n", "4 rows; contract 'table' asks for 0 to 3"),
    ],
)
def test_another_kind_of_table_is_refused(frame, lines, told):
    contract = CONTRACT
    if lines:
        contract = from_toml(lines + "[columns.id]\n[columns.weight]\n[columns.place]")
    with pytest.raises(ContractError, match=told):
        clean(frame, contract, "f")


def test_more_bad_rows_than_allowed_stop_the_run():
    columns = "[columns.id]\nkind = 'integer'\n[columns.weight]\n[columns.place]"
    text = f"max_quarantine_share = 0.2\n{columns}"
    with pytest.raises(QuarantineLimitError, match=r"f: 1 of 4 rows are bad.*most break kind:id"):
        clean(goods(id=["1", "2", "3", "x"]), from_toml(text), "f")


texts = st.none() | st.sampled_from(["1", "2", "5 kg", "-3", "x", ""]) | st.text(max_size=4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(texts, texts, texts), max_size=12), st.booleans())
def test_rows_in_are_rows_clean_and_rows_quarantined(rows, repairs):
    frame = pl.DataFrame(
        rows, schema=dict.fromkeys(["id", "weight", "place"], pl.String), orient="row"
    )
    done = clean(frame, CONTRACT, "f", CleanConfig(repairs=repairs))
    aside = [record["row"] for record in done.quarantine.to_pylist()]
    assert sorted(done.rows.to_list() + aside) == list(range(len(rows)))
    assert done.frame.height == len(done.rows)
    # What is clean stays clean.
    assert clean(done.frame, CONTRACT, "f").counts["quarantined"] == 0
