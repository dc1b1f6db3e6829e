"""Frames between two parties: one thread owns the TLS socket, sends what is due, reads what comes.

Reading never waits for writing, so two parties that both send much cannot block each other. A
thread that computes hands over frames and takes them; whatever goes wrong on the wire is raised
there.
"""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from connectors.private.joint.errors import (
    JointError,
    PeerGoneError,
    PeerRefusedError,
    PeerSilentError,
    TrustError,
    WireError,
)
from connectors.private.joint.frames import HEADER, LIMITS, Header, Kind, read_header, write_header
from connectors.private.joint.link import Link

Bytes = NDArray[np.uint8]

_LOG = logging.getLogger(__name__)
_MOST_WAITING = 256 << 20
_MOST_FRAMES = 4_096
"""Bytes and number of frames that nobody took yet, from which on no more is read."""
_IDLE_S = 1.0
_LINGER_S = 2.0
"""How long what the other side still sends is read away after a refusal, so that it is seen."""


class Channel:
    """A session's wire.

    Attributes:
        sent: Bytes of frames handed over, headers included.
        received: Bytes of frames that came.
    """

    def __init__(
        self, secured: ssl.SSLSocket, *, timeout_s: float, most: int, link: Link | None = None
    ) -> None:
        """Take a socket after its handshake.

        Args:
            secured: Owned by the channel from now on.
            timeout_s: How long to wait for a whole frame, for the other side to take one, and for
                what is left to be sent at the end.
            most: Most bytes of a step.
            link: Delays what is sent.
        """
        self.sent = self.received = 0
        self._socket, self._timeout_s, self._link = secured, timeout_s, link or Link()
        self._limits = LIMITS | {Kind.STEP: most}
        self._news = threading.Condition()
        self._inbox: deque[tuple[Kind, Bytes]] = deque()
        self._waiting = 0
        self._outbox: deque[tuple[float, memoryview, bool]] = deque()
        self._send_by = math.inf
        self._free, self._sequence, self._expected = 0.0, 0, 0
        self._failure: JointError | None = None
        self._closing = self._deaf = False
        self._header, self._kind = memoryview(bytearray(HEADER.size)), Kind.HELLO
        self._content: Bytes | None = None
        self._filled = 0
        self._bell, self._ear = socket.socketpair()
        for one in (self._bell, self._ear, secured):
            one.settimeout(0)
        self._thread = threading.Thread(target=self._run, name="joint-channel", daemon=True)
        self._thread.start()

    def send(self, kind: Kind, content: Bytes | bytes = b"") -> None:
        """Hand over a frame; returns at once.

        Raises:
            JointError: When the channel has failed.
        """
        with self._news:
            if self._failure:
                raise self._failure
            self._append(
                kind, memoryview(content.data if isinstance(content, np.ndarray) else content)
            )
        self._ring()

    def _append(self, kind: Kind, view: memoryview) -> None:
        """Put a frame where it is sent from."""
        header = write_header(Header(kind, len(view), self._sequence))
        self._sequence += 1
        size = len(header) + len(view)
        self._free = self._link.left(time.monotonic(), self._free, size)
        due = self._free + self._link.latency_s
        self._outbox.append((due, memoryview(header), not len(view)))
        if len(view) > 0:
            self._outbox.append((due, view, True))
        self.sent += size

    def receive(self, kind: Kind, size: int | None = None) -> Bytes:
        """Take the next frame.

        Args:
            kind: What it must be.
            size: Bytes that it must have; None: any that the kind allows.

        Raises:
            PeerSilentError: When none came whole in time, however many of its bytes did.
            WireError: When it is another.
            JointError: When the channel has failed.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._inbox or self._failure, self._timeout_s):
                raise PeerSilentError(
                    f"the other party sent nothing whole for {self._timeout_s:g} s; look whether it"
                    " runs, or raise timeout_s"
                )
            if self._failure and not self._inbox:
                raise self._failure
            found, content = self._inbox.popleft()
            self._waiting -= content.size
            full = (
                self._waiting + content.size >= _MOST_WAITING
                or len(self._inbox) >= _MOST_FRAMES - 1
            )
        if full:
            self._ring()
        if found != kind:
            raise WireError(f"{found.name} came where {kind.name} was due")
        if size is not None and content.size != size:
            raise WireError(f"{content.size} bytes came where {size} were due")
        return content

    def refuse(self, error: JointError) -> None:
        """Tell the other party of which kind the reason is, if it still listens; log all of it."""
        _LOG.warning("the session is refused (%s): %s", error.code, error)
        with contextlib.suppress(JointError):
            self.send(Kind.REFUSAL, _refusal(error))

    def close(self) -> None:
        """Send what is left, then close."""
        with self._news:
            self._closing = True
        self._ring()
        self._thread.join(self._timeout_s + _IDLE_S + _LINGER_S)
        if self._thread.is_alive():
            _LOG.warning("the channel did not close in time")
        self._bell.close()

    # What follows runs in the channel's own thread.

    def _run(self) -> None:
        with (
            contextlib.closing(self._socket),
            contextlib.closing(self._ear),
            self._watch() as watch,
        ):
            try:
                try:
                    self._serve(watch)
                except WireError as error:
                    self._fail(error)
                    self._turn_away(error)
                    self._serve(watch)
                self._leave()
            except JointError as error:
                self._fail(error)
            except ssl.SSLError as error:
                self._fail(_told(error))
            except OSError as error:
                self._fail(PeerGoneError(f"the connection broke ({error.strerror or error})"))

    @contextlib.contextmanager
    def _watch(self) -> Iterator[selectors.BaseSelector]:
        with selectors.DefaultSelector() as watch:
            watch.register(self._ear, selectors.EVENT_READ)
            watch.register(self._socket, selectors.EVENT_READ)
            yield watch

    def _serve(self, watch: selectors.BaseSelector) -> None:
        """Send and read until the channel is closed and nothing is left to send."""
        deadline = 0.0
        while True:
            now = time.monotonic()
            with self._news:
                closing, due = self._closing, self._outbox[0][0] if self._outbox else None
                readable = self._readable()
            if closing:
                deadline = deadline or now + self._timeout_s
                if due is None or now > deadline:
                    return
            ready = due is not None and due <= now
            wanted = selectors.EVENT_READ * readable | selectors.EVENT_WRITE * ready
            self._wish(watch, wanted)
            wait = _IDLE_S if due is None or ready else min(_IDLE_S, due - now)
            for key, _ in watch.select(wait):
                if key.fileobj is self._ear:
                    self._ear.recv(4096)
            # Both return at once where there is nothing to do; TLS may hold what the socket lacks.
            self._read()
            self._write()

    def _turn_away(self, error: WireError) -> None:
        """Read no more, send what is left and the reason, and close."""
        with self._news:
            self._deaf = self._closing = True
            self._append(Kind.REFUSAL, memoryview(_refusal(error)))

    def _readable(self) -> bool:
        """Whether there is room for more, and it is wanted."""
        few = self._waiting < _MOST_WAITING and len(self._inbox) < _MOST_FRAMES
        return few and not self._deaf

    def _wish(self, watch: selectors.BaseSelector, wanted: int) -> None:
        """Tell the selector what to wait for on the socket."""
        known = watch.get_map().get(self._socket)
        if known and not wanted:
            watch.unregister(self._socket)
        elif known and known.events != wanted:
            watch.modify(self._socket, wanted)
        elif wanted and not known:
            watch.register(self._socket, wanted)

    def _leave(self) -> None:
        """Say that no more comes, and read away what does: closing over it would undo our last."""
        end = time.monotonic() + _LINGER_S
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(1 << 16):
                    return

    def _write(self) -> None:
        while True:
            with self._news:
                if not self._outbox or self._outbox[0][0] > time.monotonic():
                    return
                due, view, last = self._outbox[0]
            now = time.monotonic()
            self._send_by = min(self._send_by, now + self._timeout_s)
            try:
                done = self._socket.send(view)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if now > self._send_by:
                    raise PeerSilentError(
                        f"the other party took no whole frame for {self._timeout_s:g} s; look"
                        " whether it runs, or raise timeout_s"
                    ) from None
                return
            with self._news:
                if done == len(view):
                    self._outbox.popleft()
                    self._send_by = math.inf if last else self._send_by
                else:
                    self._outbox[0] = (due, view[done:], last)

    def _read(self) -> None:
        while self._readable():
            target = self._header if self._content is None else self._content.data
            try:
                while self._filled < len(target):
                    count = self._socket.recv_into(target[self._filled :])
                    if not count:
                        raise PeerGoneError("the other party closed the connection")
                    self._filled += count
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self._filled = 0
            if self._content is None:
                self._begin()
            else:
                self._finish()

    def _begin(self) -> None:
        """Take a header; content of a checked length comes next."""
        self._kind, length, _ = read_header(self._header, self._expected, self._limits)
        self._expected += 1
        self._content = np.empty(length, np.uint8)
        if not length:
            self._finish()

    def _finish(self) -> None:
        """Put the frame where it is taken; a refusal ends the session after what came before it."""
        kind, content = self._kind, self._content
        self._content = None
        if content is None:
            return
        if kind == Kind.REFUSAL:
            code, _, sentence = content.tobytes().decode("utf-8", "replace").partition(":")
            raise PeerRefusedError(code, sentence)
        with self._news:
            self._inbox.append((kind, content))
            self._waiting += content.size
            self.received += HEADER.size + content.size
            self._news.notify_all()

    def _fail(self, error: JointError) -> None:
        with self._news:
            self._failure = self._failure or error
            self._news.notify_all()

    def _ring(self) -> None:
        """Wake the thread; a full pipe wakes it as well."""
        with contextlib.suppress(OSError):
            self._bell.send(b"!")


def _refusal(error: JointError) -> bytes:
    return f"{error.code}:{error.told}".encode()


def _told(error: ssl.SSLError) -> JointError:
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return PeerGoneError("the other party closed the connection")
    reason = error.reason or str(error)
    if "CERT" in reason or "UNKNOWN_CA" in reason:
        return TrustError(f"the other side does not trust our certificate ({reason})")
    return WireError(f"what came is no TLS ({reason})")
