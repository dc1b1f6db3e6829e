"""The state of the past equals what the batch saw then."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.online_store import StoreError, open_store
from connectors.online_store.event_log import read_labels, read_transactions
from connectors.online_store.history import LAST_ID, read_start, state_as_of
from connectors.online_store.seed import seed_store
from kernels.entity_state import read_mail, read_state
from tasks.fraud.features import build_features
from tasks.fraud.graph.mail import Mailboxes, mail_layout, message_vectors
from tests.connectors.online_store.states import check_mail, raw_states

DAY = 86_400_000


def named(tx, config, i):
    """Kind, role, column and id of every entity of a row."""
    for entity in config.entities:
        role = config.kinds[entity.kind].index(entity.column)
        name = str(tx.index[entity.kind][tx.entities[entity.column][i]])
        yield entity.kind, role, entity.column, name


def check_row(past, tx, i, role, wanted):
    view = past.view
    got = read_state(view.block, role, int(tx.time[i]), int(tx.amount[i]), spec=view.spec)
    np.testing.assert_array_equal(got, wanted)


def test_every_moment_is_what_the_batch_saw(history):
    config, tx = history
    wanted = raw_states(tx, config)
    for i in np.random.default_rng(3).integers(0, len(tx), 60):
        for kind, role, column, name in named(tx, config, i):
            past = state_as_of(tx, config, kind, name, int(tx.time[i]), int(tx.event_id[i]))
            check_row(past, tx, i, role, wanted[column][i])
            assert past.since is None
            for waiting in past.view.waiting:
                assert (waiting[:, 0] > tx.time[i]).all()
                assert (waiting[:, 1] <= tx.time[i]).all()


def test_changes_tell_events_and_labels_in_order(history):
    config, tx = history
    i = len(tx) - 1
    kind, role, column, name = next(named(tx, config, i))
    past = state_as_of(tx, config, kind, name, int(tx.time[i]))
    events = [c for c in past.changes if c.what == "event" and c.role == role]
    mine = tx.entities[column] == tx.entities[column][i]
    assert [c.event_id for c in events] == tx.event_id[mine].tolist()
    assert [c.amount for c in events] == tx.amount[mine].tolist()
    labels = [c for c in past.changes if c.what == "label" and c.role == role]
    due = mine & (tx.label >= 0) & (tx.label_time <= tx.time[i])
    assert sorted(c.event_id for c in labels) == sorted(tx.event_id[due].tolist())
    assert [c.at for c in labels] == sorted(c.at for c in labels)
    assert [c.time for c in past.changes if c.what == "event"] == sorted(
        c.time for c in past.changes if c.what == "event"
    )
    before = state_as_of(tx, config, kind, name, int(tx.time[i]), int(tx.event_id[i]))
    assert len(before.changes) < len(past.changes)


def test_a_snapshot_shortens_the_replay(history, tmp_path):
    config, tx = history
    wanted, cut = raw_states(tx, config), len(tx) // 2
    with open_store(f"lmdb://{tmp_path}/store?sync=second") as store:
        seed_store(store, tx.take(slice(0, cut)), config, epoch=1)
        store.snapshot(tmp_path / "s.bin")
    layout = mail_layout(config)
    features = build_features(tx, config)
    vectors = message_vectors(features, layout)
    boxes = Mailboxes(tx, features, layout).index(np.arange(len(tx)))
    for i in np.random.default_rng(4).integers(cut + 1, len(tx), 5):
        for place, (kind, role, column, name) in enumerate(named(tx, config, i)):
            start = read_start(tmp_path / "s.bin", kind, name)
            moment = (int(tx.time[i]), int(tx.event_id[i]))
            past = state_as_of(tx, config, kind, name, *moment, start=start, mail=True)
            whole = state_as_of(tx, config, kind, name, *moment, mail=True)
            check_row(past, tx, i, role, wanted[column][i])
            assert past.since == tx.time[cut - 1]
            assert len(past.changes) <= len(whole.changes)
            groups = [g for g in range(layout.groups) if layout.reader[g] == place]
            for each in (past, whole):
                check_mail(each.view, boxes[i, groups], tx, vectors)
            mine, theirs = (read_mail(v.view.block, spec=v.view.spec) for v in (past, whole))
            np.testing.assert_array_equal(mine.counterpart, theirs.counterpart)
    early = state_as_of(tx, config, kind, name, int(tx.time[cut // 2]), start=start)
    assert early.since is None


def test_a_snapshot_without_a_mark_needs_to_be_told(history, tmp_path):
    config, tx = history
    with open_store(f"lmdb://{tmp_path}/store") as store:
        store.snapshot(tmp_path / "s.bin")
    with pytest.raises(StoreError, match="event time it covers"):
        read_start(tmp_path / "s.bin", "card", "1")
    assert read_start(tmp_path / "s.bin", "card", "1", 5).until == 5
    with pytest.raises(StoreError, match="Known are"):
        state_as_of(tx, config, "planet", "1", 0)


def test_entities_never_seen_have_an_empty_past(history):
    config, tx = history
    kind = config.entities[0].kind
    past = state_as_of(tx, config, kind, "nobody", int(tx.time[-1]), mail=True)
    assert past.changes == ()
    assert not past.view.known


@pytest.fixture(scope="module")
def logs(dataset, tmp_path_factory):
    """A folder of transactions without labels, a file of labels; both with broken lines."""
    config, table, _ = dataset
    folder = tmp_path_factory.mktemp("logs")
    rows = table.to_pylist()
    half = len(rows) // 2
    (folder / "transactions").mkdir()
    for name, part in (("a.jsonl", rows[:half]), ("b.jsonl", rows[half:])):
        plain = [{k: v for k, v in row.items() if k != config.label} for row in part]
        lines = [json.dumps(row) for row in plain]
        lines[7:7] = ["{broken", "[1]", "", lines[3]]
        (folder / "transactions" / name).write_text("\n".join(lines), encoding="utf-8")
    (folder / "transactions" / ".c.jsonl.inprogress").write_text("half")
    keys = [config.event_id, config.time, *(e.column for e in config.entities)]
    with (folder / "labels.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({k: row[k] for k in keys} | {"fraud": row["fraud"]}) + "\n")
        file.write(json.dumps({k: rows[0][k] for k in keys}) + "\n")
    return folder


def test_logs_of_json_lines_give_the_same_past(dataset, logs):
    config, _, tx = dataset
    log = read_transactions(logs / "transactions", config)
    labels = read_labels(logs / "labels.jsonl", config)
    assert log.refused == 6
    assert len(log.rows) == len(tx)
    assert (log.rows.label == -1).all()
    assert len(labels.rows) == len(tx)
    wanted = raw_states(tx, config)
    for i in np.random.default_rng(5).integers(0, len(tx), 20):
        for kind, role, column, name in named(tx, config, i):
            moment = (int(tx.time[i]), int(tx.event_id[i]))
            past = state_as_of(log.rows, config, kind, name, *moment, labels=labels.rows)
            check_row(past, tx, i, role, wanted[column][i])


def test_logs_of_arrow_and_parquet(dataset, tmp_path):
    config, table, tx = dataset
    half = len(table) // 2
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table.slice(0, half))
    pq.write_table(table.slice(half), tmp_path / "b.parquet")
    log = read_transactions(tmp_path, config)
    assert log.refused == 0
    np.testing.assert_array_equal(log.rows.event_id, tx.event_id)
    np.testing.assert_array_equal(log.rows.label, tx.label)


def test_logs_that_cannot_be_read(dataset, tmp_path):
    config = dataset[0]
    with pytest.raises(StoreError, match="holds no log"):
        read_transactions(tmp_path, config)
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(StoreError, match="cannot be read"):
        read_transactions(tmp_path, config)
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(StoreError, match="log of this dataset"):
        read_transactions(tmp_path / "b.jsonl", config)


def test_values_of_mixed_types_are_read_as_text(dataset, tmp_path):
    config, table, tx = dataset
    rows = table.slice(0, 200).to_pylist()
    for n, row in enumerate(rows):
        if n % 2:
            row[config.amount] = str(row[config.amount])
            row[config.event_id] = str(row[config.event_id])
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    log = read_transactions(tmp_path, config)
    assert log.refused == 0
    np.testing.assert_array_equal(log.rows.amount, tx.amount[:200])
    kind, _, _, name = next(named(tx, config, 0))
    assert state_as_of(log.rows, config, kind, name, int(tx.time[199]), LAST_ID).changes
