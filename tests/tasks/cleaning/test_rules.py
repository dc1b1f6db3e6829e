"""A contract's rules over rows, as Polars expressions; test_rules_flink.py runs their SQL."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cleaning.contract.model import ContractError
from tasks.cleaning.contract.rules import batch_only, flink_sql, row_rules
from tasks.cleaning.contract.toml import from_toml

CONTRACT = from_toml(
    """
[columns.id]
kind = "integer"
nullable = false
minimum = 3
[columns.day]
kind = "date"
minimum = 2020-01-01
[columns.at]
kind = "datetime"
[columns.word]
pattern = "a+|b"
domain = ["a", "aa", "b", "c"]
max_length = 2
[columns.flag]
kind = "boolean"
[columns.size]
kind = "decimal"
maximum = 9.5
[[denial]]
name = "five-a"
forbidden = "id = '5' AND word = 'a'"
"""
)
GOOD = {
    "id": "7",
    "day": "2024-02-29",
    "at": "2024-02-29 23:59:59",
    "word": "aa",
    "flag": "Yes",
    "size": "-.5e1",
}


def broken(**changes):
    frame = pl.DataFrame([GOOD | changes], schema=dict.fromkeys(GOOD, pl.String))
    return [rule.name for rule in row_rules(CONTRACT) if frame.select(rule.broken).item()]


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({}, []),
        (dict.fromkeys(["day", "at", "word", "flag", "size"]), []),
        ({"id": None}, ["nullable:id"]),
        ({"id": "x"}, ["kind:id"]),
        ({"id": "3.0"}, ["kind:id"]),
        ({"id": "-3"}, ["minimum:id"]),
        ({"day": "2023-02-29"}, ["kind:day"]),
        ({"day": "24-01-01"}, ["kind:day"]),
        ({"day": "2019-12-31"}, ["minimum:day"]),
        ({"at": "2024-02-29 24:00:00"}, ["kind:at"]),
        ({"at": "2024-02-30T12:00:00"}, ["kind:at"]),
        ({"at": "2024-02-29T12:00:00.25"}, []),
        ({"at": "2024-02-29T12:00:00+02:00"}, []),
        ({"word": "c"}, ["pattern:word"]),
        ({"word": "aaa"}, ["domain:word", "max_length:word"]),
        ({"word": "xb"}, ["pattern:word", "domain:word"]),
        ({"flag": "maybe"}, ["kind:flag"]),
        ({"size": "9.51"}, ["maximum:size"]),
        ({"size": "nan"}, ["kind:size"]),
        ({"size": "1,5"}, ["kind:size"]),
        ({"id": "5", "word": "a"}, ["denial:five-a"]),
        ({"id": "5", "word": None}, []),
    ],
)
def test_a_row_breaks_what_it_breaks_and_nothing_else(changes, rules):
    assert broken(**changes) == rules


@given(st.lists(st.none() | st.text(max_size=6), min_size=1, max_size=6))
def test_verdicts_are_never_null_and_alike_on_lazy_and_streamed_frames(values):
    frame = pl.DataFrame([GOOD | {"size": v, "day": v, "word": v} for v in values])
    frame = frame.with_columns(pl.all().cast(pl.String))
    verdicts = [rule.broken.alias(rule.name) for rule in row_rules(CONTRACT)]
    eager = frame.select(verdicts)
    assert sum(eager.null_count().row(0)) == 0
    assert frame.lazy().select(verdicts).collect(engine="streaming").equals(eager)


def test_unique_values_and_keys_set_aside_all_but_the_first():
    contract = from_toml('keys = [["a", "b"]]\n[columns.a]\n[columns.b]\nunique = true')
    frame = pl.DataFrame({"a": ["1", "1", "2", None, None], "b": ["x", "x", "y", "x", "x"]})
    found = {
        rule.name: frame.select(rule.broken).to_series().to_list() for rule in row_rules(contract)
    }
    assert found["unique:b"] == [False, True, False, True, True]
    assert found["key:a+b"] == [False, True, False, False, False]


def test_rules_across_rows_have_no_sql_and_say_so():
    contract = from_toml("[columns.a]\nunique = true")
    with pytest.raises(ContractError, match="unique:a: rules across rows"):
        flink_sql(contract, "t")
    assert flink_sql(CONTRACT, "odd`name").endswith("FROM `odd``name`")
    with pytest.raises(ContractError, match="line end in its name"):
        flink_sql(from_toml('[columns."a\\nb"]'), "t")
    with pytest.raises(ContractError, match="'broken_rules' has the name of a column of verdicts"):
        flink_sql(from_toml("[columns.broken_rules]"), "t")


def test_what_a_stream_leaves_out_is_named():
    contract = from_toml(
        "max_quarantine_share = 0.1\n[columns.a]\nunique = true\ncheck_digit = 'luhn'\n"
        "confidence = { unique = 0.9, check_digit = 0.9 }\n[duplicates]\naction = 'quarantine'"
    )
    assert batch_only(contract) == ["duplicates", "max_quarantine_share"]
    assert batch_only(contract, inferred=True) == [
        "check_digit:a", "unique:a", "duplicates", "max_quarantine_share",
    ]  # fmt: skip
    with pytest.raises(ContractError, match="duplicates, max_quarantine_share"):
        flink_sql(contract, "t")
    assert batch_only(from_toml("[columns.a]\n[duplicates]")) == []


@pytest.mark.parametrize(
    ("value", "rules"),
    [
        ("2024-01-01 12:00:00", []),  # a blank sorts before "T", but is the same moment
        ("2024-01-01T12:00:00", []),
        ("2024-01-01 11:59:59.999999", ["minimum:at"]),
        ("2024-01-01T13:00:00+02:00", ["minimum:at"]),
        ("2024-01-02T01:00:00+02:00", []),
        ("2024-01-02 00:00:00.1", ["maximum:at"]),
    ],
)
def test_moments_compare_as_moments(value, rules):
    contract = from_toml(
        "[columns.at]\nkind = 'datetime'\nminimum = 2024-01-01T12:00:00\nmaximum = '2024-01-02'"
    )
    frame = pl.DataFrame({"at": [value]})
    assert [r.name for r in row_rules(contract) if frame.select(r.broken).item()] == rules


def test_a_text_too_long_for_javas_stack_does_not_match_a_repeated_group():
    (rule,) = row_rules(from_toml("[columns.a]\npattern = '(a|b)*'"))
    frame = pl.DataFrame({"a": ["ab" * 500, "ab" * 501]})
    assert frame.select(rule.broken).to_series().to_list() == [False, True]
    assert rule.expected == "(a|b)*, at most 1,000 characters"
