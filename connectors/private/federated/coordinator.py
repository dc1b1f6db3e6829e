"""The coordinator's door: branches connect, prove who they are, and answer requests.

A branch whose connection breaks or that misses a deadline has left the sum; it may connect again
and takes part from the next sum on. A branch that refuses ends the training: it says why.
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from connectors.api.server_settings import is_loopback
from connectors.listener import bound_listener
from connectors.private.federated.channel import Channel, ChannelError, Message, text_of
from connectors.private.federated.handshake import RefusedError, admit, welcome
from connectors.private.federated.limits import HANDSHAKE_SECONDS, most_answer
from tasks.privacy.federated.branch import NONCE_BYTES
from tasks.privacy.federated.plan import TrainingPlan
from tasks.privacy.federated.records import Request
from tasks.privacy.federated.roster import Roster

logger = logging.getLogger(__name__)

MOST_HANDSHAKES = 16
ACCEPT_SECONDS = 0.25
"""How often the door looks whether it is to close: closing a socket wakes nobody who accepts."""


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """Where the coordinator listens, and how long it waits.

    Attributes:
        host: Address; anything but loopback needs a certificate.
        port: 0 for any free one.
        answer_seconds: Time for a branch to answer, training included.
        certificate: PEM file of the certificate chain; None: no TLS.
        key: PEM file of its private key.
    """

    host: str = "127.0.0.1"
    port: int = 0
    answer_seconds: float = 120.0
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.answer_seconds > 0:
            raise ValueError("coordinator.answer_seconds must be positive")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("coordinator.certificate and coordinator.key go together")
        if self.certificate is None and not is_loopback(self.host):
            raise ValueError(
                f"coordinator.host {self.host!r} can be reached from elsewhere: set certificate and"
                " key, or take 127.0.0.1"
            )


class Coordinator:
    """Accepts branches and puts requests to them. Use it as a context.

    Attributes:
        nonce: Name of this training, drawn anew for each.
    """

    def __init__(
        self, plan: TrainingPlan, roster: Roster, settings: CoordinatorSettings | None = None
    ) -> None:
        self._plan, self._roster = plan, roster
        self._settings = settings or CoordinatorSettings()
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self._channels: dict[int, Channel] = {}
        self._changed = threading.Condition()
        self._handshakes = threading.Semaphore(MOST_HANDSHAKES)
        self._closing = False
        self._most = most_answer(plan, roster)
        self._tls: ssl.SSLContext | None = None
        if self._settings.certificate is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(self._settings.certificate, self._settings.key)

    def __enter__(self) -> Self:
        self._listener = bound_listener(
            self._settings.host,
            self._settings.port,
            what="the coordinator",
            fix="Choose another port, or 0 for any free one",
        )
        self._listener.listen(MOST_HANDSHAKES)
        self._listener.settimeout(ACCEPT_SECONDS)
        self._pool = ThreadPoolExecutor(len(self._roster.names), "branch")
        self._accepting = threading.Thread(target=self._accept, name="coordinator", daemon=True)
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        word = "the training has ended" if error is None else "the training was given up"
        with self._changed:
            self._closing = True
            channels = dict(self._channels)
            self._channels.clear()
        for channel in channels.values():
            try:
                channel.send(Message({"end": word}), seconds=1.0)
            except ChannelError:
                logger.info("a branch was gone before the end")
            channel.close()
        self._accepting.join()
        self._listener.close()
        self._pool.shutdown()

    @property
    def port(self) -> int:
        """Port on which it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def present(self) -> list[int]:
        """Return the places of the branches that are connected."""
        with self._changed:
            return sorted(self._channels)

    def wait_for(self, count: int, seconds: float) -> list[int]:
        """Wait until so many branches are connected, and return their places.

        Raises:
            TimeoutError: When they do not come in time.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while len(self._channels) < count:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise TimeoutError(
                        f"{len(self._channels)} of {count} branches came within {seconds:g} s;"
                        f" missing: {self._missing()}"
                    )
            return sorted(self._channels)

    def ask(self, requests: Mapping[int, Request]) -> dict[int, bytes]:
        """Put requests to branches, to all at once.

        Returns:
            The answers, by place, of those that gave one in time.

        Raises:
            RefusedError: When a branch refuses.
        """
        places = list(requests)
        answers = list(self._pool.map(self._ask_one, places, requests.values()))
        both = zip(places, answers, strict=True)
        return {place: answer for place, answer in both if answer is not None}

    def _ask_one(self, place: int, request: Request) -> bytes | None:
        with self._changed:
            channel = self._channels.get(place)
        if channel is None:
            return None
        seconds = self._settings.answer_seconds
        header = {"stage": request.stage, "round": request.round, "task": request.task}
        try:
            channel.send(Message(header, request.body), seconds=seconds)
            answer = channel.receive(most=self._most, seconds=seconds)
        except ChannelError as error:
            self._drop(place, channel, f"{request.stage!r} of sum {request.round}: {error}")
            return None
        if answer.header.get("answer") is not True:
            name = self._roster.names[place]
            raise RefusedError(f"branch {name!r} refuses: {text_of(answer.header, 'refused')}")
        return answer.body

    def _drop(self, place: int, channel: Channel, why: str) -> None:
        with self._changed:
            if self._channels.get(place) is channel:
                del self._channels[place]
        channel.close()
        logger.warning("branch %r has left: %s", self._roster.names[place], why)

    def _accept(self) -> None:
        while not self._closing:
            self._handshakes.acquire()
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                self._handshakes.release()
                if not isinstance(error, TimeoutError):
                    logger.warning("no connection could be accepted: %s", error)
                    time.sleep(ACCEPT_SECONDS)  # out of file handles, most likely
                continue
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        """Let one connection prove who it is."""
        channel = Channel(connection)
        try:
            connection.settimeout(HANDSHAKE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                channel = Channel(self._tls.wrap_socket(connection, server_side=True))
            name = admit(channel, self._plan, self._roster, self.nonce, seconds=HANDSHAKE_SECONDS)
            self._let_in(self._roster.names.index(name), channel)
        except OSError as error:  # ChannelError and ssl.SSLError are ones
            logger.warning("a connection was refused: %s", error)
            channel.close()
        finally:
            self._handshakes.release()

    def _let_in(self, place: int, channel: Channel) -> None:
        welcome(channel, seconds=HANDSHAKE_SECONDS)
        with self._changed:
            if self._closing:
                channel.close()
                return
            # Who proves an identity again has lost its connection, though it may look alive here.
            before = self._channels.pop(place, None)
            self._channels[place] = channel
            self._changed.notify_all()
        if before is not None:
            before.close()

    def _missing(self) -> list[str]:
        return [name for i, name in enumerate(self._roster.names) if i not in self._channels]
