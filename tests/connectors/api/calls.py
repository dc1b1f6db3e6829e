"""Requests as tests send them: through a client, or as bytes over a socket."""

from __future__ import annotations

import json
import socket

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
