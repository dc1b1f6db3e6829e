"""Who may talk to the page: this machine's browser, by the address that was printed.

The address holds a random token. Other sites that the browser shows do not know it, and cannot
learn it: a name of theirs that points here (DNS rebinding) is refused by the Host header, and what
changes anything must come from the page itself (Origin, and the token once more in the form).
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = Iterable[tuple[bytes, bytes]]
MIN_TOKEN = 20
MAX_QUERY = 8_192
MAX_DRAINED = 1 << 20
DRAIN_SECONDS = 5.0
TOKEN_SHAPE = re.compile(r"[A-Za-z0-9_-]{20,200}")

HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    # Not no-referrer: browsers would then hide the origin of our own forms.
    ("referrer-policy", "same-origin"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
)
"""On every answer; the page brings a policy of its own."""


def same(one: str, other: str) -> bool:
    """Compare two tokens in a time that tells nothing about where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


async def drain(receive: Receive) -> None:
    """Read what is left of a request's body, up to ``MAX_DRAINED`` bytes and ``DRAIN_SECONDS``.

    A connection that is closed with bytes unread is reset, and the sender may lose the answer.
    """
    left = MAX_DRAINED
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


class Guard:
    """Lets through what comes from the page's own address, and puts headers on every answer.

    Attributes:
        last: Monotonic second of the last request that was let through.
    """

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self.last = time.monotonic()
        self._app, self._token = app, token
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._headers = [(name.encode(), value.encode()) for name, value in HEADERS]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                own = [pair for pair in self._headers if pair[0] not in there]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        refused = self._refusal(scope)
        if refused is None:
            self.last = time.monotonic()
            await self._app(scope, receive, sending)
            return
        status, why = refused
        await drain(receive)
        body = f"{status.value} {status.phrase}: {why}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(body)).encode()))
        await sending({"type": "http.response.start", "status": status.value, "headers": headers})
        await sending({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        """Return why a request is not let through, None where it is."""
        host = _only(scope["headers"], b"host")
        if host is None or host not in self._hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, "this page has another address"
        token = scope["path"].removeprefix("/").partition("/")[0]
        if not same(token, self._token):
            return HTTPStatus.NOT_FOUND, "open the address that the command printed"
        if len(scope["query_string"]) > MAX_QUERY:
            return HTTPStatus.REQUEST_URI_TOO_LONG, "shorten the text that is looked for"
        if scope["method"] not in {"GET", "POST"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, "only GET and POST"
        if scope["method"] == "POST" and not _is_own(scope["headers"], host):
            return HTTPStatus.FORBIDDEN, "decisions are taken on the page itself only"
        return None


def _is_own(headers: Headers, host: str) -> bool:
    """Tell whether a form comes from this very page, as far as the browser says."""
    site = _only(headers, b"sec-fetch-site") or "same-origin"
    return _only(headers, b"origin") == f"http://{host}" and site == "same-origin"


def _only(headers: Headers, name: bytes) -> str | None:
    """Return the value of a header that occurs once."""
    values = [value for key, value in headers if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None
