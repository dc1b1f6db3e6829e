"""The API as a real process over real sockets: what is answered to whom."""

from __future__ import annotations

import base64
import json
import socket
import time

import pytest

from tests.connectors.api.calls import LABELS, SCORE, get, raw, request, score
from tests.connectors.api.conftest import SECRETS


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
    charset = {"content-type": "application/json; charset=utf-8"}
    assert score(api, events(), headers=charset).status == 200
    encoded = score(api, events(), headers={"content-encoding": "gzip"})
    assert encoded.status == 415
    assert raw(api, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_a_request_behind_the_end_of_another_may_be_large(api):
    """One whose head came with another's end, as after an early answer: its body is no head."""
    head = (
        f"POST {SCORE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: {}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as held:
        held.sendall(head.format(2).encode() + b"{}" + head.format(40_000).encode())
        time.sleep(0.2)  # what follows arrives by itself
        held.sendall(b" " * 40_000)
        held.shutdown(socket.SHUT_WR)
        answers = b""
        while data := held.recv(65_536):
            answers += data
    assert answers.count(b"HTTP/1.1 401") == 2
    assert b"431" not in answers


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
        "/v1/explain",
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
