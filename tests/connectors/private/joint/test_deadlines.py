"""Whoever sends drop by drop, or reads nothing, ends the session in time: one deadline per frame.

The other side is a bare TLS socket, or a bare one, that does what no party does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from connectors.private.joint.door import _called, open_channel
from connectors.private.joint.errors import PeerGoneError, PeerSilentError
from connectors.private.joint.frames import Header, Kind, write_header
from connectors.private.joint.listener import HANDSHAKE_S
from tests.connectors.private.joint.houses import both
from tests.processes import wait_for

TIMEOUT_S = 0.7


@pytest.fixture
def over():
    """Set when the other side is to stop."""
    event = threading.Event()
    yield event
    event.set()


def dripped(connection, content, over):
    """Send byte by byte until somebody ends it."""
    with contextlib.suppress(OSError):
        for byte in content:
            if over.wait(0.02):
                return
            connection.sendall(bytes([byte]))


def party(door, act, over):
    """Run a party; returns its error, and the seconds until then and until it has closed."""
    channel = open_channel(door, 64 << 20)
    start = time.monotonic()
    try:
        act(channel)
    except PeerSilentError as error:
        ended = time.monotonic() - start
        channel.close()
        return str(error), ended, time.monotonic() - start
    finally:
        over.set()
        channel.close()
    return "", 0.0, 0.0


def test_a_frame_that_comes_in_drops(houses, over):
    doors = houses.doors(timeout_s=TIMEOUT_S)

    def drips():
        with _called(doors[1]) as secured:
            dripped(secured, write_header(Header(Kind.STEP, 5_000, 0)) + bytes(5_000), over)

    said, ended, closed = both(
        lambda: party(doors[0], lambda channel: channel.receive(Kind.STEP), over), drips
    )[0]
    assert f"nothing whole for {TIMEOUT_S} s" in said
    assert ended < TIMEOUT_S + 0.5
    assert closed < 2 * TIMEOUT_S + 4


def test_a_side_that_sends_and_reads_nothing(houses, over):
    """Whole frames come in time, so that nobody waits in vain for one; ours are never taken."""
    doors = houses.doors(timeout_s=TIMEOUT_S)

    def chatters():
        with _called(doors[1]) as secured, contextlib.suppress(OSError):
            for number in range(1_000):
                secured.sendall(write_header(Header(Kind.STEP, 1, number)) + b"x")
                if over.wait(0.1):
                    return

    def listens(channel):
        channel.send(Kind.STEP, bytes(32 << 20))
        end = time.monotonic() + 10
        while time.monotonic() < end:
            channel.receive(Kind.STEP)

    said, ended, closed = both(lambda: party(doors[0], listens, over), chatters)[0]
    assert f"took no whole frame for {TIMEOUT_S} s" in said
    assert ended < TIMEOUT_S + 1.6
    assert closed < 2 * TIMEOUT_S + 4


def test_a_listener_whose_handshake_comes_in_drops(houses, over):
    door = houses.doors(timeout_s=TIMEOUT_S)[1]

    def answers():
        with socket.create_server((door.host, door.port)) as listener:
            listener.settimeout(10)
            connection, _ = listener.accept()
            with connection:
                dripped(connection, b"\x16\x03\x03\x40\x00\x02" + bytes(5_000), over)

    def calls():
        start = time.monotonic()
        with pytest.raises(PeerGoneError, match="handshake broke"):
            open_channel(door, 1)
        over.set()
        return time.monotonic() - start

    assert both(answers, calls)[1] < TIMEOUT_S + 1


def test_a_caller_whose_handshake_comes_in_drops(houses, over, caplog):
    """It has its place for so long and no longer, though its bytes go on coming."""
    door = houses.doors(timeout_s=HANDSHAKE_S + 1)[0]
    found = []

    def reached():
        with contextlib.suppress(OSError):
            found.append(socket.create_connection((door.host, door.port), 1))
        return found

    def calls():
        wait_for(reached)
        with found[0] as connection:
            dripped(connection, b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + bytes(5_000), over)

    def listens():
        with pytest.raises(PeerGoneError, match=f"handshake took {HANDSHAKE_S:g} s"):
            open_channel(door, 1)
        over.set()

    assert both(listens, calls) == [None, None]
    assert "was turned away" in caplog.text
