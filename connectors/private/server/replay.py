"""No request counts twice: a window of time, and the nonces seen within it."""

from __future__ import annotations

from collections import deque

AHEAD_SECONDS = 5.0
"""How far another clock may be ahead."""


class ReplayError(ValueError):
    """A request is too old, from the future, or was seen before."""


class ReplayWindow:
    """Remembers what came within a window.

    Nonces are kept in memory. A server that starts knows none, so it takes no request that may have
    counted before: none that is dated before it started, or before the last of the server before
    it, whose clients' clocks may have been ahead.

    Attributes:
        opens: Requests dated after it are taken, seconds since 1970.
    """

    def __init__(self, seconds: float, started: float, before: float = 0.0) -> None:
        """Begin.

        Args:
            seconds: How old a request may be.
            started: When this server did, seconds since 1970.
            before: When the one before it did anything last; 0: there was none.
        """
        self._seconds = seconds
        self.opens = max(started, before + AHEAD_SECONDS)
        self._seen: set[str] = set()
        self._order: deque[tuple[float, str]] = deque()

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, key: str, nonce: str, made: float, now: float) -> None:
        """Note a request.

        Args:
            key: Whose it is.
            nonce: Its nonce.
            made: When it says it was made, seconds since 1970.
            now: Seconds since 1970.

        Raises:
            ReplayError: When it must not count.
        """
        if not -AHEAD_SECONDS <= now - made <= self._seconds:
            raise ReplayError(
                f"the request was made {now - made:.0f} s ago by your clock; {self._seconds:g} s"
                f" at most are taken, and {AHEAD_SECONDS:g} s ahead: set the clock, send it afresh"
            )
        if made <= self.opens:
            raise ReplayError("the request is older than this server; send it afresh")
        self._forget(now)
        name = f"{key}:{nonce}"
        if name in self._seen:
            raise ReplayError("this very request came before; send it afresh")
        self._seen.add(name)
        # One that is dated ahead can come again until it is too old by its own date.
        self._order.append((max(made, now) + self._seconds, name))

    def _forget(self, now: float) -> None:
        while self._order and self._order[0][0] < now:
            self._seen.discard(self._order.popleft()[1])
