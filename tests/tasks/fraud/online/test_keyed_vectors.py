"""Embeddings by key are those by id."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kernels.bundle.folder import BundleError
from kernels.entity_state import keys as entity_state_keys
from kernels.entity_state.keys import entity_keys
from tasks.fraud.bundle.embeddings import Embeddings
from tasks.fraud.online.keyed_vectors import KeyedVectors


def bundle(names):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(names), 3)).astype(np.float32)
    ids = np.array(names, dtype=np.str_)
    default = {"card": np.full(3, 7, np.float32)}
    return SimpleNamespace(
        folder="here", embeddings=Embeddings.build({"card": ids}, {"card": vectors}, default)
    )


@pytest.mark.parametrize("known", [0, 1, 500])
def test_a_key_finds_what_its_id_finds(known):
    made = bundle([f"c{i}" for i in range(known)])
    asked = [f"c{i}" for i in (3, 0, 499, 500, 77_777, 0)]
    found = KeyedVectors.of(made, "card").lookup(entity_keys("card", asked))
    expected = made.embeddings.kinds["card"].lookup(np.array(asked))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


def test_the_largest_key_and_key_zero_are_no_special_cases():
    vectors = KeyedVectors(np.array([-5, 9]), np.arange(3, dtype=np.float32)[:, None])
    found = vectors.lookup(np.array([-5, 0, 9, 10, 2**63 - 1, -(2**63)]))
    assert found[:, 0].tolist() == [0, 2, 1, 2, 2, 2]


def test_a_kind_without_embeddings_has_none():
    assert KeyedVectors.of(bundle(["a"]), "shop").lookup(np.array([1, 2])).shape == (2, 0)


def test_entities_that_share_a_key_are_refused(monkeypatch):
    monkeypatch.setattr(
        entity_state_keys, "entity_keys", lambda _, ids: np.zeros(len(ids), np.int64)
    )
    with pytest.raises(BundleError, match="same 64-bit key"):
        KeyedVectors.of(bundle(["a", "b"]), "card")
