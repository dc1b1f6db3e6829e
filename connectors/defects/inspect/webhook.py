"""Results by HTTP POST, signed: one request a result, repeated until the receiver has it.

The header ``x-penstock-signature`` holds ``t=SECONDS,v1=HEX``, HEX being the HMAC-SHA-256 of
``SECONDS.BODY`` under the shared secret (RFC 2104); the time lets a receiver refuse old ones.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from connectors.defects.inspect.http_link import HttpLink, LinkError
from connectors.defects.inspect.journal import Result
from connectors.defects.inspect.sink import RefusedResultError, SinkError

SIGNATURE_HEADER = "x-penstock-signature"
REFUSALS = frozenset({400, 409, 413, 422})
"""Answers that say of this result that it will never be taken."""


class WebhookSink:
    """Posts JSON to one address."""

    batch = 1
    position = None

    def __init__(self, url: str, secret: str, *, seconds: float = 10.0) -> None:
        """Name the receiver.

        Raises:
            ConfigurationError: The address cannot be used.
        """
        self._link = HttpLink(url, seconds=seconds)
        # The name stands in reports and messages; queries differ by their hash alone.
        self.name = f"webhook:{self._link.url}"
        if query := urlsplit(url).query:
            self.name += f"?{hashlib.sha256(query.encode()).hexdigest()[:8]}"
        self._secret = secret.encode()

    def write(self, results: Sequence[Result]) -> None:
        """Post each result."""
        for result in results:
            body = json.dumps(result.body, ensure_ascii=False, allow_nan=False).encode()
            headers = {
                "content-type": "application/json",
                # The same for every repetition, another for every other result of any line: a
                # receiver that knows it has the result already.
                "idempotency-key": f"{result.body['journal']}-{result.event}",
                SIGNATURE_HEADER: signature(self._secret, body, int(time.time())),
            }
            try:
                answer = self._link.post("", body, headers)
            except LinkError as error:
                raise SinkError(str(error)) from error
            if answer.status in REFUSALS:
                raise RefusedResultError(answer.problem(), result.event)
            if not 200 <= answer.status < 300:
                raise SinkError(answer.problem(), answer.retry_after)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


def signature(secret: bytes, body: bytes, seconds: int) -> str:
    """Return the value of the signature header."""
    signed = hmac.new(secret, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={signed}"
