"""Opens the channel between two parties: party 0 listens, party 1 calls, each checks the other."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from connectors.private.joint.certificates import check_pinned, context
from connectors.private.joint.channel import Channel
from connectors.private.joint.errors import (
    JointError,
    PeerGoneError,
    PeerRefusedError,
    TrustError,
)
from connectors.private.joint.link import LINKS
from tasks.privacy.shares.plan import Party

_LOG = logging.getLogger(__name__)
_RETRY_S = 0.05
_HANDSHAKE_S = 5.0
"""A caller that says nothing keeps the listener no longer than this."""


@dataclass(frozen=True)
class Door:
    """How a party meets the other.

    Attributes:
        party: 0 listens, 1 calls.
        certificate: The party's own.
        key: Its private key.
        peer_certificate: The other's, pinned.
        host: Address to listen at or to call.
        port: Port.
        timeout_s: How long to wait for the other party, to come and then for each message.
        link: Network that is simulated by delay: ``none``, ``lan`` or ``wan``.
    """

    party: Party
    certificate: Path
    key: Path
    peer_certificate: Path
    port: int
    host: str = "127.0.0.1"
    timeout_s: float = 30.0
    link: str = "none"

    def __post_init__(self) -> None:
        """Validate, naming the fix.

        Raises:
            ValueError: On a setting that cannot be.
        """
        if self.party not in {0, 1}:
            raise ValueError(f"party is 0 or 1, not {self.party!r}")
        if not 0 < self.port < 1 << 16:
            raise ValueError(f"port is 1 to 65535, not {self.port}")
        if not self.timeout_s > 0:
            raise ValueError("timeout_s must be positive")
        if self.link not in LINKS:
            raise ValueError(f"link is one of {list(LINKS)}, not {self.link!r}")


def open_channel(door: Door, most: int) -> Channel:
    """Meet the other party.

    Args:
        door: Where and whom.
        most: Most bytes of a step.

    Raises:
        TrustError: When the other side is not who is pinned.
        PeerGoneError: When nobody came in time.
    """
    secured = _listened(door) if door.party == 0 else _called(door)
    try:
        check_pinned(secured, door.peer_certificate)
    except TrustError:
        secured.close()
        raise
    return Channel(secured, timeout_s=door.timeout_s, most=most, link=LINKS[door.link])


@contextlib.contextmanager
def leaving(channel: Channel) -> Iterator[None]:
    """Tell the other party of our own errors, and close the channel in any case."""
    try:
        yield
    except PeerRefusedError:
        raise
    except JointError as error:
        channel.refuse(error)
        raise
    finally:
        channel.close()


def _listened(door: Door) -> ssl.SSLSocket:
    """Wait for the pinned caller; others are turned away and waiting goes on."""
    settings = context(door.certificate, door.key, door.peer_certificate, server=True)
    deadline = time.monotonic() + door.timeout_s
    last: JointError = PeerGoneError(
        f"nobody called {door.host}:{door.port} within {door.timeout_s:g} s; start the other party"
    )
    with socket.create_server((door.host, door.port)) as listener:
        while (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                raw, _ = listener.accept()
            except TimeoutError:
                break
            try:
                return _handshake(raw, settings, min(left, _HANDSHAKE_S), server=True)
            except JointError as error:
                last = error
                _LOG.warning("a caller was turned away: %s", error)
    raise last


def _called(door: Door) -> ssl.SSLSocket:
    settings = context(door.certificate, door.key, door.peer_certificate, server=False)
    deadline = time.monotonic() + door.timeout_s
    while True:
        left = max(deadline - time.monotonic(), _RETRY_S)
        try:
            raw = socket.create_connection((door.host, door.port), left)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise PeerGoneError(
                    f"{door.host}:{door.port} cannot be reached ({error.strerror or error}); start"
                    " party 0 first"
                ) from error
            time.sleep(_RETRY_S)
    return _handshake(raw, settings, left, server=False)


def _handshake(
    raw: socket.socket, settings: ssl.SSLContext, timeout_s: float, *, server: bool
) -> ssl.SSLSocket:
    raw.settimeout(timeout_s)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return settings.wrap_socket(raw, server_side=server)
    except ssl.SSLError as error:
        raise TrustError(
            f"the other side is not who is pinned, or speaks no TLS 1.3 ({error.reason or error});"
            " exchange certificates anew"
        ) from error
    except OSError as error:
        raise PeerGoneError(f"the handshake broke ({error.strerror or error})") from error
    finally:
        # A wrapped socket is detached from the raw one; one that was refused is not.
        with contextlib.suppress(OSError):
            raw.close()
