"""Who may pass, and how much: token, scope, rate, load and size, all before a body is parsed."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable
from itertools import count

from connectors.api.load_control import Level, LoadControl
from connectors.api.metrics import RequestMetrics
from connectors.api.problem import forbidden, overloaded, too_many, unauthorised
from connectors.api.rate_limit import RateLimiter
from connectors.api.tokens import Token, TokenBook

_ID_CHARACTERS = frozenset((string.ascii_letters + string.digits + "-_.:").encode())
MAX_REQUEST_ID = 64


class Gate:
    """Lets requests pass or says why not.

    Attributes:
        load: The load control.
    """

    def __init__(
        self,
        tokens: TokenBook,
        limiter: RateLimiter,
        load: LoadControl,
        metrics: RequestMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.load = load
        self._tokens, self._limiter, self._metrics = tokens, limiter, metrics
        self._clock = clock
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)

    def request_id(self, sent: bytes = b"") -> str:
        """Return the caller's request id if it is a plain one, else a new one."""
        if sent and len(sent) <= MAX_REQUEST_ID and _ID_CHARACTERS.issuperset(sent):
            return sent.decode("ascii")
        return f"{self._prefix}-{next(self._numbers):x}"

    def token(self, authorization: bytes, scope: str) -> Token:
        """Return the token that covers a scope.

        Raises:
            Problem: 401 or 403.
        """
        token = self._tokens.of_header(authorization) if authorization else None
        if token is None:
            raise unauthorised()
        if not token.allows(scope):
            raise forbidden(token.name, scope)
        return token

    def spend(self, token: Token, units: int) -> None:
        """Take units of a token's rate.

        Raises:
            Problem: 429.
        """
        seconds = self._limiter.take(token.name, units, self._clock())
        if seconds > 0:
            self._metrics.shed.add("rate")
            raise too_many(seconds)

    def admit(self) -> tuple[Level, float]:
        """Return what a request gets now and the seconds it has waited.

        Raises:
            Problem: 503 when there is too much to do.
        """
        wait = self.load.wait()
        level = self.load.level(wait)
        if level is Level.REFUSE:
            self._metrics.shed.add("load")
            raise overloaded()
        return level, wait
