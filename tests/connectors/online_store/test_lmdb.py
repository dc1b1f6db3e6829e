"""What only LMDB does: one writer, many reading processes, growth, kill -9, a full disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.online_store import StoreError, StoreFullError, lmdb_environment, open_store
from connectors.online_store.errors import StoreBusyError, StoreNotFoundError
from tests.connectors.online_store.processes import ENTITIES, is_whole, made

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def program(name, url, end_with_run):
    """Run one of ``processes`` while the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.connectors.online_store.processes", name, url],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end_with_run(process.pid)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        end_with_run(-process.pid)


@pytest.fixture
def url(tmp_path):
    return f"lmdb://{tmp_path}/store"


def keys():
    return [made(e, 0).key for e in range(ENTITIES)]


def test_readers_see_whole_moments_while_another_process_writes(url, end_with_run):
    with program("write-on", url, end_with_run) as writer:
        writer.stdout.readline()
        with open_store(url, read_only=True) as reader:
            seen, until = set(), time.monotonic() + 1.5
            while time.monotonic() < until:
                records = reader.read(keys())
                versions = {record.version for record in records}
                assert len(versions) == 1
                assert all(is_whole(record) for record in records)
                seen |= versions
            assert len(seen) > 10
            moment = {record.version for record in reader.iterate()}
            assert len(moment) == 1


def test_kill_9_loses_nothing_that_was_committed(url, end_with_run):
    told = 0
    for _ in range(3):
        with program("write-on", f"{url}?sync=second", end_with_run) as writer:
            if told:  # versions never go backwards, so it fails at its first commit
                assert writer.wait(20) != 0
                break
            lines = [writer.stdout.readline() for _ in range(40)]
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
            told = int(rest[-1] if rest else lines[-1])
        with open_store(url, read_only=True) as reader:
            found = reader.read(keys())
            assert {record.version for record in found} <= {told, told + 1}
            assert all(is_whole(record) for record in found)
            assert reader.answers([told]) == [b"%d" % told]
        with open_store(url) as store:
            assert store.write([made(e, told + 2) for e in range(ENTITIES)]) == ENTITIES


def test_the_map_grows_also_under_readers(url, end_with_run):
    with program("grow", f"{url}?map_mib=1", end_with_run) as writer:
        assert writer.stdout.readline() == "1\n"
        with open_store(url, read_only=True) as reader:
            assert reader.read([made(2999, 0).key]) == [made(2999, 1)]
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "2\n"
            assert reader.read([made(2999, 0).key]) == [made(2999, 2)]
            assert sum(1 for record in reader.iterate() if is_whole(record)) == 3000
            assert reader.counts() == {"card": 3000}


def test_the_limit_of_growth_is_told(url):
    with open_store(f"{url}?map_mib=1&limit_mib=2") as store:
        with pytest.raises(StoreFullError, match="limit_mib"):
            store.write(made(e, 1) for e in range(3000))
        assert store.write([made(0, 9)]) == 1


def test_a_full_disk_loses_nothing_that_was_there(url, end_with_run):
    with program("fill", url, end_with_run) as process:
        out, _ = process.communicate(timeout=30)
    assert "Free disk space" in out
    assert out.endswith("ok\n")


def test_killed_readers_are_forgotten(url, end_with_run, monkeypatch):
    monkeypatch.setattr(lmdb_environment, "READER_CHECK_SECONDS", 0)
    monkeypatch.setattr(lmdb_environment, "SYNC_SECONDS", 0.1)
    with open_store(url) as store:
        store.write([made(0, 1)])
        with program("hold", url, end_with_run) as reader:
            assert reader.stdout.readline() == "1\n"
            assert str(reader.pid) in store._environment._raw.readers()
            reader.kill()
            reader.wait()
            deadline = time.monotonic() + 10
            while str(reader.pid) in store._environment._raw.readers():
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_there_is_one_writer(url, end_with_run):
    with program("grow", url, end_with_run) as writer:
        writer.stdout.readline()
        with pytest.raises(StoreBusyError, match=f"process {writer.pid} writes"):
            open_store(url)
    open_store(url).close()


def test_a_process_opens_a_store_once(url):
    with open_store(url), pytest.raises(StoreBusyError, match="open already"):
        open_store(url, read_only=True)


def test_what_is_no_store_is_told(tmp_path, url):
    with pytest.raises(StoreNotFoundError, match="Start the process"):
        open_store(url, read_only=True)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(StoreError, match="no sound online store"):
        open_store(url)
    with pytest.raises(StoreError, match="no sound online store"):
        open_store(url, read_only=True)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        open_store(f"lmdb://{tmp_path}/file")


def test_an_environment_without_our_tables_is_told(tmp_path):
    import lmdb

    lmdb.open(str(tmp_path / "store")).close()
    with pytest.raises(StoreNotFoundError, match="not been set up"):
        open_store(f"lmdb://{tmp_path}/store", read_only=True)


def test_another_format_is_refused(tmp_path, url):
    open_store(url).close()
    import lmdb

    with lmdb.open(str(tmp_path / "store"), max_dbs=16) as raw:
        meta = raw.open_db(b"meta")
        with raw.begin(write=True) as transaction:
            transaction.put(b"\0format", b"99", db=meta)
    with pytest.raises(StoreError, match="format"):
        open_store(url)


def test_threads_share_a_store_while_it_grows(url):
    with open_store(f"{url}?map_mib=1&sync=second") as store:
        store.write(made(e, 1) for e in range(ENTITIES))
        failures, stop = [], threading.Event()

        def look():
            while not stop.is_set():
                records = store.read(keys())
                if len({r.version for r in records}) != 1 or not all(map(is_whole, records)):
                    failures.append(records)
                list(store.iterate("nothing"))

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for version in range(2, 40):
                store.commit([made(e, version) for e in range(ENTITIES)], {})
                store.write(made(e, version) for e in range(100 * version, 100 * version + 50))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures


def test_the_store_flushes_once_a_second(url, tmp_path):
    with open_store(f"{url}?sync=second") as store:
        store.write([made(0, 1)])
        assert store._environment._unsynced
        deadline = time.monotonic() + 5
        while store._environment._unsynced and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not store._environment._unsynced
        store.flush()
    store.close()
