"""A branch's features tell of its own rows, whatever happens at the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.fraud import dataset
from tasks.fraud.branch_features import branch_features
from tasks.fraud.features import build_features
from tasks.fraud.ingest.checks import check
from tasks.fraud.simulate import CARDS_SCHEMA, CardsConfig, simulate_cards

CONFIG = dataset.DatasetConfig.from_toml(
    Path(dataset.__file__).parent / "datasets" / "handbook.toml"
)


@pytest.fixture(scope="module")
def bank():
    """Payments of a small bank and the branch of each, by terminal."""
    bank = CardsConfig(cards=160, terminals=320, days=20, seed=3, bad_terminals_per_day=2.0)
    rows = pa.Table.from_batches(list(simulate_cards(bank)), CARDS_SCHEMA)
    tx = check(rows, CONFIG, "simulated").transactions
    return tx, tx.entities["terminal"] % 3


def test_are_those_of_each_branch_alone(bank):
    tx, home = bank
    found = branch_features(tx, home, CONFIG)
    for place in range(3):
        own = build_features(tx.take(home == place), CONFIG)
        assert own.names == found.names
        np.testing.assert_array_equal(found.values[home == place], own.values)
    assert (found.values != build_features(tx, CONFIG).values).any()


def test_do_not_change_with_what_others_hold(bank):
    tx, home = bank
    other = home != 1
    changed = replace(
        tx,
        amount=np.where(other, tx.amount * 7 + 1, tx.amount),
        label=np.where(other, 1 - tx.label, tx.label).astype(np.int8),
    )
    before, after = (branch_features(rows, home, CONFIG).values for rows in (tx, changed))
    np.testing.assert_array_equal(before[~other], after[~other])
    assert (before[other] != after[other]).any()


def test_a_row_without_a_branch_is_refused(bank):
    tx, home = bank
    with pytest.raises(ValueError, match="rows need as many branches"):
        branch_features(tx, home[:-1], CONFIG)
    with pytest.raises(ValueError, match="0 rows need as many branches"):
        branch_features(tx.take(slice(0)), home[:0], CONFIG)
