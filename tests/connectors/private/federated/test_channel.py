"""Messages arrive whole, and what is none is refused before it is read."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time

import pytest

from connectors.private.federated.channel import (
    HEADER_BYTES,
    Channel,
    ChannelError,
    Message,
    hex_of,
    text_of,
)
from tests.connectors.private.federated.certificates import self_signed


@pytest.fixture
def secured(tmp_path):
    """A channel over TLS, and the socket at its other end."""
    certificate, key = self_signed(tmp_path)
    inner = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    inner.load_cert_chain(certificate, key)
    outer = ssl.create_default_context(cafile=certificate)
    ours, theirs = socket.socketpair()
    for one in (ours, theirs):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)
        one.settimeout(10)
    made = []
    greeting = threading.Thread(
        target=lambda: made.append(inner.wrap_socket(theirs, server_side=True))
    )
    greeting.start()
    sender = outer.wrap_socket(ours, server_hostname="127.0.0.1")
    greeting.join()
    yield Channel(sender), made[0]
    sender.close()
    made[0].close()


@pytest.fixture
def ends():
    """A channel, and the raw socket at its other end."""
    ours, theirs = socket.socketpair()
    yield Channel(ours), theirs
    ours.close()
    theirs.close()


def framed(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">II", len(header), len(body)) + header + body


class TestMessages:
    def test_arrive_as_sent(self, ends):
        channel, theirs = ends
        other = Channel(theirs)
        sent = Message({"stage": "values", "round": 3}, bytes(range(256)) * 40)
        sender = threading.Thread(target=other.send, args=(sent,), kwargs={"seconds": 5})
        sender.start()
        assert channel.receive(most=20_000, seconds=5) == sent
        sender.join()

    def test_a_size_beyond_the_limit_is_refused_unread(self, ends):
        channel, theirs = ends
        theirs.sendall(struct.pack(">II", 2, 1_001))
        with pytest.raises(ChannelError, match="longer than"):
            channel.receive(most=1_000, seconds=5)

    @pytest.mark.parametrize("header", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * HEADER_BYTES])
    def test_a_header_that_is_no_object_is_refused(self, ends, header):
        channel, theirs = ends
        theirs.sendall(framed(header))
        with pytest.raises(ChannelError, match="header of a message is no JSON"):
            channel.receive(most=0, seconds=5)

    def test_a_long_header_is_refused_on_both_sides(self, ends):
        channel, theirs = ends
        with pytest.raises(ValueError, match="longer than 8192"):
            channel.send(Message({"a": "b" * HEADER_BYTES}), seconds=1)
        theirs.sendall(framed(json.dumps({"a": "b" * HEADER_BYTES}).encode()))
        with pytest.raises(ChannelError, match="longer than"):
            channel.receive(most=0, seconds=5)

    def test_the_deadline_is_for_all_of_a_message(self, ends):
        """One byte now and then does not keep a reader waiting for ever."""
        channel, theirs = ends
        stop = threading.Event()

        def drip():
            for byte in framed(b'{"a": 1}', bytes(500)):
                if stop.wait(0.02):
                    return
                theirs.sendall(bytes([byte]))

        dripping = threading.Thread(target=drip)
        dripping.start()
        began = time.monotonic()
        with pytest.raises(ChannelError, match="no answer in time"):
            channel.receive(most=1_000, seconds=0.3)
        assert time.monotonic() - began < 2
        stop.set()
        dripping.join()

    def test_the_deadline_is_for_all_of_a_message_that_is_sent(self, secured):
        """One record now and then does not keep a sender waiting for ever, over TLS either."""
        channel, theirs = secured
        stop = threading.Event()

        def sip():
            until = time.monotonic() + 8
            # What the sender left unsent may be the half of a record, which no read ends.
            with contextlib.suppress(OSError):
                while not stop.wait(0.1) and time.monotonic() < until:
                    theirs.recv(1 << 14)

        sipping = threading.Thread(target=sip)
        sipping.start()
        began = time.monotonic()
        try:
            with pytest.raises(ChannelError, match="did not take a message in time"):
                channel.send(Message({}, bytes(8 << 20)), seconds=0.6)
            assert 0.5 < time.monotonic() - began < 3
        finally:
            stop.set()
            channel.close()
            sipping.join()

    def test_a_large_message_arrives_whole_over_tls(self, secured):
        channel, theirs = secured
        sent = Message({"a": 1}, bytes(range(256)) * 12_000)
        sender = threading.Thread(target=channel.send, args=(sent,), kwargs={"seconds": 10})
        sender.start()
        assert Channel(theirs).receive(most=4_000_000, seconds=10) == sent
        sender.join()

    def test_a_closed_connection_is_told(self, ends):
        channel, theirs = ends
        theirs.sendall(framed(b"{}", b"12345")[:-1])
        theirs.close()
        with pytest.raises(ChannelError, match="closed the connection"):
            channel.receive(most=10, seconds=5)
        with pytest.raises(ChannelError, match="could not be sent"):
            channel.send(Message({}, bytes(1_000_000)), seconds=1)


class TestFields:
    def test_are_checked(self):
        assert hex_of({"key": "00ff"}, "key", 2) == b"\x00\xff"
        for value in ("00", "00f", "zz00", None, 3, "0 0f"):
            with pytest.raises(ChannelError, match="'key' of a message"):
                hex_of({"key": value}, "key", 2)
        for value in (None, 3, "a" * 5):
            with pytest.raises(ChannelError, match="'name' of a message"):
                text_of({"name": value}, "name", 4)
