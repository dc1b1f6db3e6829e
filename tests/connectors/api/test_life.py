"""Limits, load, failures, kills, new models: the API as a process that must go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.connectors.api.calls import admin, get, raw, request, score
from tests.connectors.api.conftest import SECRETS


@pytest.fixture(scope="module")
def strict(start, bundle):
    """An API with narrow limits."""
    limits = {"read_seconds": 0.5, "idle_seconds": 1.0, "max_connections": 80, "budget_ms": 20}
    return start({"model": bundle.folder, "ui": "false", "rate": 50, "burst": 1_000} | limits)


def test_slow_requests_are_cut_and_idle_connections_closed(strict, events):
    api = strict
    began = time.monotonic()
    assert b"408" in raw(api, b"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-Slow: ").split(b"\r\n")[0]
    head = request(events(), close=False)
    assert b"408" in raw(api, head[:-10]).split(b"\r\n")[0]
    assert raw(api, b"") == b""  # an idle connection is closed without a word
    assert time.monotonic() - began < 15


def test_connections_are_limited(strict):
    api = strict
    held = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(80)]
    time.sleep(0.3)
    try:
        refused = raw(api, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"too-many-connections" in refused
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.3)
    assert api.call("GET", "/health/live").status == 200


def handed(api, name):
    """Return what was journaled, in the order of the files."""
    return [
        json.loads(line)
        for file in sorted((api.home / "journal" / name).glob("[!.]*"))
        for line in file.read_bytes().splitlines()
    ]


def check_rules(api, events):
    before = get(api, "/v1/rules").data
    assert (before["review_at"], before["block_at"]) == (0.05, 0.5)
    rules = {"version": "r2", "review_at": 0.0, "block_at": 1.5, "block": {"terminal": ["bad"]}}
    assert admin(api, "PUT", "/v1/rules", rules).status == 200
    assert score(api, events()).data["decision"] == "review"
    listed = score(api, events(terminal="bad")).data
    assert (listed["decision"], listed["rules"]) == ("block", "r2")
    assert admin(api, "PUT", "/v1/rules", rules | {"review_at": 2}).status == 422
    assert admin(api, "PUT", "/v1/rules", rules | {"block": {"boat": []}}).status == 422
    return rules


def test_same_bytes_one_count_and_the_same_rules_after_kill_9(start, bundle, events):
    api = start({"model": bundle.folder, "ui": "false"})
    rules = check_rules(api, events)
    event = events(customer="survivor")
    bodies = [score(api, event).body]
    stop = threading.Event()

    def pour():
        while not stop.is_set():
            try:
                score(api, events(), timeout=5)
            except OSError:
                return

    threads = [threading.Thread(target=pour) for _ in range(4)]
    for thread in threads:
        thread.start()
    answered = [e for e in (events(customer="survivor") for _ in range(20)) if score(api, e)]
    api.kill()
    stop.set()
    for thread in threads:
        thread.join()
    again = start({"model": bundle.folder, "ui": "false"}, home=api.home)
    bodies += [score(again, event).body for _ in range(2)]
    assert len(set(bodies)) == 1
    for one in answered:
        assert score(again, one).status == 200
    role = get(again, "/v1/entities/customer/survivor").data["roles"][0]
    assert role["transactions_ever"] == 21
    assert get(again, "/v1/rules").data == rules
    assert {e["tx_id"] for e in [event, *answered]} <= {
        line["tx_id"] for line in handed(api, "transactions")
    }


def test_what_keeps_it_from_starting_is_one_line(start, bundle, tmp_path, api):
    for settings, message in (
        ({"model": tmp_path / "absent"}, "cannot be served"),
        ({}, "was not told which model"),
        ({"model": bundle.folder, "port": api.port}, "cannot listen"),
        ({"model": bundle.folder, "store": f"lmdb://{api.home}/store"}, "writes the online store"),
    ):
        broken = start(settings, ready=False)
        assert broken.process.wait(60) == 1
        lines = [line for line in broken.log.read_text().splitlines() if line]
        assert message in lines[-1]
        assert "Traceback" not in broken.log.read_text()


def test_rates_are_limited_per_token(strict, events):
    statuses = [
        score(strict, {"transactions": [events() for _ in range(300)]}).status for _ in range(6)
    ]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    refused = score(strict, {"transactions": [events() for _ in range(300)]})
    assert refused.data["code"] == "rate-limit"
    assert int(refused.headers["retry-after"]) >= 1
    assert score(strict, events(), token=SECRETS["admin"]).status == 200


def test_it_sheds_when_there_is_too_much_and_recovers(strict, events):
    api = strict
    began = threading.Barrier(64)

    def pour(part):
        with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
            began.wait()
            connection.sendall(b"".join(part))
            received = b""
            while received.count(b"HTTP/1.1 ") < len(part):
                received += connection.recv(65_536)
        return received

    answers, sent = b"", 0
    # On a busy machine one wave may find the service idle or turned away, and nothing between.
    for _ in range(5):
        wave = [request(events(), token="admin", close=False) for _ in range(64 * 30)]
        with ThreadPoolExecutor(64) as pool:
            answers += b"".join(pool.map(pour, [wave[i::64] for i in range(64)]))
        sent += len(wave)
        if b'"degraded":["no-' in answers:
            break
    shed = answers.count(b"HTTP/1.1 503")
    assert 0 < shed < sent
    assert answers.count(b"retry-after: 1") == shed
    assert b'"degraded":["no-' in answers
    time.sleep(0.2)
    calm = score(api, events(), token=SECRETS["admin"])
    assert calm.status == 200
    assert calm.data["degraded"] == []
    assert 'shed_total{why="load"}' in api.call("GET", "/metrics").body.decode()


def replace(folder, other):
    """Put another bundle in the place of one, as a publisher would."""
    draft = folder.with_name("draft")
    shutil.copytree(other, draft)
    old = folder.with_name("old")
    folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old)


def test_models_change_without_a_dropped_request(start, bundle, other_bundle, events, tmp_path):
    served = tmp_path / "served"
    shutil.copytree(bundle.folder, served)
    # A budget that no pause of a busy machine spends: what is degraded has a test of its own.
    api = start({"model": served, "challenger": other_bundle.folder, "budget_ms": 20_000})
    score(api, {"transactions": [events() for _ in range(40)]})
    event = events()
    first = score(api, event)
    comparison = get(api, "/v1/model").data["comparison"]
    assert comparison["compared"] + comparison["skipped"] == 41
    assert comparison["compared"] > 0
    assert comparison["champion"] == bundle.digest
    assert comparison["challenger"] == other_bundle.digest

    (served / "heads" / "tabular.onnx").rename(tmp_path / "kept")
    (served / "heads" / "tabular.onnx").write_bytes(b"rubbish")
    refused = admin(api, "POST", "/v1/model/reload")
    assert (refused.status, refused.data["code"]) == (409, "model-refused")
    assert "stays" in refused.data["fix"]
    assert score(api, events()).data["model"]["head"] == "tabular"
    assert "cannot be served" in get(api, "/v1/model").data["trouble"]

    stop, seen = threading.Event(), []

    def pour():
        while not stop.is_set():
            answer = score(api, events())
            seen.append((answer.status, answer.data.get("model", {}).get("head")))

    threads = [threading.Thread(target=pour) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    replace(served, other_bundle.folder)
    reloaded = admin(api, "POST", "/v1/model/reload")
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert reloaded.status == 200
    assert reloaded.data["changed"]
    assert reloaded.data["champion"]["digest"] == other_bundle.digest
    assert {status for status, _ in seen} == {200}
    assert {head for _, head in seen} == {"tabular", "logistic"}
    assert score(api, event).body == first.body, "what was answered stays"
    assert get(api, "/v1/rules").data["version"] == f"bundle-{other_bundle.digest[:12]}"
    assert admin(api, "POST", "/v1/model/reload").data["changed"] is False
    kept = get(api, "/v1/model").data["comparison"]["compared"]

    assert api.stop() == 0
    assert not list((api.home / "journal").rglob(".*.jsonl"))
    assert [line for line in api.log.read_text().splitlines() if "Traceback" in line] == []
    again = start({"model": served, "challenger": other_bundle.folder}, home=api.home)
    assert get(again, "/v1/model").data["comparison"]["compared"] >= kept


def test_a_store_that_fails_is_told_and_forgotten(api, events):
    """The journal's folder vanishes: nothing is counted, the client is told to come again."""
    assert score(api, events(customer="lucky")).status == 200
    pid = api.process.pid
    os.kill(pid, signal.SIGSTOP)
    folder = api.home / "journal" / "transactions"
    folder.rename(folder.with_name("away"))
    os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    event = events(customer="lucky")
    while (answer := score(api, event)).status == 200 and time.monotonic() < deadline:
        event = events(customer="lucky")
        time.sleep(0.1)
    assert (answer.status, answer.data["code"]) == (503, "not-kept")
    role = get(api, "/v1/entities/customer/lucky").data["roles"][0]
    count = role["transactions_ever"]
    folder.with_name("away").rename(folder)
    assert score(api, event).status == 200
    after = get(api, "/v1/entities/customer/lucky").data["roles"][0]["transactions_ever"]
    assert after == count + 1
