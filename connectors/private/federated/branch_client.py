"""A branch's door: connects to the coordinator, and answers until the training ends."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.api.server_settings import is_loopback
from connectors.private.federated.channel import Channel, ChannelError, Message, text_of
from connectors.private.federated.handshake import RefusedError, join
from connectors.private.federated.limits import HANDSHAKE_SECONDS, most_request
from tasks.privacy.federated.branch import Branch, Spending, session_of
from tasks.privacy.federated.branch_work import BranchWork
from tasks.privacy.federated.quantise import RangeError
from tasks.privacy.federated.records import ProtocolError, Request
from tasks.privacy.federated.roster import Roster

logger = logging.getLogger(__name__)

BEYOND = "a value of this branch lies beyond the limit of the plan; its own log says which"
"""What a coordinator is told of a refusal."""

RETRY_PAUSE = 0.2
"""Seconds between two attempts to connect."""


@dataclass(frozen=True, slots=True)
class CoordinatorAddress:
    """Where the coordinator is.

    Attributes:
        host: Address or name; anything but loopback needs ``authority``.
        port: Its port.
        authority: PEM file of the certificate that its certificate is signed by; None: no TLS.
        idle_seconds: Time without a request after which the connection counts as broken.
        retry_seconds: Time during which a lost connection is tried again.
    """

    host: str
    port: int
    authority: Path | None = None
    idle_seconds: float = 600.0
    retry_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if self.authority is None and not is_loopback(self.host):
            raise ValueError(
                f"coordinator {self.host!r} is reached over a network: set authority to the"
                " certificate that it is signed by"
            )
        if not (self.idle_seconds > 0 and self.retry_seconds > 0):
            raise ValueError("idle_seconds and retry_seconds must be positive")


class BranchClient:
    """One branch in one training."""

    def __init__(
        self,
        roster: Roster,
        work: BranchWork,
        identity: Ed25519PrivateKey,
        address: CoordinatorAddress,
        spending: Spending | None = None,
    ) -> None:
        self._roster, self._work, self._identity = roster, work, identity
        self._address, self._spending = address, spending
        self._nonce = b""
        self._branch: Branch | None = None
        self._most = most_request(work.plan, roster)

    def run(self) -> None:
        """Answer until the coordinator says that the training has ended.

        Raises:
            RefusedError: When the coordinator has another plan, or refuses this branch.
            ProtocolError: When it asks for what the plan does not have; it was told.
            RangeError: When a value is beyond what sums cover; it was told.
            ChannelError: When it cannot be reached for ``retry_seconds``.
        """
        deadline = time.monotonic() + self._address.retry_seconds
        while True:
            try:
                channel = self._connect()
            except ChannelError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_PAUSE)
                continue
            try:
                self._serve(channel)
            except ChannelError as error:
                logger.warning("connection lost (%s), trying again", error)
                deadline = time.monotonic() + self._address.retry_seconds
            else:
                return

    def _connect(self) -> Channel:
        address = (self._address.host, self._address.port)
        try:
            connection = socket.create_connection(address, HANDSHAKE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._address.authority is not None:
                context = ssl.create_default_context(cafile=self._address.authority)
                connection = context.wrap_socket(connection, server_hostname=self._address.host)
        except OSError as error:
            raise ChannelError(f"no coordinator at {address[0]}:{address[1]} ({error})") from error
        channel = Channel(connection)
        try:
            self._join(channel)
        except BaseException:
            channel.close()
            raise
        return channel

    def _join(self, channel: Channel) -> None:
        work = self._work
        nonce = join(
            channel, work.plan, self._roster, work.name, self._identity, seconds=HANDSHAKE_SECONDS
        )
        if self._branch is None:
            session = session_of(self._roster, work.plan, nonce)
            self._branch = Branch(self._roster, work, self._identity, session, self._spending)
            self._nonce = nonce
        elif nonce != self._nonce:
            raise RefusedError(
                "the coordinator began another training; start this branch anew to take part"
            )

    def _serve(self, channel: Channel) -> None:
        branch = self._branch
        assert branch is not None  # noqa: S101 - made in _join
        seconds = self._address.idle_seconds
        try:
            while True:
                message = channel.receive(most=self._most, seconds=seconds)
                if "end" in message.header:
                    logger.info("%s", text_of(message.header, "end"))
                    return
                try:
                    answer = branch.answer(_request(message))
                except ProtocolError as error:
                    channel.send(Message({"refused": str(error)[:1_000]}), seconds=seconds)
                    raise
                except RangeError:
                    # Which value it is tells of rows: that stays in this branch's own log.
                    channel.send(Message({"refused": BEYOND}), seconds=seconds)
                    raise
                channel.send(Message({"answer": True}, answer), seconds=seconds)
        finally:
            channel.close()


def _request(message: Message) -> Request:
    number = message.header.get("round")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 63:
        raise ProtocolError("a request has no number of a sum")
    stage, task = text_of(message.header, "stage", 32), text_of(message.header, "task", 32)
    return Request(stage, number, task, message.body)
