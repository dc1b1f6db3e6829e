"""Contracts: read, written, refused with the line at fault."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cleaning.contract.model import (
    ColumnContract,
    Contract,
    ContractError,
    Denial,
    Dependency,
    Label,
    Reference,
)
from tasks.cleaning.contract.toml import from_toml, to_toml

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
columns = st.one_of(
    st.builds(
        ColumnContract,
        nullable=st.booleans(),
        unique=st.booleans(),
        domain=st.lists(names, max_size=3).map(tuple),
        missing=st.lists(names, max_size=3).map(tuple),
        max_length=st.integers(0, 100),
    ),
    st.builds(
        ColumnContract,
        kind=st.sampled_from(["integer", "decimal"]),
        minimum=st.none() | st.floats(-1e6, 0),
        maximum=st.none() | st.integers(1, 10**6),
        unit_spellings=st.lists(names, max_size=2).map(tuple),
        scales=st.dictionaries(names, st.floats(0.001, 1000), max_size=2),
    ),
)


@settings(deadline=None)
@given(st.dictionaries(names, columns, min_size=2, max_size=4), names)
def test_what_is_written_is_read(made, name):
    first, second = list(made)[:2]
    contract = Contract(
        name=name,
        columns=made,
        dependencies=(Dependency((first,), second), Dependency((second,), first, 0.97)),
        denials=(Denial("never", "1 = 2"),),
        references=(Reference((first,), "other.csv", (second,)),),
        label=Label(first, 0.1),
        keys=((first, second),),
        max_quarantine_share=0.25,
    )
    assert from_toml(to_toml(contract)) == contract


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = ", "no TOML"),
        ("x = 1", "unknown line 'x'"),
        ("name = 'a'", "no column"),
        ("version = 'a'\n[columns.a]", "version = 'a' must be like 1"),
        ("max_rows = true\n[columns.a]", "max_rows = True must be like 0"),
        ("[columns.a]\nkind = 'number'", r"\[columns.a\]: kind is 'number'; give one of text"),
        ("[columns.a]\ncolour = 1", "has no 'colour'; known: kind"),
        ("[columns.a]\npattern = '('", "pattern '\\(', at character 2: a group is not closed"),
        ("[columns.a]\nkind='integer'\nminimum = 3\nmaximum = 1", "minimum 3 is above maximum 1"),
        ("[columns.a]\nkind='integer'\nminimum = '3'", "without quotes"),
        ("[columns.a]\nunit_spellings = ['kg']", "units belong to numbers"),
        ("[columns.a]\nformats = ['%Y']", "formats belong to dates"),
        ("[columns.a]\nmax_length = -1", "give 0 for any length"),
        ("[columns.a]\n[dependency]\n", r"doubled brackets: \[\[dependency\]\]"),
        ("[columns.a]\n[[dependency]]\ndependent = 'a'", "determinant"),
        (
            "[columns.a]\n[[dependency]]\ndeterminant = ['a']\ndependent = 'b'",
            "names 'b', which is no column; there are a",
        ),
        ("[columns.a]\nsuffix_of = 'b'", "suffix_of of a names 'b'"),
        ("keys = [['b']]\n[columns.a]", "key b names 'b'"),
        ("min_rows = 3\nmax_rows = 2\n[columns.a]", "max_rows 2 is below min_rows 3"),
        ("max_quarantine_share = 2.0\n[columns.a]", "is no share"),
        ("format = 2\n[columns.a]", "format = 2; this Penstock reads format 1"),
        ("keys = ['id']\n[columns.id]", r'keys = \["id"\] must be a list of lists .* \[\["id"\]\]'),
        ("[columns.a]\ndomain = 'abc'", r'domain = "abc" must be like \["a", "b"\]'),
        ("[columns.a]\ndomain = [1]", r"domain = \[1\] must be like"),
        ("[columns.a]\nnullable = 'false'", r'\[columns.a\]: nullable = "false" must be like true'),
        ("[columns.a]\nmax_length = true", "max_length = true must be like 3"),
        ("[columns.a]\nconfidence = 0.5", "must be like { name = 0.5 }"),
        ("[columns.a]\nminimum = [1]", r'minimum = \[1\] must be like 0.5 or "text"'),
        ("[columns.a]\nminimum = 1", "minimum belongs to numbers and dates; kind is 'text'"),
        ("[columns.a]\nkind = 'date'\nminimum = '1.2.2024'", "give YYYY-MM-DD"),
        ("[columns.a]\nkind = 'date'\nminimum = 3", "minimum is 3; give YYYY-MM-DD"),
        ("[columns.a]\npattern = '(?=x)'", "look-around"),
        ("[columns.a]\nkind = 'datetime'\nformats = ['%Y %Z']", "names of zones are ambiguous"),
        ("[columns.a]\n[[denial]]\nname = 'n'\nforbidden = 'a ='", "denial 'n': 'the end' stands"),
        ("newest = 'a'\n[columns.a]", "stand together"),
        ("newest = 'a'\nmax_age_days = 1\n[columns.a]", "'a' is no date"),
        ("[columns.a]\n[label]\ncolumn = 'b'\nmax_noise = 0.1", "label names 'b'"),
        ("[columns.a]\n[label]\nmax_noise = 0.1", "column is missing, for example column = "),
        ("[columns.a]\n[label]\ncolumn = 'a'\nmax_noise = 5", "give a share"),
        (
            "[columns.a]\n[[reference]]\ncolumns = ['a']\ntable = 't'\nto = []",
            "as many columns of the other table",
        ),
    ],
)
def test_a_wrong_contract_is_refused_with_the_line(text, told):
    with pytest.raises(ContractError, match=told):
        from_toml(text)


def test_a_huge_contract_is_refused_before_it_is_read():
    with pytest.raises(ContractError, match="at most 10,000,000"):
        from_toml("#" * 10_000_001)


def test_a_contract_made_in_python_is_the_one_in_toml():
    made = Contract(
        name="orders",
        columns={
            "id": ColumnContract(kind="integer", nullable=False, unique=True),
            "shop": ColumnContract(pattern="[A-Z]{3}"),
            "ordered": ColumnContract(kind="date"),
            "arrived": ColumnContract(kind="date"),
        },
        denials=(Denial("late", "arrived < ordered"),),
        references=(Reference(("shop",), "shops.csv", ("code",)),),
        newest="ordered",
        max_age_days=2,
    )
    text = to_toml(made)
    assert text.startswith('format = 1\nname = "orders"\n')
    assert '[[reference]]\ncolumns = ["shop"]\ntable = "shops.csv"\nto = ["code"]\n' in text
    assert from_toml(text) == made


TIMED = "[columns.a]\n[columns.t]\n"
SENSOR = "[[sensor]]\ncolumn = 'a'\ntime = 't'\n"
DENIAL = "[[denial]]\nname = 'n'\nforbidden = 'a = t'\n"
NUMBER = "[columns.a]\nkind = 'decimal'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TIMED + DENIAL * 2, "two denials have the name 'n'; rename one"),
        (NUMBER + "scales = { g = 0.0 }", "'g' is 0.0; give a number other than 0"),
        (NUMBER + "scales = { g = inf }", "'g' is inf"),
        (NUMBER + "scales = { g = nan }", "'g' is nan"),
        (NUMBER + "confidence = { kind = 1.5 }", "kind is 1.5; give a number in 0..1"),
        (NUMBER + "confidence = { kind = nan }", "kind is nan"),
        (TIMED + SENSOR + "confidence = { spike = -1.0 }", "spike is -1.0"),
        (TIMED + "[[transactions]]\ntime = 't'\nconfidence = { id = 2 }", "id is 2"),
        (TIMED + "[[dependency]]\ndeterminant = ['a']\ndependent = 't'\nconfidence = 2.0",
         "a->t is 2.0"),
        ("newest = 'a'\nmax_age_days = true\n[columns.a]\nkind = 'date'", "max_age_days = True"),
        ("max_quarantine_share = true\n[columns.a]", "max_quarantine_share = True"),
    ],
)  # fmt: skip
def test_what_stands_twice_or_is_no_number_is_refused(text, message):
    with pytest.raises(ContractError, match=re.escape(message)):
        from_toml(text)


def test_confidences_of_words_are_refused():
    with pytest.raises(ContractError, match=r"give a number in 0\.\.1"):
        ColumnContract(confidence={"kind": "high"})
