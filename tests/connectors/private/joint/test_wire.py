"""Channel, link and intersection over real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from connectors.private.joint.certificates import context, make_certificate, read_public_key
from connectors.private.joint.door import Door, open_channel
from connectors.private.joint.errors import JointError, PeerRefusedError, TrustError, WireError
from connectors.private.joint.frames import Kind
from connectors.private.joint.intersection import CHUNK_KEYS, run_intersection
from connectors.private.joint.link import Link
from connectors.private.joint.listener import HANDSHAKE_S, MOST_CALLERS
from connectors.private.joint.model_file import read_plan
from tasks.privacy.shares.intersect import KeyListError
from tasks.privacy.shares.plan import PlanError
from tests.connectors.private.joint.houses import both
from tests.processes import wait_for


def channels(houses, act, answer, **changes):
    """Open both ends and let each side act; returns what each ended with."""

    def side(door, does):
        channel = open_channel(door, 8 << 20)
        try:
            return does(channel)
        finally:
            channel.close()

    doors = houses.doors(**changes)
    return both(partial(side, doors[0], act), partial(side, doors[1], answer))


class TestChannel:
    def test_both_may_send_much_at_once(self, houses):
        """Forty megabytes each way before either reads: sockets alone would block."""
        sent = np.random.default_rng(0).integers(0, 256, 4 << 20, dtype=np.uint8)

        def floods(channel):
            for _ in range(10):
                channel.send(Kind.STEP, sent)
            return all((channel.receive(Kind.STEP) == sent).all() for _ in range(10))

        assert channels(houses, floods, floods) == [True, True]

    def test_what_is_sent_last_arrives_though_the_sender_leaves(self, houses):
        def leaves(channel):
            channel.send(Kind.STEP, b"x" * (8 << 20))

        def stays(channel):
            channel.send(Kind.STEP, b"y" * (8 << 20))  # which nobody reads
            time.sleep(0.2)
            return channel.receive(Kind.STEP).size

        assert channels(houses, leaves, stays)[1] == 8 << 20

    def test_a_refusal_arrives_though_nobody_reads_what_was_sent(self, houses):
        def refuses(channel):
            channel.refuse(WireError("no"))

        def sends(channel):
            for _ in range(5):
                channel.send(Kind.STEP, b"y" * (8 << 20))
            return channel.receive(Kind.STEP)

        ended = channels(houses, refuses, sends)[1]
        assert isinstance(ended, PeerRefusedError)
        assert ended.code == "wire"

    def test_a_slow_link_delays_by_latency_and_rate(self, houses):
        """Three frames of 250 kB at 100 Mbit/s: 60 ms to leave, 40 ms on the way."""

        def sends(channel):
            for _ in range(3):
                channel.send(Kind.STEP, b"x" * 250_000)

        def waits(channel):
            start = time.monotonic()
            for _ in range(3):
                channel.receive(Kind.STEP)
            return time.monotonic() - start

        took = channels(houses, sends, waits, link="wan")[1]
        assert took > 0.085  # less what passed before the first clock


class TestDoor:
    @pytest.mark.parametrize("strangers", [8, MOST_CALLERS + 16])
    def test_strangers_who_say_nothing_keep_nobody_out(self, houses, strangers):
        """They stay longer than the other party has to wait, and more than there are places."""
        doors = houses.doors()
        idle = []

        def called():
            wait_for(lambda: _connected(doors[0].port, idle))
            while len(idle) < strangers:
                assert _connected(doors[0].port, idle)
            start = time.monotonic()
            channel = open_channel(doors[1], 1)
            channel.send(Kind.DONE)
            channel.receive(Kind.DONE)
            took = time.monotonic() - start
            channel.close()
            return took

        def listens():
            channel = open_channel(doors[0], 1)
            found = channel.receive(Kind.DONE).size
            channel.send(Kind.DONE)
            channel.close()
            return found

        try:
            found, took = both(listens, called)
        finally:
            for one in idle:
                one.close()
        assert found == 0
        assert took < 2.0 < HANDSHAKE_S

    def test_others_are_turned_away_and_waiting_goes_on(self, houses, tmp_path):
        """One with another certificate, one who speaks no TLS, one who goes again at once."""
        doors = houses.doors()
        certificate, key = make_certificate(tmp_path, "house 1")
        stranger = replace(doors[1], certificate=certificate, key=key)
        raw = []

        def called():
            wait_for(lambda: _connected(doors[0].port, raw))
            raw[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
            _connected(doors[0].port, raw)
            raw[1].close()
            channel = open_channel(stranger, 1)  # TLS 1.3: refused after its own last message
            with pytest.raises(JointError):
                channel.receive(Kind.DONE)
            channel.close()
            open_channel(doors[1], 1).close()

        def listens():
            open_channel(doors[0], 1).close()

        try:
            assert both(listens, called) == [None, None]
        finally:
            raw[0].close()


def _connected(port, sockets):
    try:
        sockets.append(socket.create_connection(("127.0.0.1", port), 1))
    except OSError:
        return False
    return True


class TestLink:
    def test_frames_leave_one_after_the_other(self):
        link = Link(8e6, 0.5)
        first = link.left(10.0, 0.0, 1_000_000)
        assert first == pytest.approx(11.0)
        assert link.left(10.5, first, 500_000) == pytest.approx(11.5)
        assert link.left(20.0, first, 0) == 20.0
        assert Link().left(3.0, 0.0, 10**9) == 3.0

    def test_negative_numbers_are_refused(self):
        with pytest.raises(ValueError, match="at least 0"):
            Link(-1.0)


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"party": 2}, "party is 0 or 1"),
            ({"port": 0}, "1 to 65535"),
            ({"timeout_s": 0}, "timeout_s must be positive"),
            ({"link": "moon"}, "link is one of"),
        ],
    )
    def test_doors_name_the_fix(self, tmp_path, wrong, said):
        fields = {"party": 0, "port": 1} | wrong
        with pytest.raises(ValueError, match=said):
            Door(certificate=tmp_path, key=tmp_path, peer_certificate=tmp_path, **fields)

    def test_files_that_are_something_else_are_refused(self, houses, tmp_path):
        certificate, key = houses.certificates[0]
        with pytest.raises(TrustError, match="no public key"):
            read_public_key(certificate)
        with pytest.raises(TrustError, match="cannot be read"):
            context(certificate, key, tmp_path / "none.pem", server=True)
        (tmp_path / "plan.json").write_text("[]")
        with pytest.raises(PlanError, match="no plan or part"):
            read_plan(tmp_path / "plan.json")
        (tmp_path / "plan.json").write_text("{")
        with pytest.raises(PlanError, match="is no JSON"):
            read_plan(tmp_path / "plan.json")


class TestIntersection:
    def test_both_learn_the_common_rows_in_one_order(self, houses):
        mine = [f"customer {i}" for i in range(CHUNK_KEYS + 300)]
        theirs = [f"customer {i}" for i in range(CHUNK_KEYS, 100, -3)]
        doors = houses.doors(link="lan")
        one, other = both(
            partial(run_intersection, doors[0], mine), partial(run_intersection, doors[1], theirs)
        )
        found = [mine[i] for i in one.found.rows]
        assert found == [theirs[i] for i in other.found.rows]
        assert set(found) == set(theirs)
        assert one.found.alignment == other.found.alignment
        assert one.found.others == len(theirs)

    def test_a_key_listed_twice_is_refused_before_anything_is_sent(self, houses):
        with pytest.raises(KeyListError, match="rows 0 and 1"):
            run_intersection(houses.doors()[0], ["a", "a"])

    def test_empty_lists_are_refused_on_both_sides(self, houses):
        doors = houses.doors()
        found = both(
            partial(run_intersection, doors[0], []), partial(run_intersection, doors[1], ["a"])
        )
        assert {ended.code for ended in found} == {"agreement"}

    def test_points_of_small_order_end_it_on_both_sides(self, houses):
        doors = houses.doors()

        def cheats():
            channel = open_channel(doors[1], 1 << 20)
            try:
                hello = channel.receive(Kind.HELLO).tobytes()
                channel.send(Kind.HELLO, hello.replace(b'"party": 0', b'"party": 1'))
                channel.send(Kind.STEP, bytes(32))
                channel.receive(Kind.STEP)
                return channel.receive(Kind.STEP)
            finally:
                channel.close()

        one, other = both(partial(run_intersection, doors[0], ["a"]), cheats)
        assert isinstance(one, WireError)
        assert "small order" in str(one)
        assert isinstance(other, PeerRefusedError)


def test_parties_load_nothing_heavy():
    code = (
        "import sys, connectors.private.joint.party, connectors.private.joint.intersection\n"
        "print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
