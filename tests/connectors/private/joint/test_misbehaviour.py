"""A party whose certificate is right and whose messages are not."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial

import psutil
import pytest

from connectors.private.joint.channel import Channel
from connectors.private.joint.door import open_channel
from connectors.private.joint.errors import (
    AgreementError,
    DealError,
    JointError,
    PeerGoneError,
    PeerRefusedError,
    PeerSilentError,
    WireError,
)
from connectors.private.joint.frames import Kind
from connectors.private.joint.party import run_party
from tests.connectors.private.joint.houses import BATCH, both, end, start
from tests.tasks.privacy.models import rows


class TestMisbehaviour:
    """Party 0 ends with a typed error, at once, whatever the other side does."""

    def met(self, houses, joint, act, n=5, **changes):
        """Run party 0 against a peer that says hello and then acts; returns how party 0 ended."""
        configs = houses.parties(joint, 4 * BATCH, **changes)

        def peer():
            channel = open_channel(configs[1].door, 1 << 20)
            try:
                hello = json.loads(channel.receive(Kind.HELLO).tobytes())
                act(channel, {**hello, "party": 1})
            finally:
                channel.close()

        started = time.monotonic()
        ended = both(partial(run_party, configs[0], rows(n)[:, :3]), peer)[0]
        assert time.monotonic() - started < 8
        return ended

    @staticmethod
    def said(channel: Channel, hello) -> None:
        channel.send(Kind.HELLO, json.dumps(hello).encode())

    def test_it_goes(self, houses, joint):
        ended = self.met(houses, joint, self.said)
        assert isinstance(ended, PeerGoneError)

    def test_it_falls_silent(self, houses, joint):
        def act(channel, hello):
            self.said(channel, hello)
            time.sleep(2)

        ended = self.met(houses, joint, act, timeout_s=0.7)
        assert isinstance(ended, PeerSilentError)
        assert "0.7 s" in str(ended)

    @pytest.mark.parametrize(
        ("header", "said"),
        [
            (b"PJ\x01\x02\xff\xff\xff\xff" + b"\x01" + bytes(7), "4294967295 bytes came; STEP may"),
            (b"PJ\x01\x01\x00\x20\x00\x00" + b"\x01" + bytes(7), "8192 bytes came; HELLO may"),
            (b"PJ\x01\x02\x01\x00\x00\x00" + b"\x05" + bytes(7), "frame 5 came where frame 1"),
            (b"PJ\x01\x02\x01\x00\x00\x00" + b"\x00" + bytes(7), "frame 0 came where frame 1"),
            (b"PJ\x01\x09\x01\x00\x00\x00" + b"\x01" + bytes(7), "unknown kind 9"),
            (b"PJ\x02\x02\x01\x00\x00\x00" + b"\x01" + bytes(7), "update the older side"),
            (b"GET / HTTP/1.1\r\n", "no frame of this protocol"),
        ],
    )
    def test_it_sends_frames_that_are_none(self, houses, joint, header, said):
        def act(channel, hello):
            self.said(channel, hello)
            with channel._news:
                channel._outbox.append((0.0, memoryview(header), True))
            channel._ring()
            try:
                while True:  # what was sent before it noticed
                    channel.receive(Kind.STEP)
            except JointError as error:
                told.append(error)

        told = []
        ended = self.met(houses, joint, act)
        assert isinstance(ended, WireError)
        assert said in str(ended)
        assert isinstance(told[0], PeerRefusedError)
        assert told[0].code == "wire"
        assert str(told[0]) == f"the other party refused (wire): {WireError.told}"

    def test_it_floods_with_empty_frames(self, houses, joint):
        """They wait in the socket and not in memory; the session ends at the first one."""

        def act(channel, hello):
            self.said(channel, hello)
            for _ in range(20_000):
                channel.send(Kind.DONE)
            time.sleep(0.3)

        assert "DONE came where STEP was due" in str(self.met(houses, joint, act))

    def test_a_long_frame_takes_no_memory(self, houses, joint):
        before = psutil.Process().memory_info().rss
        header = b"PJ\x01\x02\xff\xff\xff\xff" + b"\x01" + bytes(7)
        self.test_it_sends_frames_that_are_none(houses, joint, header, "4294967295")
        assert psutil.Process().memory_info().rss - before < 512 << 20

    def test_it_sends_another_length_than_is_due(self, houses, joint):
        def act(channel, hello):
            self.said(channel, hello)
            channel.send(Kind.STEP, b"12345")
            time.sleep(0.3)

        assert "5 bytes came where" in str(self.met(houses, joint, act))

    def test_it_ends_too_early(self, houses, joint):
        def act(channel, hello):
            self.said(channel, hello)
            channel.send(Kind.DONE)
            time.sleep(0.3)

        assert "DONE came where STEP was due" in str(self.met(houses, joint, act))

    @pytest.mark.parametrize(
        "change",
        [{"rows": "5"}, {"rows": None}, {"plan": "x" * 200}, {"new": 1}, {"next_batch": True}],
    )
    def test_its_hello_is_none(self, houses, joint, change):
        ended = self.met(houses, joint, lambda c, hello: self.said(c, {**hello, **change}))
        assert isinstance(ended, WireError)
        assert "hello" in str(ended)

    def test_it_says_to_be_the_same_party(self, houses, joint):
        ended = self.met(houses, joint, lambda c, hello: self.said(c, {**hello, "party": 0}))
        assert isinstance(ended, AgreementError)
        assert "both sides are party 0" in str(ended)

    def test_its_hello_is_nonsense(self, houses, joint):
        for content in (b"\xff\xfe", b"[" * 4_000, b"3", b""):
            ended = self.met(houses, joint, lambda c, _, sent=content: c.send(Kind.HELLO, sent))
            assert isinstance(ended, WireError)

    @pytest.mark.parametrize("batch", [-1, 4, 2**62])
    def test_it_claims_batches_that_are_not_there(self, houses, joint, batch):
        ended = self.met(
            houses, joint, lambda c, hello: self.said(c, {**hello, "next_batch": batch})
        )
        assert isinstance(ended, DealError if batch > 0 else PeerGoneError)

    def test_its_refusal_is_told(self, houses, joint):
        def act(channel, hello):
            channel.refuse(DealError("none left"))

        ended = self.met(houses, joint, act)
        assert isinstance(ended, PeerRefusedError)
        assert ended.code == "deal"
        assert str(ended) == f"the other party refused (deal): {DealError.told}"

    def test_what_it_says_is_shown_printable_and_short(self, houses, joint):
        def act(channel, hello):
            channel.send(Kind.REFUSAL, f"de\x1b]0;al:\x1b[2J\u202e{'long ' * 90}".encode())

        ended = self.met(houses, joint, act)
        assert isinstance(ended, PeerRefusedError)
        assert ended.code == "de?]0;al"
        assert "?[2J?long long" in str(ended)
        assert len(str(ended)) < 260

    def test_settings_that_it_names_are_shown_printable(self, houses, joint):
        ended = self.met(
            houses, joint, lambda c, hello: self.said(c, {**hello, "plan": "\u00e9\x1b[2J"})
        )
        assert isinstance(ended, AgreementError)
        assert r"'?\x1b[2J' there" in str(ended)

    def test_its_process_is_killed(self, houses, joint, tmp_path):
        """Over a slow link, so that it dies in the middle; the other side ends with the reason."""
        raw = rows(3_000)
        configs = houses.parties(joint, 3_000, link="wan")
        process = start(configs[1], tmp_path, raw[:, 3:])
        used = configs[1].ledger

        def killed():
            deadline = time.monotonic() + 20
            while not used.exists() or not used.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)

        try:
            ended = both(partial(run_party, configs[0], raw[:, :3]), killed)[0]
        finally:
            end([process])
        assert isinstance(ended, PeerGoneError)
