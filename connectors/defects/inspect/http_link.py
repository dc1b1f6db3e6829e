"""A kept connection to one HTTP server, with bounded answers and one kind of failure."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from connectors.api.server_settings import is_loopback
from infra.errors import ConfigurationError

MAX_ANSWER = 4 * 2**20


class LinkError(RuntimeError):
    """The server was not reached, or broke off.

    Attributes:
        midway: Whether it was reached and broke off while it was sent to: it may dislike what was
            sent.
    """

    def __init__(self, message: str, *, midway: bool = False) -> None:
        super().__init__(message)
        self.midway = midway


class Answer(NamedTuple):
    """What a server said.

    Attributes:
        status: HTTP status.
        body: At most `MAX_ANSWER` bytes.
        retry_after: Seconds it asks to wait, 0 where it does not.
    """

    status: int
    body: bytes
    retry_after: float

    def document(self) -> dict[str, Any]:
        """Return the body as a JSON object, an empty one where it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def problem(self) -> str:
        """Return the failure in words."""
        detail = str(self.document().get("detail", ""))[:300]
        return f"HTTP {self.status}{f': {detail}' if detail else ''}"


class HttpLink:
    """One connection, opened when it is needed; used by one thread.

    Attributes:
        url: The address as it may be told: without its query.
    """

    def __init__(
        self, url: str, *, token: str = "", seconds: float = 30.0, secret: bool = False
    ) -> None:
        """Name the server.

        Args:
            url: ``https://HOST[:PORT][/PATH]``; ``http`` only for this machine where a token goes
                along or it is secret, for that must not travel in the clear.
            token: Bearer token, "" for none.
            seconds: Time for connecting and for each read.
            secret: Whether what is sent is not for others to see, as a token never is.

        Raises:
            ConfigurationError: The address cannot be used.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(f"{url!r} is no address", "Write https://HOST:PORT")
        if parts.username or parts.password:
            raise ConfigurationError("an address with a login", "Give the token by its variable")
        if (token or secret) and parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ConfigurationError(
                f"{url}: {'the token' if token else 'what is sent'} would travel in the clear",
                "Use https, or a tunnel",
            )
        if any(not " " < c <= "~" for c in token):
            raise ConfigurationError("the token holds other than plain characters", "Correct it")
        self.url = parts._replace(query="", fragment="").geturl()  # a query may hold a secret
        self._host, self._port, self._secure = parts.hostname, port, parts.scheme == "https"
        query = f"?{parts.query}" if parts.query else ""
        self._path = (parts.path if query else parts.path.rstrip("/")) + query
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._seconds = seconds
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a body and wait for the answer.

        Raises:
            LinkError: There was none.
        """
        midway, target = False, self._path + path or "/"
        try:
            connection = self._connected()
            if connection.sock is not None and _ended(connection.sock):
                self.close()
                connection = self._connected()
            if connection.sock is None:
                connection.connect()
            midway = True
            # A server that refuses a body early has often said why.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", target, body, self._headers | dict(headers))
            response = connection.getresponse()
            content = response.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            said = str(error) or type(error).__name__
            raise LinkError(f"{self.url}: {said}", midway=midway) from error
        except BaseException:
            self.close()
            raise
        if len(content) > MAX_ANSWER:
            self.close()
            raise LinkError(f"{self.url} answers with more than {MAX_ANSWER} bytes")
        if response.will_close:
            self.close()
        wait = response.headers.get("retry-after", "")
        return Answer(response.status, content, float(wait) if wait.isdigit() else 0.0)

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if self._secure:
                self._connection = http.client.HTTPSConnection(
                    self._host,
                    self._port,
                    timeout=self._seconds,
                    context=ssl.create_default_context(),
                )
            else:
                self._connection = http.client.HTTPConnection(
                    self._host, self._port, timeout=self._seconds
                )
        return self._connection


def _ended(connection: socket.socket) -> bool:
    """Tell whether the server has closed an idle connection: nothing else is to be read from it."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
