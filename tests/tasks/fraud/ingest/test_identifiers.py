"""Ids mean the same in a file, a stream and a request."""

from __future__ import annotations

import datetime as dt
import doctest

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.fraud.ingest import columns_profile, identifiers
from tasks.fraud.ingest.identifiers import encode, entity_id, event_key, event_keys, join_indexes


@pytest.mark.parametrize("module", [identifiers, columns_profile])
def test_examples_in_docstrings(module: object) -> None:
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried
    assert not failed


def test_known_hash_never_changes() -> None:
    # stored state and logs refer to these keys
    assert event_key("tx-12") == -7920707470695300354


@pytest.mark.parametrize("text", ["12", "-3", "0", str(2**63 - 1), str(-(2**63))])
def test_text_that_spells_an_integer_is_that_integer(text: str) -> None:
    assert event_key(text) == int(text)


@pytest.mark.parametrize("text", ["012", "+3", "1.0", str(2**63), "-0", "x", "9" * 5000])
def test_other_text_is_hashed(text: str) -> None:
    key = event_key(text)
    assert -(2**63) <= key < 2**63
    assert str(key) != text


def test_huge_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        event_key(2**63)


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(max_size=8), st.integers(-(2**65), 2**65).map(str))))
def test_columns_and_single_values_agree(values: list[str]) -> None:
    keys = event_keys(pl.Series(values, dtype=pl.String))
    assert keys.tolist() == [event_key(value) for value in values]


def test_entity_ids_of_dates_and_odd_floats() -> None:
    assert entity_id(dt.date(2024, 1, 2)) == "2024-01-02"
    assert entity_id(1.25) == "1.25"
    assert entity_id(float("nan")) is None
    assert entity_id(float("inf")) is None
    assert entity_id("007") == "007"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([5, None, 7]),
        pa.array([5.0, None, 7.0]),
        pa.array(["5", "", " 7 "]),
        pa.array(["5.0", None, "7"]).dictionary_encode(),
    ],
)
def test_ids_do_not_depend_on_the_type_of_the_column(column: pa.Array) -> None:
    codes, ids = encode(column)
    assert [ids[c] if c >= 0 else None for c in codes] == ["5", None, "7"]


def test_columns_of_one_kind_share_an_index_of_what_occurs() -> None:
    sender = encode(pa.array([10, 9, 8]))
    receiver = encode(pa.array(["9", "100", "10"]))
    rows = np.array([0, 1])
    (first, second), index = join_indexes(
        [(sender[0][rows], sender[1]), (receiver[0][rows], receiver[1])]
    )
    assert index.tolist() == ["9", "10", "100"]  # as numbers; 8 occurs in no used row
    assert index[first].tolist() == ["10", "9"]
    assert index[second].tolist() == ["9", "100"]
    assert first.dtype == np.int32


def test_textual_ids_are_ordered_as_text() -> None:
    _, index = join_indexes([encode(pa.array(["b", "10", "9"]))])
    assert index.tolist() == ["10", "9", "b"]
    _, empty = join_indexes([encode(pa.array([], pa.string()))])
    assert empty.tolist() == []
