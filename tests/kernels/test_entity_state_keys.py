"""Keys of entities: the definition, known values, and the compiled version."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.entity_state.keys import entity_key, entity_keys

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


KNOWN = {
    ("card", "1"): -7561898903953502351,
    ("account", ""): -712383879583005383,
    ("card", "Zürich-7"): 8991655856625044160,
}


@pytest.mark.parametrize(("kind", "entity"), KNOWN)
def test_known_values(kind, entity):
    # FNV-1a 64 of "a" is af63dc4c8601ec8c; then MurmurHash3's fmix64. An implementation in another
    # language must come to the same numbers.
    assert entity_key(kind, entity) == KNOWN[kind, entity]


@given(TEXTS, st.lists(TEXTS))
def test_the_compiled_keys_are_those_of_the_definition(kind, entities):
    got = entity_keys(kind, entities)
    assert got.dtype == np.int64
    assert got.tolist() == [entity_key(kind, entity) for entity in entities]


def test_arrays_of_text_are_taken():
    names = np.array(["a", "bcd", "é"])
    assert entity_keys("shop", names).tolist() == [entity_key("shop", str(n)) for n in names]


def test_kind_and_id_are_kept_apart():
    assert entity_key("ab", "c") != entity_key("a", "bc")
    assert len(set(entity_keys("card", [str(n) for n in range(100_000)]).tolist())) == 100_000
