"""Talks to a scorer over HTTP, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from connectors.private.client.messages import OVERHEAD, REQUEST_TYPE
from connectors.private.client.offer import MOST_BYTES as MOST_OFFER
from connectors.private.client.offer import Offer
from connectors.private.client.registration import REGISTRATION_TYPE

TOKEN = "PENSTOCK_TOKEN"  # noqa: S105 - the name of a variable

_MOST_REPLY = 64 * 1024


class ScorerError(RuntimeError):
    """The scorer cannot be reached, or refuses.

    Attributes:
        status: HTTP status; 0: none came.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Scorer:
    """A scorer's address and the token that it knows.

    Attributes:
        url: ``https://HOST:PORT``; plain ``http`` only to this machine.
        token: Bearer token.
        authority: File of certificates to trust, instead of the system's.
        seconds: Longest wait for an answer.
    """

    url: str
    token: str
    authority: str = ""
    seconds: float = 120.0

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            ScorerError: When the token would travel in the clear.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ScorerError(f"{self.url!r} is no address; write https://HOST:PORT")
        if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
            raise ScorerError("a token does not travel in the clear; use https://")
        object.__setattr__(self, "token", self.token.strip())
        if self.token and not all("!" <= character <= "~" for character in self.token):
            raise ScorerError(f"the token holds characters that no token has; set {TOKEN}")
        if not self.token:
            raise ScorerError(f"the scorer asks for a token; set {TOKEN}")

    def __repr__(self) -> str:
        return f"Scorer({self.url!r})"

    def models(self) -> list[dict[str, Any]]:
        """Return what the scorer serves: name, digest, parameters of each."""
        found: list[dict[str, Any]] = json.loads(self._ask("GET", "/v1/encrypted/models"))["models"]
        return found

    def offer(self, name: str) -> Offer:
        """Return the offer of a model.

        Raises:
            OfferError: When what came is none.
        """
        path = f"/v1/encrypted/models/{quote(name, safe='')}"
        return Offer.from_json(self._ask("GET", path, most=MOST_OFFER).decode())

    def register(self, registration: bytes) -> dict[str, Any]:
        """Register a key; returns what the scorer noted."""
        said = self._ask("POST", "/v1/encrypted/keys", registration, REGISTRATION_TYPE)
        noted: dict[str, Any] = json.loads(said)
        return noted

    def revoke(self, key_id: str) -> dict[str, Any]:
        """End a key at once; returns what the scorer noted."""
        said = self._ask("POST", f"/v1/encrypted/keys/{quote(key_id, safe='')}/revoke", b"")
        noted: dict[str, Any] = json.loads(said)
        return noted

    def score(self, request: bytes, answer_bytes: int) -> bytes:
        """Send a request and return the answer.

        Args:
            request: Signed, as `Session.request` makes it.
            answer_bytes: Length of the ciphertexts that must come back.
        """
        most = answer_bytes + OVERHEAD
        return self._ask("POST", "/v1/encrypted/score", request, REQUEST_TYPE, most=most)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        most: int = _MOST_REPLY,
    ) -> bytes:
        headers = {"authorization": f"Bearer {self.token}"}
        if body is not None:
            headers["content-type"] = kind
        connection = self._connection()
        try:
            connection.request(method, path, body, headers)
            with connection.getresponse() as response:
                content = response.read(most + 1)
                status = response.status
        except (OSError, http.client.HTTPException) as error:
            raise ScorerError(f"{self.url} does not answer ({error})") from error
        finally:
            connection.close()
        if status >= 400:
            raise ScorerError(_told(content) or f"the scorer answers {status}", status)
        if len(content) > most:
            raise ScorerError(f"the answer has more than {most} bytes; nothing of it is used")
        return content

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=self.seconds)
        trusted = ssl.create_default_context(cafile=self.authority or None)
        return http.client.HTTPSConnection(host, parts.port, timeout=self.seconds, context=trusted)


def _told(content: bytes) -> str:
    """Return what a problem document says."""
    try:
        said = json.loads(content)
        text = f"{said['detail']}. {said.get('fix', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return ""
    return text
