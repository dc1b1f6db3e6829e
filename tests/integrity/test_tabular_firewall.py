"""No tabular feature or score sees what follows an event, or a label younger than the delay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.fraud.dataset import DatasetConfig
from tasks.fraud.evaluation.protocol import DAY_MS
from tasks.fraud.features import FeatureSet, build_features
from tasks.fraud.heads import Head, TreeConfig, fit_trees
from tasks.fraud.transactions import Transactions


@pytest.fixture(scope="module")
def features(bank: Transactions, bank_config: DatasetConfig) -> FeatureSet:
    return build_features(bank, bank_config)


@pytest.fixture(scope="module")
def head(bank: Transactions, features: FeatureSet) -> Head:
    past = bank.time < bank.time[0] + 35 * DAY_MS
    config = TreeConfig(rounds=30, min_rows=10, seeds=1, bins=255)
    return fit_trees(features.values[past], bank.label[past], config)


@pytest.fixture(scope="module")
def cut(bank: Transactions) -> int:
    """First row of day 40: rows before it are the past of the tests below."""
    return int(np.searchsorted(bank.time, bank.time[0] + 40 * DAY_MS))


def test_appended_events_change_no_earlier_score(
    bank: Transactions, bank_config: DatasetConfig, features: FeatureSet, head: Head, cut: int
) -> None:
    prefix = build_features(bank.take(slice(0, cut)), bank_config).values
    assert np.array_equal(prefix, features.values[:cut])
    assert np.array_equal(head.predict(prefix), head.predict(features.values[:cut]))


def test_changed_later_events_change_no_earlier_score(
    bank: Transactions, bank_config: DatasetConfig, features: FeatureSet, cut: int
) -> None:
    rng = np.random.default_rng(1)
    later = np.arange(len(bank)) >= cut
    changed = replace(
        bank,
        amount=np.where(later, bank.amount * 7 + 1, bank.amount),
        label=np.where(later, 1 - bank.label, bank.label).astype(np.int8),
        entities={
            c: np.where(later, rng.permutation(codes), codes).astype(np.int32)
            for c, codes in bank.entities.items()
        },
    )
    values = build_features(changed, bank_config).values
    assert np.array_equal(values[:cut], features.values[:cut])
    assert not np.array_equal(values[cut:], features.values[cut:])


def test_deleted_later_events_change_no_earlier_score(
    bank: Transactions, bank_config: DatasetConfig, features: FeatureSet, cut: int
) -> None:
    keep = (np.arange(len(bank)) < cut) | (np.random.default_rng(2).random(len(bank)) < 0.5)
    values = build_features(bank.take(keep), bank_config).values
    assert np.array_equal(values[:cut], features.values[:cut])


def test_labels_younger_than_the_delay_are_invisible(
    bank: Transactions, bank_config: DatasetConfig, features: FeatureSet, head: Head, cut: int
) -> None:
    now = bank.time[cut]
    young = bank.label_time > now
    assert (bank.label[:cut][young[:cut]] == 1).any()  # flipped frauds lie in the past, too
    flipped = replace(bank, label=np.where(young, 1 - bank.label, bank.label).astype(np.int8))
    values = build_features(flipped, bank_config).values
    seen = bank.time <= now
    assert np.array_equal(values[seen], features.values[seen])
    assert np.array_equal(head.predict(values[seen]), head.predict(features.values[seen]))


def test_a_label_counts_from_its_instant_on(
    bank: Transactions, bank_config: DatasetConfig, features: FeatureSet, cut: int
) -> None:
    """Flipping one label changes its entities' later rows once it is known, and nothing else."""
    row = int(np.flatnonzero((bank.label == 1) & (np.arange(len(bank)) < cut // 2))[-1])
    label = bank.label.copy()
    label[row] = 0
    values = build_features(replace(bank, label=label), bank_config).values
    differs = (values != features.values).any(axis=1)
    assert differs.any()
    touched = np.zeros(len(bank), dtype=bool)
    for codes in bank.entities.values():
        touched |= codes == codes[row]
    assert not differs[bank.time < bank.label_time[row]].any()
    assert not differs[~touched].any()


def test_late_labels_wait_until_they_are_known(
    bank: Transactions, bank_config: DatasetConfig, features: FeatureSet
) -> None:
    """A label that becomes known later than the delay changes features only from then on."""
    late = bank.label_time + 5 * DAY_MS
    values = build_features(replace(bank, label_time=late), bank_config).values
    first_known = int(bank.label_time[bank.label >= 0].min())
    assert np.array_equal(values[bank.time < first_known], features.values[bank.time < first_known])
    assert not np.array_equal(values, features.values)


def test_unlabelled_rows_are_legal(
    bank: Transactions, bank_config: DatasetConfig, head: Head
) -> None:
    hidden = replace(bank, label=np.full(len(bank), -1, dtype=np.int8))
    p = head.predict(build_features(hidden, bank_config).values)
    assert np.isfinite(p).all()
