"""Branches of a rehearsal: whole entities, none empty, and unlike each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.privacy.federated.split import split_by_entity


def bank(seed):
    rng = np.random.default_rng(seed)
    entity = rng.integers(0, 400, 20_000)
    return entity, (rng.random(20_000) < np.where(entity % 20 == 0, 0.3, 0.001)).astype(np.int8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000), st.integers(2, 10))
def test_an_entity_lies_in_one_branch_and_no_branch_is_empty(seed, branches):
    entity, label = bank(seed)
    home = split_by_entity(entity, label, branches, seed)
    assert set(home) == set(range(branches))
    assert len(set(zip(entity, home, strict=True))) == len(set(entity))
    np.testing.assert_array_equal(home, split_by_entity(entity, label, branches, seed))


def test_branches_differ_in_size_and_frauds():
    entity, label = bank(0)
    home = split_by_entity(entity, label, 8, 3)
    sizes = np.bincount(home)
    rates = np.bincount(home, label) / sizes
    assert sizes.max() > 2 * sizes.min()
    assert rates.max() > 4 * rates.min()


def test_more_branches_than_entities_are_refused():
    with pytest.raises(ValueError, match="5 branches leave one without rows"):
        split_by_entity([0, 1, 2], [0, 0, 0], 5, 0)
