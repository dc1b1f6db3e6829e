"""Branches of a rehearsal: whole entities, none empty, and unlike each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.privacy.federated.split import split_by_entity

ALL = np.ones(20_000, np.bool_)


def bank(seed):
    rng = np.random.default_rng(seed)
    entity = rng.integers(0, 400, 20_000)
    return entity, (rng.random(20_000) < np.where(entity % 20 == 0, 0.3, 0.001)).astype(np.int8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1_000), st.integers(2, 10))
def test_an_entity_lies_in_one_branch_and_no_branch_is_empty(seed, branches):
    entity, label = bank(seed)
    home = split_by_entity(entity, label, branches, seed, training=ALL)
    assert set(home) == set(range(branches))
    assert len(set(zip(entity, home, strict=True))) == len(set(entity))
    np.testing.assert_array_equal(
        home, split_by_entity(entity, label, branches, seed, training=ALL)
    )


def test_branches_differ_in_size_and_frauds():
    entity, label = bank(0)
    home = split_by_entity(entity, label, 8, 3, training=ALL)
    sizes = np.bincount(home)
    rates = np.bincount(home, label) / sizes
    assert sizes.max() > 2 * sizes.min()
    assert rates.max() > 4 * rates.min()


def test_more_branches_than_entities_are_refused():
    with pytest.raises(ValueError, match="5 branches leave one without rows"):
        split_by_entity([0, 1, 2], [0, 0, 0], 5, 0, training=ALL[:3])


def test_labels_of_rows_that_are_not_trained_on_are_not_looked_at():
    entity, label = bank(1)
    training = np.arange(len(label)) % 3 > 0
    other = np.where(training, label, 1 - label)
    homes = [split_by_entity(entity, y, 6, 4, training=training) for y in (label, other)]
    np.testing.assert_array_equal(*homes)


def test_every_branch_has_rows_to_train_on():
    entity = np.arange(4)
    training = entity < 2
    with pytest.raises(ValueError, match="3 branches leave one without rows"):
        split_by_entity(entity, np.zeros(4), 3, 0, training=training)
    home = split_by_entity(entity, np.zeros(4), 2, 0, training=training)
    assert set(home[training]) == {0, 1}
