"""Logins of the page: a random cookie stands for a token for a few hours, in memory alone."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import NamedTuple

MAX_SESSIONS = 1_000
COOKIE = "penstock_session"


class Session(NamedTuple):
    """A login.

    Attributes:
        name: Name of the token.
        expires: Monotonic second at which it ends.
    """

    name: str
    expires: float


class Sessions:
    """Every login; the oldest goes when there are too many."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._open: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, name: str) -> str:
        """Return the cookie's value of a new login."""
        self._drop_old()
        if len(self._open) >= MAX_SESSIONS:
            self._open.pop(next(iter(self._open)))
        value = secrets.token_urlsafe(32)
        self._open[_key(value)] = Session(name, self._clock() + self.seconds)
        return value

    def find(self, value: str) -> Session | None:
        """Return the login of a cookie, None when it is unknown or over."""
        session = self._open.get(_key(value)) if value else None
        if session is None or session.expires <= self._clock():
            return None
        return session

    def end(self, value: str) -> None:
        """End a login."""
        self._open.pop(_key(value), None)

    def _drop_old(self) -> None:
        now = self._clock()
        for key in [k for k, s in self._open.items() if s.expires <= now]:
            del self._open[key]


def _key(value: str) -> bytes:
    """Hash a cookie, so that looking it up tells nothing about those that exist."""
    return hashlib.sha256(value.encode()).digest()
