"""The bytes of the contract, written and read."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.online_store.errors import RecordError
from connectors.online_store.record import (
    Record,
    check_record,
    decode_key,
    encode_key,
    encode_value,
    entity_prefix,
    epoch_of,
    first_version,
    make_labels,
)

KINDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda text: len(text.encode()) <= 128)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: len(text.encode()) <= 256
)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)


@given(KINDS, IDS, st.integers(0, 255))
def test_keys_come_back_also_with_zero_bytes_in_ids(kind, entity, part):
    key = encode_key(kind, entity, part)
    assert decode_key(key) == (kind, entity, part)
    record = Record(key, b"")
    assert (record.kind, record.id, record.part) == (kind, entity, part)
    assert record.entity == entity_prefix(kind, entity)


def test_the_bytes_are_those_of_the_contract():
    assert encode_key("card", "C-1", 3) == b"card\x00C-1\x00\x03"
    labels = make_labels([(9, 2, 5, 1), (8, 1, -4, 0)])
    value = encode_value(2**63 + 1, 2**62, -6, b"part", labels)
    wanted = struct.pack("<QQqII", 2**63 + 1, 2**62, -6, 4, 2) + b"part"
    wanted += struct.pack("<8q", 8, 1, -4, 0, 9, 2, 5, 1)
    assert value == wanted


@given(UINT64, UINT64, INT64, st.binary(max_size=50), st.lists(st.tuples(*[INT64] * 4), max_size=4))
def test_values_come_back(digest, version, emitted_at, content, rows):
    labels = make_labels(rows)
    record = check_record(
        encode_key("a", "b", 0), encode_value(digest, version, emitted_at, content, labels)
    )
    assert (record.digest, record.version, record.emitted_at) == (digest, version, emitted_at)
    assert bytes(record.content) == content
    np.testing.assert_array_equal(record.labels, labels)


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_foreign_bytes_are_refused_or_sound(key, value):
    try:
        record = check_record(key, value)
    except RecordError:
        return
    assert encode_key(*decode_key(record.key)) == key
    assert len(record.content) + 32 * len(record.labels) + 32 == len(value)


@pytest.mark.parametrize(
    ("kind", "entity", "part"),
    [("", "a", 0), ("a\0b", "a", 0), ("a", "", 0), ("a", "b" * 257, 0), ("a", "b", 256)],
)
def test_impossible_keys_name_the_fault(kind, entity, part):
    with pytest.raises(RecordError, match=r"kind|id|part number"):
        encode_key(kind, entity, part)


def test_versions_rise_with_epoch_and_change():
    assert epoch_of(1_577_836_800_000) == 0
    assert first_version(2) == (2 << 38) + 1
    assert first_version(2) > first_version(1) + 2**37
    with pytest.raises(ValueError, match="clock"):
        epoch_of(0)
    with pytest.raises(ValueError, match="epoch"):
        first_version(2**24)
