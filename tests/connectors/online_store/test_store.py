"""What every implementation does alike; one suite for all."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.online_store import Answer, ConflictError, StoreError, open_store
from connectors.online_store.errors import (
    RecordError,
    SnapshotError,
    StoreReadOnlyError,
)
from connectors.online_store.record import Record, encode_key
from connectors.online_store.snapshot import read_snapshot


def later(seconds=60.0):
    return int((time.time() + seconds) * 1000)


def contents(store):
    return {record.key: record.value for record in store.iterate()}


def test_records_come_back_in_the_order_asked(store, record):
    records = [record(f"e{n}", n + 1, part=n % 2) for n in range(50)]
    assert store.write(iter(records)) == 50
    keys = [r.key for r in records]
    assert store.read(keys[::-1]) == records[::-1]
    assert store.read([encode_key("card", "nobody", 0), keys[3]]) == [None, records[3]]
    assert store.read([]) == []
    assert store.read([keys[0]] * 700) == [records[0]] * 700


def test_versions_never_go_backwards(store, record):
    high = 2**63 + 5  # beyond what a double can tell apart
    assert store.write([record("a", high)]) == 1
    assert store.write([record("a", high), record("a", high - 1), record("a", 3)]) == 0
    assert store.read([record("a", 1).key])[0].version == high
    assert store.write([record("a", high + 1)]) == 1
    assert store.write([record("a", 2**64 - 1)]) == 1
    assert store.write([record("b", v) for v in (1, 2**32, 2**32 - 1, 2**32 + 1)]) == 3


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture
    ],  # every example opens its own store
)
@given(
    batches=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b", "a\0"]),
                st.integers(0, 1),
                st.sampled_from([1, 2, 3, 2**32, 2**32 + 1, 2**38, 2**63]),
            ),
            max_size=40,
        ),
        max_size=4,
    )
)
def test_any_order_leaves_the_newest(new_store, record, batches):
    store, newest = new_store(), {}
    for batch in batches:
        expected = 0
        for entity, part, version in batch:
            key = (entity, part)
            expected += version > newest.get(key, 0)
            newest[key] = max(version, newest.get(key, 0))
        assert store.write([record(e, v, part=p) for e, p, v in batch]) == expected
    wanted = {r.key: r.value for r in (record(e, v, part=p) for (e, p), v in newest.items())}
    assert contents(store) == wanted
    entities = len({e for e, _ in newest})
    assert store.counts() == ({"card": entities} if entities else {})
    store.close()


def test_a_reader_during_writes_sees_whole_records_that_only_rise(store, record):
    stop, failures = threading.Event(), []

    def write():
        version = 1
        while not stop.is_set():
            order = (version + 3, version + 1, version + 2, version + 3)
            store.write([record("a", v, size=3608, part=p) for v in order for p in range(4)])
            version += 3

    keys = [record("a", 1, part=p).key for p in range(4)]
    store.write([record("a", 1, size=3608, part=p) for p in range(4)])
    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = [0] * 4
        for _ in range(1500):
            found = store.read(keys)
            for part, got in enumerate(found):
                if (
                    got != record("a", got.version, size=3608, part=part)
                    or got.version < seen[part]
                ):
                    failures.append((part, got.version))
                seen[part] = got.version
    finally:
        stop.set()
        thread.join()
    assert not failures
    assert min(seen) > 1


def test_counts_are_of_entities_by_kind(store, record):
    store.write([record("a", 1, part=n) for n in range(4)])
    store.write([record("b", 1), record("a", 1, kind="shop"), record("a", 2)])
    assert store.counts() == {"card": 2, "shop": 1}


def test_iterating_one_kind_leaves_out_those_that_begin_alike(store, record):
    store.write([record("a", 1), record("a", 1, kind="car"), record("a", 1, kind="cards")])
    assert [r.kind for r in store.iterate("card")] == ["card"]
    assert len(list(store.iterate())) == 3
    assert list(store.iterate("nothing")) == []


def test_a_commit_counts_state_once_and_answers_twice(store, record):
    store.commit([record("a", 1)], {7: Answer(b"approve", later()), -8: Answer(b"", later())})
    assert store.answers([7, -8, 9]) == [b"approve", b"", None]
    assert store.answers([]) == []
    with pytest.raises(ConflictError, match="answered"):
        store.commit([record("a", 2)], {9: Answer(b"x", later()), 7: Answer(b"again", later())})
    assert store.read([record("a", 1).key])[0].version == 1
    assert store.answers([7, 9]) == [b"approve", None]


def test_a_commit_that_comes_late_leaves_nothing(store, record):
    store.write([record("b", 5)])
    with pytest.raises(ConflictError, match="card"):
        store.commit([record("a", 1), record("b", 5)], {7: Answer(b"x", later())})
    assert store.read([record("a", 1).key, record("b", 1).key]) == [None, record("b", 5)]
    assert store.answers([7]) == [None]
    with pytest.raises(ValueError, match="same key"):
        store.commit([record("a", 1), record("a", 2)], {})
    store.commit([record("a", 1), record("b", 6)], {})


def test_answers_expire(store, record):
    now = int(time.time() * 1000)
    store.commit([], {n: Answer(b"old", now - 5_000) for n in range(20)})
    store.commit([], {30: Answer(b"brief", now + 250)})
    assert store.answers([0, 30]) == [None, b"brief"]
    time.sleep(0.3)
    assert store.answers([30]) == [None]
    store.commit([record("a", 1)], {30: Answer(b"anew", later()), 0: Answer(b"anew", later())})
    assert store.answers([30, 0, 1]) == [b"anew", b"anew", None]


def test_embeddings_belong_to_a_model(store):
    rng = np.random.default_rng(3)
    first, second = (rng.normal(size=(2500, 8)).astype(np.float32) for _ in range(2))
    ids = [f"e{n}" for n in range(2500)]
    store.write_embeddings("model-1", "card", ids, first)
    store.write_embeddings("model-2", "card", ids[:5], second[:5])
    store.write_embeddings("model-1", "shop", ["e3"], second[9:10])
    got = store.read_embeddings("model-1", [("card", "e7"), ("shop", "e3"), ("shop", "e4")])
    np.testing.assert_array_equal(got[0], first[7])
    np.testing.assert_array_equal(got[1], second[9])
    assert got[2] is None
    np.testing.assert_array_equal(store.read_embeddings("model-2", [("card", "e0")])[0], second[0])
    assert store.drop_embeddings("model-1") == 2501
    assert store.drop_embeddings("model-1") == 0
    assert store.read_embeddings("model-1", [("card", "e7")]) == [None]
    assert store.read_embeddings("model-2", [("card", "e1")])[0] is not None


def test_embeddings_of_a_wrong_shape_are_refused(store):
    with pytest.raises(ValueError, match="vectors must be"):
        store.write_embeddings("m", "card", ["a"], np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="finite"):
        store.write_embeddings("m", "card", ["a"], np.full((1, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="digest"):
        store.read_embeddings("", [("card", "a")])


def test_named_values(store):
    assert store.get_meta("control") is None
    store.put_meta("control", b'{"model": "1"}')
    store.put_meta("control", b'{"model": "2"}')
    assert store.get_meta("control") == b'{"model": "2"}'
    with pytest.raises(StoreError, match="name"):
        store.put_meta("", b"")


def test_bytes_that_are_no_value_are_refused(store, record):
    for value in (b"short", record("a", 1).value[:-1]):
        with pytest.raises(RecordError):
            store.write([Record(record("a", 1).key, value)])
        with pytest.raises(RecordError):
            store.commit([Record(record("a", 1).key, value)], {})
    assert store.counts() == {}


def filled(store, record):
    labels = [(9, 2, 5, 1), (8, 1, -4, 0)]
    store.write([record(f"e{n}", n + 1, part=n % 3, labels=labels) for n in range(3000)])
    store.write_embeddings("m", "card", ["e1"], np.ones((1, 4), np.float32))
    store.put_meta("control", b"x")
    store.commit([], {5: Answer(b"yes", later()), 6: Answer(b"no", later())})


def test_a_snapshot_restores_everything(new_store, record, tmp_path):
    store, other = new_store(), new_store()
    filled(store, record)
    path = tmp_path / "snapshots" / "now.bin"
    assert store.snapshot(path) == 3000 + 1 + 1 + 2
    assert other.restore(path) == 3004
    assert contents(other) == contents(store)
    assert other.counts() == store.counts()
    assert other.get_meta("control") == b"x"
    assert other.answers([5, 6]) == [b"yes", b"no"]
    np.testing.assert_array_equal(other.read_embeddings("m", [("card", "e1")])[0], np.ones(4))
    other.snapshot(tmp_path / "again.bin")
    again = sorted(read_snapshot(tmp_path / "again.bin"))
    assert again == sorted(read_snapshot(path))
    with pytest.raises(SnapshotError, match="not empty"):
        other.restore(path)
    assert [p.name for p in path.parent.iterdir()] == ["now.bin"]


def test_a_snapshot_of_one_kind_of_store_restores_into_the_other(
    new_store, record, redis_url, tmp_path
):
    store = new_store()
    filled(store, record)
    store.snapshot(tmp_path / "s.bin")
    with (
        open_store(f"lmdb://{tmp_path}/other") as lmdb,
        open_store(f"{redis_url}?prefix=other-{tmp_path.name.replace('_', '')}") as redis,
    ):
        for other in (lmdb, redis):
            other.restore(tmp_path / "s.bin")
            assert contents(other) == contents(store)
            assert other.answers([5]) == [b"yes"]


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "longer"])
def test_a_damaged_snapshot_changes_nothing(store, new_store, record, tmp_path, damage):
    store.write([record("a", 1), record("b", 2)])
    path = tmp_path / "s.bin"
    store.snapshot(path)
    raw = bytearray(path.read_bytes())
    if damage == "flip":
        raw[100] ^= 1
    path.write_bytes(
        {"cut": raw[:-3], "flip": raw, "foreign": b"hello", "longer": raw + b"0"}[damage]
    )
    other = new_store()
    with pytest.raises(SnapshotError, match=r"damaged|no snapshot"):
        other.restore(path)
    assert other.counts() == {}
    with pytest.raises(SnapshotError, match="cannot be read"):
        other.restore(tmp_path / "nowhere.bin")


def test_a_reader_may_not_write(new_store, record):
    writer = new_store()
    writer.write([record("a", 1)])
    address = f"lmdb://{writer.place}"
    if "://" in writer.place:
        address = f"{writer.place}?prefix={writer.options.prefix}"
    writer.close()
    with open_store(address, read_only=True) as reader:
        assert reader.read([record("a", 1).key]) == [record("a", 1)]
        for attempt in (
            lambda: reader.write([record("a", 2)]),
            lambda: reader.commit([record("a", 2)], {}),
            lambda: reader.put_meta("a", b""),
            lambda: reader.write_embeddings("m", "card", ["a"], np.ones((1, 2), np.float32)),
            lambda: reader.drop_embeddings("m"),
        ):
            with pytest.raises(StoreReadOnlyError, match="opened for reading"):
                attempt()


def test_addresses_that_cannot_be_used(monkeypatch):
    monkeypatch.delenv("PENSTOCK_STORE_URL", raising=False)
    for url, words in (
        ("", "PENSTOCK_STORE_URL"),
        ("lmdb://folder", "three slashes"),
        ("lmdb:///", "three slashes"),
        ("lmdb:///x?sync=never", "commit or second"),
        ("lmdb:///x?colour=red", "Known are"),
        ("lmdb:///x?map_mib=many", "whole number"),
        ("lmdb:///x?map_mib=0", "map_mib"),
        ("lmdb:///x?readers=0", "readers"),
        ("postgres://me:secret@host/db", "names no kind"),
        ("redis://host?prefix=a*", "prefix"),
        ("redis://host?timeout_ms=0", "timeout_ms"),
        ("redis://host?expire_s=x", "whole number"),
        ("redis://host/0?socket_timeout=abc", "cannot be used"),
    ):
        with pytest.raises(StoreError, match=words) as caught:
            open_store(url)
        assert "secret" not in str(caught.value)


def test_the_address_may_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PENSTOCK_STORE_URL", f"lmdb://{tmp_path}/a%20b")
    with open_store() as store:
        assert store.place == f"{tmp_path}/a b"
    store.close()
