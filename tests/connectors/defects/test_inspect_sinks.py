"""Sinks: whole after every kill, queued while they fail, beside each other."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import random
import threading
import time
from functools import partial

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.defects.inspect import run as runs_of_folders
from connectors.defects.inspect.backoff import Backoff
from connectors.defects.inspect.camera import CameraTiming
from connectors.defects.inspect.delivery import Delivery
from connectors.defects.inspect.file_sinks import CsvSink, JsonLinesSink, PictureFolderSink
from connectors.defects.inspect.journal import Journal, Result
from connectors.defects.inspect.run import RunConfig
from connectors.defects.inspect.sink import SinkError
from connectors.defects.inspect.sinks import WEBHOOK_SECRET, open_sink
from connectors.defects.inspect.webhook import SIGNATURE_HEADER, WebhookSink, signature
from infra.errors import ConfigurationError
from tests.connectors.defects.lines import PLAIN, VERDICTS, SpotInspector, name_of, write_plates
from tests.connectors.defects.network import BadNetwork, central_machine
from tests.processes import wait_for

inspect_folder = partial(runs_of_folders.inspect_folder, decoder=PLAIN)
QUICK = CameraTiming(settle=0.1, patience=0.4, poll=0.02)
SHARED = "w" * 24


def result(event, name="a.png", journal="j"):
    body = {
        "event": event,
        "journal": journal,
        "image": name,
        "digest": "d",
        "time": "2026-01-01T00:00:00+00:00",
        "edge": {"verdict": "OK", "score": 0.5, "kind": "", "model": "m"},
        "central": None,
        "final": "OK",
        "settled": True,
        "quarantine": None,
    }
    return Result(event, event, body)


def events(path):
    if path.suffix == ".csv":
        with path.open(newline="") as handle:
            return [int(row["event"]) for row in csv.DictReader(handle)]
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", [JsonLinesSink, CsvSink])
def test_a_file_cut_anywhere_ends_up_with_every_result_once(tmp_path, kind):
    path = tmp_path / ("r.csv" if kind is CsvSink else "r.jsonl")
    rng = random.Random(5)
    whole = [result(event) for event in range(1, 21)]
    for _ in range(30):
        sink = kind(path, "j")
        sink.write(whole)
        sink.close()
        assert events(path) == list(range(1, 21))
        with path.open("rb+") as handle:
            handle.truncate(rng.randrange(path.stat().st_size))


@pytest.mark.parametrize("kind", [JsonLinesSink, CsvSink])
def test_a_file_of_something_else_is_not_written_to(tmp_path, kind):
    path = tmp_path / "r.csv"
    whole = (b"name,age\nx,3\n", b'{"a": 1}\n', b"\xff\xfe\n", b"[" * 5_000 + b"\n")
    cut = (b"name,age\nx,3", b'{"a": 1}', b"not one line", b'{"event": "click"}')
    for content in (*whole, *cut, b'{"event": 1, "journal": "k"'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="name another file"):
            kind(path, "j")
        assert path.read_bytes() == content
    path.unlink()
    sink = kind(path, "other")
    sink.write([result(1, journal="other")])
    sink.close()
    with pytest.raises(ValueError, match="name another file"):
        kind(path, "j")


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1))
def test_any_name_makes_one_row_that_no_spreadsheet_runs(tmp_path_factory, name):
    path = tmp_path_factory.mktemp("csv") / "r.csv"
    sink = CsvSink(path, "j")
    sink.write([result(1, name), result(2, name)])
    sink.close()
    sink = CsvSink(path, "j")
    assert sink.position == 2
    sink.close()
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 2
    assert rows[0]["image"][:1] not in {"=", "+", "-", "@", "\t"}


def test_a_row_tells_boxes_and_likes_of_who_decided(tmp_path):
    edge = {"verdict": "REVIEW", "boxes": [[1, 2, 3, 4, "pit", 0.9]], "like": ["=a.png", "b.png"]}
    central = {"verdict": "NG", "boxes": [[5, 6, 7, 8, "crack", 1.0]], "like": []}
    undecided, decided = result(1), result(2)
    undecided.body["edge"] = decided.body["edge"] = edge
    decided.body["central"] = central
    sink = CsvSink(tmp_path / "r.csv", "j")
    sink.write([undecided, decided])
    sink.close()
    with (tmp_path / "r.csv").open(newline="") as handle:
        first, second = csv.DictReader(handle)
    assert json.loads(first["boxes"]) == edge["boxes"]
    assert first["like"] == "'=a.png; b.png"
    assert (json.loads(second["boxes"]), second["like"]) == (central["boxes"], "")


def test_a_lost_file_of_results_is_written_again_from_the_journal(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(5))
    inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))
    (out / "results.jsonl").unlink()
    inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))
    assert events(out / "results.jsonl") == [1, 2, 3, 4, 5]


def test_images_are_sorted_by_verdict_and_moved_by_decisions(tmp_path):
    cam, out, target = tmp_path / "cam", tmp_path / "out", tmp_path / "sorted"
    write_plates(cam, range(10))
    config = RunConfig(sinks=(f"folder:{target}",), timing=QUICK)
    inspect_folder(cam, out, SpotInspector(), config)
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*.png"))
    assert [one for one in found if one.startswith("REVIEW")] == [
        "REVIEW/00000009_00008.heat.png",
        "REVIEW/00000009_00008.png",
        "REVIEW/00000010_00009.heat.png",
        "REVIEW/00000010_00009.png",
    ]
    with central_machine(tmp_path / "home", SpotInspector(0.0)) as (url, _):
        central = RunConfig(
            sinks=config.sinks, central=url, token="s" * 24, timing=QUICK, wait=10.0
        )
        inspect_folder(cam, out, SpotInspector(), central)
    assert not list((target / "REVIEW").iterdir())
    assert (target / "OK" / "00000009_00008.png").read_bytes() == (cam / name_of(8)).read_bytes()
    assert (target / "NG" / "00000010_00009.heat.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((target / "NG" / "00000010_00009.json").read_text())["final"] == "NG"


def test_two_lines_do_not_sort_into_one_folder_nor_overwrite_each_other(tmp_path):
    """Images of both have the same numbers, and with one camera's software the same names."""
    target = tmp_path / "sorted"
    for line in ("one", "two"):
        write_plates(tmp_path / line, range(2))
    config = RunConfig(sinks=(f"folder:{target}",), timing=QUICK)
    for _ in range(2):
        inspect_folder(tmp_path / "one", tmp_path / "out", SpotInspector(), config)
    with pytest.raises(ValueError, match="name another folder"):
        inspect_folder(tmp_path / "two", tmp_path / "out2", SpotInspector(), config)
    assert len(list(target.rglob("*.json"))) == 2


def test_a_journal_that_was_begun_anew_overwrites_no_quarantine(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    cam.mkdir()
    for content in (b"one", b"other"):
        (cam / "broken.png").write_bytes(content)
        inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))
        for name in ("line.db", "results.jsonl"):
            (out / name).rename(tmp_path / f"{name}.{content.decode()}")
    tables = [pq.read_table(path) for path in (out / "quarantine").rglob("*.parquet")]
    kept = [row["payload"] for table in tables for row in table.to_pylist()]
    assert sorted(kept) == [b"one", b"other"]


def test_results_that_the_journal_does_not_know_are_told(tmp_path):
    """Of a journal that was put back from a backup the next results have numbers told already."""
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(2))
    inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))
    backup = (out / "line.db").read_bytes()
    write_plates(cam, range(2, 4))
    inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))
    (out / "line.db").write_bytes(backup)
    with pytest.raises(ConfigurationError, match="does not know"):
        inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))


def test_a_failing_sink_neither_stops_the_line_nor_loses_a_result(tmp_path, monkeypatch):
    monkeypatch.setenv(WEBHOOK_SECRET, SHARED)
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(10))
    with BadNetwork() as receiver:
        receiver.mode = 503
        table = tmp_path / "r.csv"
        config = RunConfig(sinks=(receiver.url, f"csv:{table}"), timing=QUICK, wait=0.5)
        run = inspect_folder(cam, out, SpotInspector(), config)
        assert run.counts.total() == 10
        assert events(table) == list(range(1, 11))
        assert run.undelivered == {f"webhook:{receiver.url}": (10, "HTTP 503")}
        receiver.mode = "up"
        receiver.requests.clear()
        again = inspect_folder(
            cam, out, SpotInspector(), RunConfig(sinks=config.sinks, timing=QUICK, wait=10)
        )
        assert again.undelivered == {}
        bodies = [json.loads(body) for _, body, _ in receiver.requests]
        assert [body["event"] for body in bodies] == list(range(1, 11))
        assert [body["final"] for body in bodies] == list(VERDICTS)
        for _, body, headers in receiver.requests:
            seconds = headers[SIGNATURE_HEADER].split(",")[0].removeprefix("t=")
            signed = hmac.new(SHARED.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
            assert headers[SIGNATURE_HEADER] == f"t={seconds},v1={signed.hexdigest()}"
            assert abs(int(seconds) - time.time()) < 60
    assert signature(b"a", b"b", 1) != signature(b"a", b"b", 2)


def test_a_result_refused_for_good_is_told_and_those_behind_it_go_on(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(4))
    inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))
    with Journal(out / "line.db") as journal, BadNetwork() as receiver:
        receiver.mode = lambda _, body: 422 if json.loads(body)["event"] == 2 else "up"
        delivery = Delivery(journal, WebhookSink(receiver.url, SHARED))
        delivery.start()
        assert delivery.drain(time.monotonic() + 10)
        delivery.end()
        assert journal.refused() == {f"webhook:{receiver.url}": 1}
        assert [json.loads(body)["event"] for _, body, _ in receiver.requests] == [1, 2, 3, 4]


def test_a_secret_in_an_address_is_told_nowhere():
    first, other = (
        WebhookSink(f"http://127.0.0.1:9/hook?token={token}", SHARED) for token in ("s3cret", "x")
    )
    with pytest.raises(SinkError) as told:
        first.write([result(1)])
    assert "s3cret" not in f"{first.name} {told.value}"
    assert first.name != other.name
    assert first.name.startswith("webhook:http://127.0.0.1:9/hook?")


def test_an_answer_that_is_lost_brings_the_same_key_again(tmp_path):
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(2))
    inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))
    with Journal(out / "line.db") as journal, BadNetwork() as receiver:
        receiver.mode = "lost"
        quick = Backoff(first=0.02, longest=0.05)
        delivery = Delivery(journal, WebhookSink(receiver.url, SHARED), quick)
        delivery.start()
        wait_for(lambda: len(receiver.requests) >= 2)
        receiver.mode = "up"
        assert delivery.drain(time.monotonic() + 10)
        delivery.end()
        keys = [headers["idempotency-key"] for _, _, headers in receiver.requests]
        assert len(keys) > 2
        assert len(set(keys)) == 2


def test_the_same_image_of_two_lines_has_two_keys(tmp_path):
    """Or a receiver would take the result of a new model for a repetition of the old one."""
    write_plates(tmp_path / "cam", range(2))
    keys = set()
    for out in (tmp_path / "one", tmp_path / "two"):
        inspect_folder(tmp_path / "cam", out, SpotInspector(), RunConfig(timing=QUICK))
        with Journal(out / "line.db") as journal, BadNetwork() as receiver:
            sink = WebhookSink(receiver.url, SHARED)
            sink.write(journal.results_after(0, 10))
            sink.close()
            keys |= {headers["idempotency-key"] for _, _, headers in receiver.requests}
    assert len(keys) == 4


def test_a_full_disk_takes_half_a_line_and_gives_it_back(tmp_path):
    import os
    import resource
    import signal

    path = tmp_path / "r.jsonl"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            sink = JsonLinesSink(path, "j")
            sink.write([result(1)])
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
            try:
                sink.write([result(event) for event in range(2, 20)])
            except SinkError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert events(path) == [1]


@pytest.mark.parametrize("text", ["", "jsonl:", "pigeon:x", "kafka://host", "kafka:", "C:\\x"])
def test_texts_that_name_no_sink_are_told(tmp_path, text):
    with (
        Journal(tmp_path / "line.db") as journal,
        pytest.raises(ConfigurationError, match="no known form"),
    ):
        open_sink(text, journal, tmp_path, {})


def test_a_webhook_without_a_secret_and_a_sink_named_twice_are_refused(tmp_path):
    with Journal(tmp_path / "line.db") as journal:
        with pytest.raises(ConfigurationError, match=WEBHOOK_SECRET):
            open_sink("https://h/x", journal, tmp_path, {WEBHOOK_SECRET: "short"})
        camera = tmp_path / "camera"
        for place in (tmp_path, camera / "out" / "sorted"):
            sink = open_sink(f"folder:{place}", journal, camera, {}, leave_out=camera / "out")
            assert isinstance(sink, PictureFolderSink)
        for place in (camera, camera / "sorted"):
            for out in (camera / "out", camera, tmp_path, None):
                with pytest.raises(ConfigurationError, match="inspected in turn"):
                    open_sink(f"folder:{place}", journal, camera, {}, leave_out=out)
    write_plates(tmp_path / "cam", range(1))
    twice = RunConfig(sinks=(f"csv:{tmp_path / 'r.csv'}",) * 2, timing=QUICK)
    with pytest.raises(ConfigurationError, match="twice"):
        inspect_folder(tmp_path / "cam", tmp_path / "out", SpotInspector(), twice)


def test_a_sink_with_a_fault_of_its_own_is_tried_again(tmp_path, caplog):
    class Faulty:
        name, batch, position = "faulty", 10, None

        def __init__(self):
            self.calls, self.taken = 0, []

        def write(self, results):
            self.calls += 1
            if self.calls < 3:
                raise KeyError("a fault")
            self.taken += [result.event for result in results]

        def close(self):
            pass

    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(3))
    inspect_folder(cam, out, SpotInspector(), RunConfig(timing=QUICK))
    with Journal(out / "line.db") as journal:
        sink = Faulty()
        delivery = Delivery(journal, sink, Backoff(first=0.01, longest=0.02))
        delivery.start()
        assert delivery.drain(time.monotonic() + 10)
        delivery.end()
    assert sink.taken == [1, 2, 3]
    assert "a fault" in caplog.text
    assert threading.active_count() < 50


def test_results_reach_a_real_broker_in_order(tmp_path, kafka_servers):
    from confluent_kafka import Consumer

    from connectors.kafka.topics import Topic, ensure_topics

    topic = f"penstock.inspect-{random.randrange(10**9)}"
    ensure_topics(kafka_servers, [Topic(topic, 1)])
    cam, out = tmp_path / "cam", tmp_path / "out"
    write_plates(cam, range(20))
    config = RunConfig(sinks=(f"kafka://{kafka_servers}/{topic}",), timing=QUICK, wait=40)
    assert inspect_folder(cam, out, SpotInspector(), config).undelivered == {}
    consumer = Consumer(
        {"bootstrap.servers": kafka_servers, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    seen = []
    deadline = time.monotonic() + 30
    while len(seen) < 20 and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            seen.append((json.loads(message.value()), message.key().decode()))
    consumer.close()
    assert [body["event"] for body, _ in seen] == list(range(1, 21))
    assert all(body["digest"] == key for body, key in seen)
