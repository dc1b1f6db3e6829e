"""No graph score or embedding sees what follows an event, or a label younger than the delay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.fraud.evaluation.protocol import DAY_MS
from tasks.fraud.features import FeatureSet, build_features
from tasks.fraud.graph import GraphPart, GraphSettings, embed_entities, fit_graph_rows
from tasks.fraud.graph.entity_training import EntitySettings
from tasks.fraud.graph.snapshots import EntityGraph


@pytest.fixture(scope="module")
def features(bank, bank_config) -> FeatureSet:
    return build_features(bank, bank_config)


@pytest.fixture(scope="module")
def part(bank, bank_config, features) -> GraphPart:
    rows = np.flatnonzero(bank.time < bank.time[0] + 35 * DAY_MS)
    entities = EntitySettings(steps=6, events=128, hidden=8, embedding=4)
    settings = GraphSettings(steps=30, batch=64, negatives=7, hidden=8, folds=2, entities=entities)
    return fit_graph_rows(bank, features, bank_config, rows, settings=settings)


@pytest.fixture(scope="module")
def cut(bank) -> int:
    """First row of day 44."""
    return int(np.searchsorted(bank.time, bank.time[0] + 44 * DAY_MS))


@pytest.fixture(scope="module")
def signals(part, bank, features) -> np.ndarray:
    return part.represent(bank, features, np.arange(len(bank)))


def scores_of(part, tx, config, rows):
    return part.represent(tx, build_features(tx, config), rows)


def embeddings_of(part, tx, config, instant):
    return embed_entities(part.model.encoder, tx, EntityGraph(tx, config), instant).kinds


def test_scores_vary_and_read_mail_and_embeddings(signals, part, bank, features):
    assert signals[:, 0].std() > 1e-3
    rows = np.arange(len(bank) - 200, len(bank))
    given = part.inputs(rows)
    assert given["mask"].any(axis=1).all()
    assert np.abs(given["embeddings"]).max() > 0


def test_appended_events_change_no_earlier_score(part, bank, bank_config, signals, cut):
    rows = np.arange(cut)
    prefix = scores_of(part, bank.take(slice(0, cut)), bank_config, rows)
    np.testing.assert_allclose(prefix, signals[:cut], rtol=0, atol=1e-5)


def test_changed_or_deleted_later_events_change_no_earlier_score(
    part, bank, bank_config, signals, cut
):
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
    found = scores_of(part, changed, bank_config, np.arange(len(bank)))
    np.testing.assert_allclose(found[:cut], signals[:cut], rtol=0, atol=1e-5)
    assert np.abs(found[cut:] - signals[cut:]).max() > 1e-3
    kept = bank.take(~later | (rng.random(len(bank)) < 0.5))
    found = scores_of(part, kept, bank_config, np.arange(cut))
    np.testing.assert_allclose(found, signals[:cut], rtol=0, atol=1e-5)


def test_labels_younger_than_the_delay_are_invisible(part, bank, bank_config, signals, cut):
    now = bank.time[cut]
    young = bank.label_time > now
    assert (bank.label[:cut][young[:cut]] == 1).any()
    flipped = replace(bank, label=np.where(young, 1 - bank.label, bank.label).astype(np.int8))
    rows = np.flatnonzero(bank.time <= now)
    found = scores_of(part, flipped, bank_config, rows)
    np.testing.assert_allclose(found, signals[rows], rtol=0, atol=1e-5)
    before = embeddings_of(part, bank, bank_config, int(now))
    after = embeddings_of(part, flipped, bank_config, int(now))
    for kind, vectors in before.items():
        assert np.array_equal(vectors.vectors, after[kind].vectors)


def test_labels_older_than_the_delay_are_seen(part, bank, bank_config, signals, cut):
    now = bank.time[cut]
    old = bank.label_time <= now
    flipped = replace(bank, label=np.where(old, 1 - bank.label, bank.label).astype(np.int8))
    rows = np.arange(cut, len(bank))
    found = scores_of(part, flipped, bank_config, rows)
    assert np.abs(found - signals[rows]).max() > 1e-2
    before = embeddings_of(part, bank, bank_config, int(now))
    after = embeddings_of(part, flipped, bank_config, int(now))
    assert all(np.abs(v.vectors - after[k].vectors).max() > 1e-4 for k, v in before.items())


def test_the_mail_of_a_row_lies_in_its_past(bank, bank_config, part, features):
    from tasks.fraud.graph.mail import Mailboxes, mail_layout

    rows = np.arange(0, len(bank), 7)
    boxes = Mailboxes(bank, features, mail_layout(bank_config))
    assert (boxes.index(rows) < rows[:, None, None]).all()
