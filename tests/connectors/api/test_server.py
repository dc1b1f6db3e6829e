"""The API as a real process over real sockets."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.connectors.api.conftest import SECRETS

SCORE, LABELS = "/v1/score", "/v1/labels"


def score(api, event, **changes):
    return api.call("POST", SCORE, event, **{"token": SECRETS["scorer"]} | changes)


def admin(api, method, path, body=None):
    return api.call(method, path, body, token=SECRETS["admin"])


def get(api, path):
    return api.call("GET", path, token=SECRETS["reader"])


def raw(api, content, *, read=True, timeout=10.0):
    """Send bytes as they are; returns what comes back until the server closes or is quiet."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=timeout) as connection:
        connection.sendall(content)
        received = b""
        while read:
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                break
            if not data:
                break
            received += data
        return received


def request(event, *, token="scorer", extra="", path=SCORE, close=True):
    body = json.dumps(event).encode()
    end = "Connection: close\r\n" if close else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRETS[token]}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}{end}\r\n"
    )
    return head.encode() + body


def test_a_transaction_is_answered(api, events):
    event = events()
    answer = score(api, event, headers={"x-request-id": "mine-1"})
    assert answer.status == 200
    data = answer.data
    assert data["event_id"] == str(event["tx_id"])
    assert 0 <= data["score"] <= 1
    assert data["decision"] in ("approve", "review", "block")
    assert data["degraded"] == []
    assert data["reasons"] is not None
    assert data["request_id"] == answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers


def test_both_ways_give_the_same_bytes(api, events):
    event = events()
    first = score(api, event)
    padded = json.dumps(event).encode() + b" " * 10_000  # too long for the short way
    second = score(api, padded)
    assert second.status == 200
    assert second.body == first.body
    chunked = (
        f"POST {SCORE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRETS['scorer']}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    ).encode()
    body = json.dumps(event).encode()
    chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert raw(api, chunked).endswith(first.body)


def test_pipelined_requests_are_answered_in_order(api, events):
    sent = [events() for _ in range(6)]
    mixed = b"".join(
        request(event, close=False)
        if i % 2
        else request(event, close=False, extra="X-Padding: " + "y" * 50 + "\r\n")
        for i, event in enumerate(sent)
    )
    model = (
        f"GET /v1/model HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRETS['reader']}\r\n\r\n"
    )
    received = raw(api, mixed + model.encode() + request(sent[0]))
    assert received.count(b"HTTP/1.1 200 OK") == 8
    places = [received.index(f'"event_id":"{event["tx_id"]}"'.encode()) for event in sent]
    assert places == sorted(places)


def test_a_batch_is_answered_in_order_with_problems_in_place(api, events):
    sent = [events() for _ in range(150)]
    sent[3] = sent[3] | {"amount_cents": -1}
    sent[77] = "not an object"
    sent[90] = sent[10]
    answer = score(api, {"transactions": sent, "reasons": True})
    assert answer.status == 200
    made = answer.data["answers"]
    assert len(made) == 150
    assert made[3]["index"] == 3
    assert made[3]["problem"]["code"] == "negative-amount"
    assert made[77]["problem"]["code"] == "not-an-object"
    assert made[90] == made[10]
    assert [m["event_id"] for i, m in enumerate(made) if i not in (3, 77)] == [
        str(e["tx_id"]) for i, e in enumerate(sent) if i not in (3, 77)
    ]
    assert made[0]["reasons"] is not None
    again = score(api, {"transactions": [sent[0]]})
    assert again.data["answers"][0] == made[0]
    assert score(api, {"transactions": [events()]}).data["answers"][0]["reasons"] is None


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not-json"),
        (b"{", 400, "not-json"),
        (b"\xff\xfe", 400, "not-json"),
        (b"[]", 422, "not-an-object"),
        (b"null", 422, "not-an-object"),
        (b'"x"', 422, "not-an-object"),
        (b"{}", 422, "missing-time"),
        (b"[" * 3000, 400, "not-json"),
        (b'{"transactions": []}', 422, "empty-batch"),
        (b'{"transactions": {}}', 422, "empty-batch"),
        (b'{"transactions": [{}], "more": 1}', 422, "unknown-member"),
        (b'{"transactions": [{}], "reasons": "no"}', 422, "not-a-boolean"),
        (b'{"t": 1e999}', 400, "not-json"),
        (b'{"t": NaN}', 400, "not-json"),
    ],
)
def test_bodies_that_are_no_good(api, body, status, code):
    answer = score(api, body)
    assert (answer.status, answer.data["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.data["request_id"]


@pytest.mark.parametrize(
    ("change", "code", "where"),
    [
        ({"t": None}, "missing-time", "t"),
        ({"t": "soon"}, "unparsable-time", "t"),
        ({"t": 10**15}, "impossible-time", "t"),
        ({"t": -(10**10)}, "impossible-time", "t"),
        ({"amount_cents": None}, "missing-amount", "amount_cents"),
        ({"amount_cents": "much"}, "unparsable-amount", "amount_cents"),
        ({"amount_cents": -5}, "negative-amount", "amount_cents"),
        ({"amount_cents": 1.5}, "fractional-amount", "amount_cents"),
        ({"amount_cents": 10**17}, "overflow-amount", "amount_cents"),
        ({"customer": ""}, "missing-entity", "customer"),
        ({"customer": ["a"]}, "invalid-entity", "customer"),
        ({"terminal": "x" * 300}, "invalid-entity", "terminal"),
        ({"tx_id": None}, "missing-id", "tx_id"),
        ({"tx_id": 2**70}, "invalid-id", "tx_id"),
        ({"tx_id": True}, "invalid-id", "tx_id"),
    ],
)
def test_values_that_break_a_rule_are_named_by_it(api, events, change, code, where):
    answer = score(api, events() | change)
    assert answer.status == 422
    assert (answer.data["code"], answer.data["where"]) == (code, where)
    assert answer.data["detail"]
    assert answer.data["fix"]


def test_bad_bodies_become_dead_letters(api):
    mark = b'{"t": "mark of this test"}'
    score(api, mark)
    folder = api.home / "journal" / "dead-letters"
    deadline = time.monotonic() + 10
    records = []
    while time.monotonic() < deadline:
        records = [
            json.loads(line) for f in folder.glob("[!.]*") for line in f.read_bytes().splitlines()
        ]
        records = [r for r in records if base64.b64decode(r["payload"]) == mark]
        if records:
            break
        time.sleep(0.1)
    assert records[0]["rule"] == "unparsable-time"
    assert records[0]["source"] == SCORE
    assert records[0]["severity"] == "error"


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ("", 401, "unauthorised"),
        ("wrong-0123456789abcdefgh", 401, "unauthorised"),
        (SECRETS["reader"], 403, "forbidden"),
        (SECRETS["labeller"], 403, "forbidden"),
        (SECRETS["scorer"], 200, None),
        (SECRETS["admin"], 200, None),
    ],
)
@pytest.mark.parametrize("padding", [0, 10_000])
def test_scopes_of_scoring(api, events, token, status, code, padding):
    body = json.dumps(events()).encode() + b" " * padding
    answer = score(api, body, token=token)
    assert answer.status == status
    if code:
        assert answer.data["code"] == code
        assert "bearer" in answer.headers["www-authenticate"].lower()


@pytest.mark.parametrize(
    ("method", "path", "body", "scope"),
    [
        ("POST", LABELS, {}, "labeller"),
        ("GET", "/v1/model", None, "reader"),
        ("GET", "/v1/rules", None, "reader"),
        ("GET", "/v1/entities/customer/1", None, "reader"),
        ("PUT", "/v1/rules", {}, "admin"),
        ("POST", "/v1/model/reload", None, "admin"),
    ],
)
def test_scopes_of_everything_else(api, method, path, body, scope):
    for name, secret in {**SECRETS, "nobody": "nobody-0123456789abcdef"}.items():
        status = api.call(method, path, body, token=secret).status
        if name == "nobody":
            assert status == 401
        elif name in (scope, "admin"):
            assert status not in (401, 403)
        else:
            assert status == 403


def test_open_routes_need_no_token(api):
    for path in ("/health/live", "/health/ready", "/metrics", "/v1/openapi.json"):
        assert api.call("GET", path, token="").status == 200


def test_unknown_paths_and_methods(api):
    assert get(api, "/v2/score").data["code"] == "not-found"
    answer = api.call("DELETE", SCORE, token=SECRETS["admin"])
    assert (answer.status, answer.data["code"]) == (405, "method-not-allowed")
    assert "POST" in answer.headers["allow"]


def test_limits_on_what_arrives(api, events):
    large = {"transactions": [events() for _ in range(1_001)]}
    answer = score(api, large)
    assert (answer.status, answer.data["code"]) == (413, "too-many")
    padded = json.dumps(events()).encode() + b" " * 70_000
    assert score(api, padded).data["code"] == "too-large"
    huge = (
        f"POST {SCORE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRETS['scorer']}\r\n"
        "Content-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n"
    ).encode()
    assert b"413" in raw(api, huge).split(b"\r\n")[0]
    headers = b"GET /health/live HTTP/1.1\r\nX-Long: " + b"a" * 40_000
    assert b"431" in raw(api, headers).split(b"\r\n")[0]
    assert score(api, events(), headers={"content-type": "text/plain"}).status == 415
    encoded = score(api, events(), headers={"content-encoding": "gzip"})
    assert encoded.status == 415
    assert raw(api, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")


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


def test_labels_count_from_their_time(api, events):
    event = events(customer="labelled", terminal="labelled-terminal")
    score(api, event)
    answer = api.call(
        "POST", LABELS, {"tx_id": event["tx_id"], "fraud": 1}, token=SECRETS["labeller"]
    )
    assert answer.status == 200
    assert answer.data["status"] == "accepted"
    again = api.call(
        "POST", LABELS, {"tx_id": event["tx_id"], "fraud": 1}, token=SECRETS["labeller"]
    )
    assert again.data == answer.data | {"status": "repeated"}
    other = api.call(
        "POST", LABELS, {"tx_id": event["tx_id"], "fraud": 0}, token=SECRETS["labeller"]
    )
    assert (other.status, other.data["code"]) == (409, "label-in-use")
    waiting = get(api, "/v1/entities/customer/labelled").data["roles"][0]["labels"]["waiting"]
    assert len(waiting) == 1
    week = 8 * 86_400
    score(api, events(customer="labelled", terminal="other", t=event["t"] + week))
    role = get(api, "/v1/entities/customer/labelled").data["roles"][0]
    assert role["labels"]["waiting"] == []
    assert role["labels"]["last"] == "fraud"
    assert role["windows"][-1]["frauds_known"] == 1
    terminal = get(api, "/v1/entities/terminal/labelled-terminal").data["roles"][0]
    assert len(terminal["labels"]["waiting"]) == 1


def test_labels_of_events_scored_elsewhere_bring_their_entities(api, events):
    event = events(customer="elsewhere")
    label = {"tx_id": event["tx_id"], "fraud": True}
    answer = api.call("POST", LABELS, label, token=SECRETS["labeller"])
    assert (answer.status, answer.data["code"]) == (404, "unknown-event")
    whole = label | {"t": event["t"], "customer": "elsewhere", "terminal": "T"}
    assert api.call("POST", LABELS, whole, token=SECRETS["labeller"]).status == 200
    assert get(api, "/v1/entities/customer/elsewhere").status == 200


def test_a_batch_of_labels(api, events):
    sent = [events() for _ in range(3)]
    score(api, {"transactions": sent})
    labels = [{"tx_id": event["tx_id"], "fraud": 0} for event in sent]
    labels[1] = {"tx_id": 1, "fraud": 7}
    answer = api.call("POST", LABELS, {"labels": labels}, token=SECRETS["labeller"])
    statuses = [made.get("status") for made in answer.data["answers"]]
    assert statuses == ["accepted", None, "accepted"]
    assert answer.data["answers"][1]["index"] == 1


def test_an_entity_is_explained(api, events):
    sent = [events(customer="talkative", terminal=f"shop-{i}") for i in range(3)]
    score(api, {"transactions": sent, "reasons": True})
    told = get(api, "/v1/entities/customer/talkative").data
    role = told["roles"][0]
    assert role["transactions_ever"] == 3
    assert role["windows"][0]["transactions"] == 3
    assert role["windows"][0]["amount"] == sum(e["amount_cents"] for e in sent) / 100
    assert [e["event_id"] for e in role["recent"]] == [str(e["tx_id"]) for e in reversed(sent)]
    assert role["recent"][0]["answer"]["decision"]
    assert len(told["mailbox"]) == 3
    assert told["mailbox"][0]["counterpart"] == "terminal"
    assert told["summary"][0].startswith("3 transactions within 1 day, ")
    assert get(api, "/v1/entities/customer/never").data["code"] == "unknown-entity"
    assert get(api, "/v1/entities/boat/1").data["code"] == "unknown-kind"
    odd = events(customer="a/b c%d")
    score(api, odd)
    assert get(api, "/v1/entities/customer/a%2Fb%20c%25d").status == 200


def test_metrics_and_documents(api, events):
    score(api, events())
    text = api.call("GET", "/metrics").body.decode()
    assert 'penstock_api_requests_total{route="/v1/score",status="200"}' in text
    assert 'penstock_api_stage_seconds_count{stage="head"}' in text
    assert "new-" not in text, "no entity may be named"
    document = api.call("GET", "/v1/openapi.json").data
    assert set(document["paths"]) == {
        "/v1/score",
        "/v1/labels",
        "/v1/entities/{kind}/{entity}",
        "/v1/model",
        "/v1/rules",
        "/v1/model/reload",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
    transaction = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert "amount_cents" in json.dumps(transaction)


def test_nothing_personal_and_no_secret_reaches_the_log(api, events):
    score(api, events(customer="Jane-Doe-4711"))
    score(api, events(customer="Jane-Doe-4711") | {"amount_cents": "x"})
    log = api.log.read_text()
    assert "Jane-Doe" not in log
    assert not any(secret in log for secret in SECRETS.values())


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
    sent = [request(events(), token="admin", close=False) for _ in range(64 * 30)]
    began = threading.Barrier(64)

    def pour(part):
        with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
            began.wait()
            connection.sendall(b"".join(part))
            received = b""
            while received.count(b"HTTP/1.1 ") < len(part):
                received += connection.recv(65_536)
        return received

    with ThreadPoolExecutor(64) as pool:
        answers = b"".join(pool.map(pour, [sent[i::64] for i in range(64)]))
    shed = answers.count(b"HTTP/1.1 503")
    assert 0 < shed < len(sent)
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
    api = start({"model": served, "challenger": other_bundle.folder})
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
