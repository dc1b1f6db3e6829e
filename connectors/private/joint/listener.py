"""Waits for the pinned caller among any others: many handshakes at once, a deadline for each.

Who connects and says nothing takes one of a bounded number of places and holds up nobody: when all
are taken, the caller who came first goes. The pinned one needs its place for a few messages only.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import ssl
import time
from pathlib import Path

from connectors.private.joint.certificates import check_pinned
from connectors.private.joint.errors import JointError, PeerGoneError, TrustError

MOST_CALLERS = 64
"""Handshakes at once."""
HANDSHAKE_S = 5.0
"""How long one may take."""
_NO_PLACE_S = 0.05

_LOG = logging.getLogger(__name__)


def await_caller(
    listener: socket.socket, settings: ssl.SSLContext, peer: Path, timeout_s: float
) -> ssl.SSLSocket:
    """Return the first caller who shows the pinned certificate; turn all others away.

    Args:
        listener: Bound and listening; its timeout is changed.
        settings: TLS of the listening side.
        peer: The pinned certificate.
        timeout_s: How long to wait for the caller.

    Raises:
        TrustError: When nobody but others came in time.
        PeerGoneError: When nobody came in time, or a handshake broke.
    """
    lobby = _Lobby(settings, peer)
    deadline = time.monotonic() + timeout_s
    listener.settimeout(0)
    with contextlib.closing(lobby), selectors.DefaultSelector() as watch:
        lobby.watch = watch
        watch.register(listener, selectors.EVENT_READ)
        while (now := time.monotonic()) < deadline:
            for key, _ in watch.select(lobby.next_end(deadline) - now):
                if key.fileobj is listener:
                    lobby.admit(listener)
                elif isinstance(key.fileobj, ssl.SSLSocket) and lobby.proceed(key.fileobj):
                    return key.fileobj
            lobby.expire()
    host, port = listener.getsockname()[:2]
    raise lobby.last or PeerGoneError(
        f"nobody called {host}:{port} within {timeout_s:g} s; start the other party"
    )


class _Lobby:
    """Callers in their handshake, the one who came first before the others.

    Attributes:
        watch: Where their sockets are registered.
        last: Why the last caller was turned away.
    """

    watch: selectors.BaseSelector

    def __init__(self, settings: ssl.SSLContext, peer: Path) -> None:
        self.last: JointError | None = None
        self._settings, self._peer = settings, peer
        self._ends: dict[ssl.SSLSocket, float] = {}

    def next_end(self, deadline: float) -> float:
        """Return when the next handshake has had its time, at most a deadline."""
        return min(deadline, next(iter(self._ends.values()), deadline))

    def admit(self, listener: socket.socket) -> None:
        """Begin a caller's handshake; if all places are taken, the first caller goes."""
        try:
            raw, _ = listener.accept()
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                if self._ends:
                    self._dismiss(next(iter(self._ends)), broken(error))
                time.sleep(_NO_PLACE_S)  # the listener stays readable
            return  # else it was gone again before it was taken
        raw.settimeout(0)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            caller = self._settings.wrap_socket(
                raw, server_side=True, do_handshake_on_connect=False
            )
        except OSError as error:
            raw.close()
            self.last = broken(error)
            return
        if len(self._ends) >= MOST_CALLERS:
            self._dismiss(next(iter(self._ends)), PeerGoneError("too many callers say nothing"))
        self._ends[caller] = time.monotonic() + HANDSHAKE_S
        self.watch.register(caller, selectors.EVENT_READ)

    def proceed(self, caller: ssl.SSLSocket) -> bool:
        """Go on with a handshake; returns whether it is done, by whom is pinned."""
        if caller not in self._ends:  # dismissed in this very round
            return False
        try:
            caller.do_handshake()
            check_pinned(caller, self._peer)
        except ssl.SSLWantReadError:
            self.watch.modify(caller, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self.watch.modify(caller, selectors.EVENT_WRITE)
        except TrustError as error:
            self._dismiss(caller, error)
        except OSError as error:
            self._dismiss(caller, broken(error))
        else:
            self.watch.unregister(caller)
            del self._ends[caller]
            return True
        return False

    def expire(self) -> None:
        """Turn away whose handshake takes too long."""
        now = time.monotonic()
        for caller in [one for one, end in self._ends.items() if end <= now]:
            self._dismiss(caller, PeerGoneError(f"a caller's handshake took {HANDSHAKE_S:g} s"))

    def close(self) -> None:
        """Turn everybody away."""
        for caller in self._ends:
            caller.close()

    def _dismiss(self, caller: ssl.SSLSocket, error: JointError) -> None:
        _LOG.warning("a caller was turned away: %s", error)
        self.last = error
        self.watch.unregister(caller)
        del self._ends[caller]
        caller.close()


def broken(error: OSError) -> JointError:
    """Return what a handshake's error means."""
    if isinstance(error, ssl.SSLError):
        return TrustError(
            f"the other side is not who is pinned, or speaks no TLS 1.3 ({error.reason or error});"
            " exchange certificates anew"
        )
    return PeerGoneError(f"the handshake broke ({error.strerror or error})")
