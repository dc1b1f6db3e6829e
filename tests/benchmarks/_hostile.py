"""Requests that nobody should send: by hand, and valid ones with bytes turned over.

Every entry is a name and the bytes as they go over the wire. None of them may bring a server error,
a silence or the end of the process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

Wire = tuple[str, bytes]

VALID: dict[str, Any] = {
    "tx_id": 1,
    "t": 20_000_000,
    "customer": "c",
    "terminal": "t",
    "amount_cents": 100,
}
TEXTS = (
    "",
    " ",
    "\0",
    "\x00\x01\x02",
    "\ud800",
    "\u202e",
    "\ufeff",
    "a" * 300,
    "\N{PILE OF POO}" * 70,
    "../../../../etc/passwd",
    "'; DROP TABLE records; --",
    "<script>alert(1)</script>",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "%s%s%n",
    "\x1f",
    "a\x1fb",
    "\r\nSet-Cookie: a=b",
    "NaN",
    "Infinity",
    "-0",
    "1e400",
    "0x10",
    "null",
    "12.0",
    "+7",
    "\N{ARABIC-INDIC DIGIT THREE}",
)
NUMBERS = (
    0,
    -0.0,
    -1,
    0.1,
    1e-320,
    1e308,
    -1e308,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    2**64,
    10**15,
    10**30,
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [1], {"a": 1}, [[]], [None])


def hostile(token: str, seed: int, flips: int) -> Iterator[Wire]:
    """Yield the corpus, then ``flips`` damaged copies of valid requests."""
    yield from _framing(token)
    yield from _bodies(token)
    yield from _values(token)
    yield from _paths(token)
    yield from _damaged(token, seed, flips)


def post(path: str, body: bytes, token: str, *lines: str, length: int | None = None) -> bytes:
    """Return a request as it goes over the wire."""
    head = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
        *lines,
    ]
    return "\r\n".join(head).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


def _framing(token: str) -> Iterator[Wire]:
    good = json.dumps(VALID).encode()
    lines = "Host: x\r\nConnection: close\r\n"
    yield "no request", b"\r\n\r\n"
    yield "nul bytes", b"\0" * 64
    yield "tls hello", bytes.fromhex("16030100c8010000c40303") + b"\x11" * 190
    yield "http 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "http 0.9", b"GET /health/live\r\n\r\n"
    yield "http 9", f"GET /health/live HTTP/9.9\r\n{lines}\r\n".encode()
    yield "no method", b" / HTTP/1.1\r\n\r\n"
    yield "odd method", f"BREW /v1/score HTTP/1.1\r\n{lines}\r\n".encode()
    yield "connect", b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n"
    yield "absolute", f"GET http://evil.example/ HTTP/1.1\r\n{lines}\r\n".encode()
    yield (
        "upgrade",
        (
            b"GET /v1/score HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\n"
            b"Upgrade: websocket\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ),
    )
    yield "bare line feeds", b"GET /health/live HTTP/1.1\nHost: x\nConnection: close\n\n"
    yield "folded header", b"GET /health/live HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"
    yield "nul in header", b"GET /health/live HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n"
    yield "no colon", b"GET /health/live HTTP/1.1\r\nHost x\r\n\r\n"
    yield "long line", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"
    yield "long header", b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n"
    yield "many headers", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n"
    for value in ("-1", "+5", "0x10", "1e3", "99999999999999999999", "5, 5", "", " ", "5 5"):
        text = (
            f"POST /v1/score HTTP/1.1\r\n{lines}Authorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {value}\r\n\r\n"
        )
        yield f"content-length {value!r}", text.encode() + good
    yield "two lengths", post("/v1/score", good, token, "Content-Length: 3")
    yield "length and chunks", post("/v1/score", good, token, "Transfer-Encoding: chunked")
    yield "length too short", post("/v1/score", good, token, length=5)
    chunked = (
        f"POST /v1/score HTTP/1.1\r\n{lines}Authorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    for name, chunks in (
        ("negative", b"-5\r\nhello\r\n0\r\n\r\n"),
        ("huge", b"ffffffffffffffff\r\nx"),
        ("no size", b"\r\n\r\n"),
        ("letters", b"zz\r\nhello\r\n0\r\n\r\n"),
        ("extension", b"5;" + b"a" * 9_000 + b"\r\nhello\r\n0\r\n\r\n"),
        ("trailers", b"2\r\n{}\r\n0\r\nAuthorization: x\r\n\r\n"),
        ("one by one", b"".join(b"1\r\n%c\r\n" % byte for byte in good) + b"0\r\n\r\n"),
    ):
        yield f"chunks {name}", chunked + chunks
    yield "gzip", chunked.replace(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip") + good
    yield "expect", post("/v1/score", good, token, "Expect: 100-continue")
    yield "expect more", post("/v1/score", good, token, "Expect: a-miracle")
    for value in ("Bearer", "Bearer ", "Bearer \xff", "Basic Og==", "Bearer " + "a" * 9_000, ","):
        text = f"GET /v1/model HTTP/1.1\r\n{lines}Authorization: {value}\r\n\r\n"
        yield f"authorization {value[:12]!r}", text.encode("latin-1")
    for value in ("a" * 65, "\xff", "a b", '"', "{}", "../x"):
        yield f"request id {value[:8]!r}", post("/v1/score", good, token, f"X-Request-Id: {value}")


def _bodies(token: str) -> Iterator[Wire]:
    deep = 100_000
    bodies = {
        "nothing": b"",
        "not utf-8": b'{"tx_id":"\xff\xfe"}',
        "utf-16": json.dumps(VALID).encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + json.dumps(VALID).encode(),
        "deep lists": b"[" * 2_000,
        "deep objects": b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
        "deep and long": b"[" * deep + b"]" * deep,
        "long number": b'{"t":' + b"9" * 5_000 + b"}",
        "long key": b'{"' + b"k" * 7_000 + b'":1}',
        "same key twice": b'{"tx_id":1,"tx_id":2,"t":3,"t":4}',
        "lone surrogate": b'{"tx_id":"\\ud800","customer":"\\udfff"}',
        "escaped nul": b'{"tx_id":"\\u0000"}',
        "comment": b"{} // really",
        "two values": b"{}{}",
        "trailing comma": b'{"a":1,}',
        "single quotes": b"{'a':1}",
        "a word": b"true",
        "a number": b"1e999",
        "batch of batches": b'{"transactions":[{"transactions":[{}]}]}',
        "batch of nothing": b'{"transactions":[null,1,"",[],true]}',
        "wide batch": b'{"transactions":[' + b",".join([b"{}"] * 1_001) + b"]}",
        "many members": b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(800)) + b"}",
    }
    for path in ("/v1/score", "/v1/labels"):
        for name, body in bodies.items():
            yield f"{path} {name}", post(path, body, token)
    for name in ("nothing", "deep lists", "deep objects", "a word", "two values", "not utf-8"):
        put = post("/v1/rules", bodies[name], token)
        yield f"rules {name}", put.replace(b"POST ", b"PUT ", 1)


def _values(token: str) -> Iterator[Wire]:
    values: tuple[Any, ...] = (*TEXTS, *NUMBERS, *OTHERS)
    for member in VALID:
        for value in values:
            changed = {**VALID, "tx_id": 2, member: value}
            body = json.dumps(changed).encode()
            yield f"score {member}={value!r:.20}", post("/v1/score", body, token)
    for member in ("tx_id", "fraud", "label_time", "t", "customer"):
        for value in values:
            changed = {**VALID, "fraud": 1, member: value}
            yield (
                f"label {member}={value!r:.20}",
                post("/v1/labels", json.dumps(changed).encode(), token),
            )


def _paths(token: str) -> Iterator[Wire]:
    odd = (
        "/v1/score/",
        "/v1//score",
        "/v1/score?a=b",
        "/v1/score;a",
        "/v1/%73core",
        "/v1/score%00",
        "/../v1/score",
        "/v1/entities/customer/",
        "/v1/entities/customer/%ff",
        "/v1/entities/customer/%00",
        "/v1/entities/customer/" + "a" * 3_000,
        "/v1/entities/%ED%A0%80/1",
        "/v1/entities/customer/..%2f..%2f",
        "/v1/openapi.json?x=" + "y" * 5_000,
        "/ui/../../etc/passwd",
        "/ui/style.css/..",
        "/metrics/",
        "/%",
        "/%zz",
        "*",
        "//",
    )
    for path in odd:
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                "Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
            yield f"{method} {path[:30]}", head.encode()


def _damaged(token: str, seed: int, flips: int) -> Iterator[Wire]:
    rng = np.random.default_rng(seed)
    batch = json.dumps({"transactions": [VALID, VALID]}).encode()
    label = json.dumps({"tx_id": 1, "fraud": 1}).encode()
    whole = [
        post("/v1/score", json.dumps(VALID).encode(), token),
        post("/v1/score", batch, token),
        post("/v1/labels", label, token),
    ]
    for i in range(flips):
        content = bytearray(whole[i % len(whole)])
        for _ in range(int(rng.integers(1, 5))):
            place = int(rng.integers(0, len(content)))
            kind = int(rng.integers(0, 3))
            if kind == 0:
                content[place] = int(rng.integers(0, 256))
            elif kind == 1:
                del content[place : place + int(rng.integers(1, 9))]
            else:
                content[place:place] = rng.bytes(int(rng.integers(1, 9)))
        yield f"damaged {i}", bytes(content)
