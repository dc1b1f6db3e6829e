"""Opens the channel between two parties: party 0 listens, party 1 calls, each checks the other."""

from __future__ import annotations

import contextlib
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
from connectors.private.joint.listener import await_caller, broken
from tasks.privacy.shares.plan import Party

_RETRY_S = 0.05


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
    settings = context(door.certificate, door.key, door.peer_certificate, server=True)
    with socket.create_server((door.host, door.port)) as listener:
        return await_caller(listener, settings, door.peer_certificate, door.timeout_s)


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
    raw.settimeout(left)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        secured = settings.wrap_socket(raw)
    except OSError as error:
        raise broken(error) from error
    finally:
        # A wrapped socket is detached from the raw one; one that was refused is not.
        with contextlib.suppress(OSError):
            raw.close()
    try:
        check_pinned(secured, door.peer_certificate)
    except TrustError:
        secured.close()
        raise
    return secured
