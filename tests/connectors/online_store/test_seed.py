"""A store seeded from a history scores what comes next as the batch does."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.online_store import open_store, read_views, seed
from connectors.online_store.record import first_version
from connectors.online_store.seed import COVERED_UNTIL, seed_store
from kernels.entity_state import (
    apply_event,
    deposit,
    read_mail,
    read_state,
)
from kernels.entity_state.keys import entity_key
from tasks.fraud.features import build_features, state_specs
from tasks.fraud.graph.mail import Mailboxes, mail_layout, message_vectors
from tests.connectors.online_store.states import check_mail, raw_states

STEPS = 250
EPOCH = 3


def step(views, i, tx, config, vectors):
    """Enter row ``i`` as a process does that writes the store itself."""
    changed = []
    columns = [e.column for e in config.entities]
    for place, entity in enumerate(config.entities):
        view = views[entity.kind, str(tx.index[entity.kind][tx.entities[entity.column][i]])]
        role = config.kinds[entity.kind].index(entity.column)
        time, amount = int(tx.time[i]), int(tx.amount[i])
        apply_event(view.block, role, int(tx.event_id[i]), time, amount, spec=view.spec)
        other = config.entities[(place + 1) % len(columns)]
        key = entity_key(other.kind, str(tx.index[other.kind][tx.entities[other.column][i]]))
        vector = np.zeros(view.spec.mail_width, np.float32)
        vector[: vectors.shape[1]] = vectors[i]
        there = columns.index(other.column)
        deposit(view.block, role, time, amount, key, there, vector, spec=view.spec)
        if tx.label[i] >= 0:
            row = (int(tx.label_time[i]), time, int(tx.event_id[i]), int(tx.label[i]))
            view.add_label(role, *row)
        changed.append((view, (2 * role, 2 * role + 1)))
    return changed


@pytest.mark.parametrize("chunk", [10**9, 700])
def test_what_comes_next_has_the_features_of_the_batch(history, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(seed, "CHUNK", chunk)
    config, tx = history
    cut, specs = len(tx) - STEPS, state_specs(config)
    wanted, features = raw_states(tx, config), build_features(tx, config)
    layout = mail_layout(config)
    vectors = message_vectors(features, layout)
    boxes = Mailboxes(tx, features, layout).index(np.arange(len(tx)))
    with open_store(f"lmdb://{tmp_path}/store") as store:
        done = seed_store(store, tx.take(slice(0, cut)), config, epoch=EPOCH)
        parts = sum(len(tx.index[k]) * 2 * s.roles for k, s in specs.items())
        assert done.records == parts
        assert done.entities == store.counts() == {k: len(tx.index[k]) for k in specs}
        assert store.get_meta(COVERED_UNTIL) == str(tx.time[cut - 1]).encode()
        for i in range(cut, len(tx)):
            names = {
                (e.kind, str(tx.index[e.kind][tx.entities[e.column][i]])) for e in config.entities
            }
            views = dict(zip(names, read_views(store, list(names), specs), strict=True))
            for place, entity in enumerate(config.entities):
                name = str(tx.index[entity.kind][tx.entities[entity.column][i]])
                view = views[entity.kind, name]
                view.release(int(tx.time[i]), int(tx.event_id[i]))
                role = config.kinds[entity.kind].index(entity.column)
                np.testing.assert_array_equal(
                    read_state(
                        view.block, role, int(tx.time[i]), int(tx.amount[i]), spec=view.spec
                    ),
                    wanted[entity.column][i],
                )
                groups = [g for g in range(layout.groups) if layout.reader[g] == place]
                check_mail(view, boxes[i, groups], tx, vectors)
            records = {}
            for view, parts in step(views, i, tx, config, vectors):
                for record in view.records(parts, epoch=EPOCH, emitted_at=0):
                    records[record.key] = record
            store.commit(list(records.values()), {})


def test_counterparts_are_named_by_their_keys(history, tmp_path):
    config, tx = history
    specs = state_specs(config)
    first, second = config.entities[0], config.entities[1]
    with open_store(f"lmdb://{tmp_path}/store") as store:
        seed_store(store, tx, config, epoch=EPOCH)
        name = str(tx.index[first.kind][tx.entities[first.column][-1]])
        view = read_views(store, [(first.kind, name)], specs)[0]
        mail = read_mail(view.block, spec=view.spec)
        other = str(tx.index[second.kind][tx.entities[second.column][-1]])
        assert mail.counterpart[0, 0] == entity_key(second.kind, other)
        assert mail.role[0, 0] == 1


def test_seeding_again_moves_nothing_back(history, tmp_path):
    config, tx = history
    kind = config.entities[0].kind
    with open_store(f"lmdb://{tmp_path}/store") as store:
        first = seed_store(store, tx, config, epoch=EPOCH, mail=False)
        assert (
            seed_store(store, tx.take(slice(0, 500)), config, epoch=EPOCH, mail=False).records == 0
        )
        assert seed_store(store, tx, config, epoch=EPOCH - 1, mail=False).records == 0
        again = seed_store(store, tx, config, epoch=EPOCH + 1, mail=False)
        assert again.records == first.records
        assert {r.version for r in store.iterate(kind)} == {first_version(EPOCH + 1)}
        assert {r.part % 2 for r in store.iterate()} == {0}
        with pytest.raises(ValueError, match="without rows"):
            seed_store(store, tx.take(slice(0, 0)), config, epoch=1)
