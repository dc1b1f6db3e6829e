"""The process that writes the store: from files and from Kafka, under faults."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path

import pytest

from connectors.online_store import EntityView, open_store
from connectors.online_store.record import Record
from connectors.online_store.shape import shape_of
from connectors.online_store.state_folder import StateFolder
from connectors.online_store.state_source import Message, sort_out
from connectors.online_store.writer import StoreWriter, main
from connectors.online_store.writer_status import WriterStatus
from infra.services.ports import any_free_port
from kernels.entity_state import StateSpec
from tests.benchmarks._redis import RedisServer

APPLIED = 'penstock_store_records_total{result="applied"}'
ROOT = Path(__file__).resolve().parents[3]


def frame(record):
    key, value = record
    return b"".join((len(key).to_bytes(4, "little"), key, len(value).to_bytes(4, "little"), value))


def now_ms():
    return int(time.time() * 1000)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "stream" / "state"
    made.mkdir(parents=True)
    return made


def put(folder, name, content):
    """Write a file as the stream does: hidden until it is whole."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.inprogress")
    hidden.write_bytes(content)
    hidden.rename(path)


def test_files_reach_the_store_and_are_read_once(folder, tmp_path, record):
    url = f"lmdb://{tmp_path}/store"
    put(folder, "2026-11-26--02/part-0", b"".join(frame(record(f"e{n}", 2)) for n in range(4500)))
    put(folder, "part-1", frame(record("e1", 1)) + frame(record("x", 7)))
    (folder / ".part-2.inprogress").write_bytes(b"half")
    with open_store(url) as store:
        status = WriterStatus()
        writer = StoreWriter(store, StateFolder(folder, store), status)
        for _ in range(8):
            assert writer.turn()
        writer._commit()
        assert store.counts() == {"card": 4501}
        assert store.read([record("e1", 2).key]) == [record("e1", 2)]
        assert status.ready
        source = StateFolder(folder, store)
        assert source.lag() == 0
        assert source.take() == []
        put(folder, "part-3", frame(record("x", 8)))
        assert source.lag() == 1
        (folder / "part-1").unlink()
        writer = StoreWriter(store, source, status)
        for _ in range(3):
            writer.turn()
        writer._commit()
        assert store.read([record("x", 1).key])[0].version == 8
        kept = json.loads(store.get_meta("state-files"))
        assert kept == ["2026-11-26--02/part-0", "part-3"]


def test_broken_files_and_messages_are_set_aside(folder, tmp_path, record):
    good = frame(record("a", 1))
    broken = frame(Record(b"no key", b"no value"))
    put(folder, "part-0", good + broken + frame(record("b", 1)))
    put(folder, "part-1", good + b"\xff\xff\xff\x7f" + good)
    put(folder, "part-2", frame(record("c", 1))[:-5])
    put(folder, "part-3", frame(record("d", 1)))
    with open_store(f"lmdb://{tmp_path}/store") as store:
        status = WriterStatus()
        writer = StoreWriter(store, StateFolder(folder, store), status)
        for _ in range(6):
            writer.turn()
        writer._commit()
        assert {r.id for r in store.iterate()} == {"a", "b", "d"}
    lines = (folder.parent / "dead-letters" / "store-writer.jsonl").read_text().splitlines()
    letters = [json.loads(line) for line in lines]
    assert [(x["source"], x["row"]) for x in letters] == [
        ("part-0", len(good)),
        ("part-1", len(good)),
        ("part-2", 0),
    ]
    assert {x["rule"] for x in letters} == {"broken-record"}
    payload = base64.b64decode(letters[0]["payload"])
    assert payload == b"no keyno value"
    assert letters[0]["sha256"] == hashlib.sha256(payload).hexdigest()
    assert letters[0]["detector_version"] == "store-writer/1"


def test_state_that_does_not_fit_the_config_is_set_aside(record):
    spec = StateSpec()
    good = EntityView("card", "a", spec).records((0, 1), epoch=1, emitted_at=0)
    wrong = EntityView("card", "a", StateSpec(delay=0)).records((0,), epoch=1, emitted_at=0)
    strange = EntityView("shop", "a", spec).records((0,), epoch=1, emitted_at=0)
    messages = [Message(*r, "t/0", n) for n, r in enumerate([*good, *wrong, *strange])]
    messages.append(Message(good[0].key, None, "t/0", 9))
    records, letters, gone = sort_out(messages, {"card": shape_of(spec)})
    assert records == good
    assert [letter.rule.name for letter in letters] == ["foreign-spec", "unknown-kind"]
    assert gone == 1
    assert len(sort_out(messages, {})[0]) == 4


def test_the_process_follows_a_folder_and_ends_cleanly(folder, tmp_path, record, start):
    url = f"lmdb://{tmp_path}/store"
    with start("--store", url, "--folder", str(folder)) as writer:
        put(
            folder,
            "part-0",
            b"".join(frame(record(f"e{n}", 2, emitted_at=now_ms())) for n in range(9)),
        )
        with open_store(url, read_only=True) as reader:
            writer.until(lambda: reader.counts() == {"card": 9})
        writer.until(lambda: writer.figure("penstock_store_freshness_seconds_count") == 9)
        assert writer.figure('penstock_store_freshness_seconds_bucket{le="5.0"}') == 9
        assert writer.figure(APPLIED) == 9
        assert writer.page("/health/live")[0] == 200
        assert writer.page("/nothing")[0] == 404
        writer.until(writer.health.is_file)
        assert json.loads(writer.health.read_text())["ready"] is True
        code, said = writer.end()
    assert code == 0
    assert "SIGTERM" in said
    assert not writer.health.exists()
    with open_store(url) as store:
        assert json.loads(store.get_meta("state-files")) == ["part-0"]


def test_a_store_that_is_away_is_waited_for(folder, tmp_path, record, start, end_with_run):
    import shutil

    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is missing")
    server = RedisServer(tmp_path, "--appendonly", "yes", register=end_with_run)
    server.start()
    try:
        with start("--store", server.url, "--folder", str(folder)) as writer:
            put(folder, "part-0", frame(record("a", 1)))
            writer.until(
                lambda: writer.figure('penstock_store_records_total{result="applied"}') == 1
            )
            server.stop()
            put(folder, "part-1", frame(record("b", 1)))
            writer.until(lambda: writer.page("/health/ready")[0] == 503)
            assert "does not answer" in writer.page("/health/ready")[1]
            assert writer.page("/health/live")[0] == 200
            server.start()
            with open_store(server.url) as store:
                writer.until(lambda: store.read([record("b", 1).key])[0] is not None)
            writer.until(lambda: writer.page("/health/ready")[0] == 200)
            server.stop()
            put(folder, "part-2", frame(record("c", 1)))
            writer.until(lambda: writer.page("/health/ready")[0] == 503)
            code, _ = writer.end()  # what is in hand is left for the next start
            assert code == 0
        server.start()
        with start("--store", server.url, "--folder", str(folder)) as writer:
            with open_store(server.url) as store:
                writer.until(lambda: store.read([record("c", 1).key])[0] is not None)
            assert writer.end()[0] == 0
    finally:
        server.stop()


def test_kill_9_costs_nothing(folder, tmp_path, record, start):
    url = f"lmdb://{tmp_path}/store?sync=second"
    for n in range(6):
        put(folder, f"part-{n}", b"".join(frame(record(f"e{k}", n + 1)) for k in range(3000)))
    with start("--store", url, "--folder", str(folder)) as writer:
        writer.process.kill()
        writer.process.wait()
    put(folder, "part-9", frame(record("late", 1)))
    with (
        start("--store", url, "--folder", str(folder)) as writer,
        open_store(url, read_only=True) as reader,
    ):
        writer.until(
            lambda: reader.counts() == {"card": 3001} and writer.figure("penstock_store_lag") == 0
        )
        writer.until(lambda: all(r == record(r.id, 6) for r in reader.iterate() if r.id != "late"))


def test_faults_of_the_start_are_told_in_a_line(tmp_path, folder, caplog, monkeypatch):
    common = ["--port", str(any_free_port()), "--folder", str(folder)]
    health = ["--health", str(tmp_path / "h.json")]
    assert main([*common, *health, "--store", "ftp://x"]) == 1
    assert "names no kind of online store" in caplog.text
    assert main([*common, *health, "--store", f"lmdb://{tmp_path}/s", "--config", "nowhere"]) == 1
    assert "Name another by --config" in caplog.text
    monkeypatch.delenv("PENSTOCK_KAFKA_SERVERS", raising=False)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))  # where no broker was started
    assert main([*common[:2], *health, "--store", f"lmdb://{tmp_path}/s"]) == 1
    assert "penstock up --stream" in caplog.text
