"""Sessions of two parties over TLS: right scores, and a typed refusal on both sides else."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import psutil
import pytest

from connectors.private.joint.certificates import make_certificate
from connectors.private.joint.channel import Channel
from connectors.private.joint.dealer import DealConfig, deal, make_dealer_key
from connectors.private.joint.door import open_channel
from connectors.private.joint.errors import (
    AgreementError,
    DealError,
    JointError,
    PeerGoneError,
    PeerRefusedError,
    PeerSilentError,
    TrustError,
    UsedTriplesError,
    WireError,
)
from connectors.private.joint.frames import Kind
from connectors.private.joint.ledger import Ledger
from connectors.private.joint.party import run_party
from tasks.privacy.encoding import RowError
from tasks.privacy.shares.compile import JointOptions, compile_joint
from tests.connectors.private.joint.houses import BATCH, both
from tests.tasks.privacy.models import made, rows

FIRST = ("x0", "x1", "x2")


@pytest.fixture(scope="module")
def joint():
    options = JointOptions(holder="shared", receivers="both")
    return compile_joint(made("linear"), FIRST, rows(300), options)


def session(configs, raw):
    """Run both parties; returns what each ended with."""
    return both(
        partial(run_party, configs[0], raw[:, :3]), partial(run_party, configs[1], raw[:, 3:])
    )


class TestScores:
    @pytest.mark.parametrize("reveal", ["score", "decision"])
    @pytest.mark.parametrize("kind", ["linear", "classes", "square"])
    def test_both_receive_what_the_model_gives(self, houses, kind, reveal):
        """Over several batches, the last one not full."""
        model, raw = made(kind), rows(10 * BATCH + 5)
        options = JointOptions("shared", reveal, "both", tolerance=1e-4)
        joint = compile_joint(model, FIRST, raw, options)
        one, other = session(houses.parties(joint, len(raw)), raw)
        np.testing.assert_array_equal(one.outcome, other.outcome)
        scores = model.score(raw)
        if reveal == "score":
            assert np.abs(one.outcome - scores).max() <= joint.proof.calibration
        else:
            sure = np.abs(scores) > joint.proof.calibration
            assert (one.outcome == (scores >= 0))[sure].all()
        assert (one.sent, one.received) == (other.received, other.sent)
        assert one.rows == len(raw)

    def test_who_is_not_to_receive_gets_nothing(self, houses):
        joint = compile_joint(made("linear"), FIRST, rows(50), JointOptions(receivers="party-1"))
        one, other = session(houses.parties(joint, 50), rows(50))
        assert one.outcome is None
        assert other.outcome.shape == (50, 1)

    def test_a_deal_serves_several_sessions_and_then_no_more(self, houses, joint):
        configs = houses.parties(joint, 3 * BATCH)
        firsts = [session(configs, rows(n))[0].first_batch for n in (BATCH + 1, 3)]
        assert firsts == [0, 2]
        for ended in session(configs, rows(1)):
            assert "deal again" in str(ended)
            assert ended.code == "deal"

    def test_a_crash_of_one_side_wastes_batches_and_uses_none_twice(self, houses, joint):
        configs = houses.parties(joint, 4 * BATCH)
        assert session(configs, rows(1))[0].first_batch == 0
        name = configs[0].ledger.read_text().split()[0]
        Ledger(configs[0].ledger).take(name, 1, 2)  # only this side knows
        assert [one.first_batch for one in session(configs, rows(1))] == [3, 3]

    def test_two_processes(self, houses, joint, tmp_path):
        raw = rows(100)
        configs = houses.parties(joint, 100, link="lan")
        processes = [
            start(config, tmp_path, raw[:, :3] if i == 0 else raw[:, 3:])
            for i, config in enumerate(configs)
        ]
        try:
            assert [process.wait(30) for process in processes] == [0, 0]
        finally:
            end(processes)
        for party in (0, 1):
            with np.load(tmp_path / f"out-{party}.npz", allow_pickle=False) as found:
                error = np.abs(found["outcome"] - made("linear").score(raw)).max()
            assert error <= joint.proof.calibration


def start(config, folder, raw):
    """Start a party as a process, in a group of its own."""
    party = config.door.party
    np.save(folder / f"rows-{party}.npy", raw)
    plain = dataclasses.asdict(config)
    settings = {
        **{name: value for name, value in plain.items() if name != "first_batch"},
        "task": "score",
        "input": folder / f"rows-{party}.npy",
        "output": folder / f"out-{party}.npz",
    }
    path = folder / f"settings-{party}.json"
    path.write_text(json.dumps(settings, default=str))
    command = [sys.executable, "-m", "connectors.private.joint", str(path)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


def end(processes):
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stderr.close()


class TestRefusals:
    """One side is set up for something else: both end, with the reason, long before a timeout."""

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"alignment": "of other customers"}, "alignment"),
            ({"first_batch": 1}, "asked_batch"),
        ],
    )
    def test_settings_that_differ(self, houses, joint, changes, field):
        configs = houses.parties(joint, BATCH)
        configs[1] = dataclasses.replace(configs[1], **changes)
        for ended in session(configs, rows(5)):
            assert isinstance(ended, AgreementError | PeerRefusedError)
            assert ended.code == "agreement"
            assert f"{field} differs" in str(ended)

    def test_another_model(self, houses, joint):
        other = compile_joint(
            made("linear", 1), FIRST, rows(300), JointOptions("shared", receivers="both")
        )
        configs = houses.parties(joint, BATCH), houses.parties(other, BATCH)
        mixed = [configs[0][0], dataclasses.replace(configs[1][1], door=configs[0][1].door)]
        for ended in session(mixed, rows(5)):
            assert ended.code == "agreement"
            assert "plan differs" in str(ended)
            assert "same plan file" in str(ended)

    def test_another_deal_of_the_same_model(self, houses, joint):
        configs = houses.parties(joint, BATCH), houses.parties(joint, BATCH)
        mixed = [configs[0][0], dataclasses.replace(configs[1][1], door=configs[0][1].door)]
        for ended in session(mixed, rows(5)):
            assert "deal differs" in str(ended)

    def test_other_rows(self, houses, joint):
        configs = houses.parties(joint, BATCH)
        found = both(
            partial(run_party, configs[0], rows(5)[:, :3]),
            partial(run_party, configs[1], rows(6)[:, 3:]),
        )
        assert all("rows differs" in str(ended) for ended in found)

    def test_the_other_partys_deal(self, houses, joint):
        one, other = houses.parties(joint, BATCH)
        with pytest.raises(DealError, match="party 0's"):
            run_party(dataclasses.replace(other, deal=one.deal), rows(5)[:, 3:])

    def test_used_batches_even_after_a_restart(self, houses, joint):
        configs = [
            dataclasses.replace(one, first_batch=0) for one in houses.parties(joint, 4 * BATCH)
        ]
        assert session(configs, rows(5))[0].rows == 5
        for ended in session(configs, rows(5)):
            assert isinstance(ended, UsedTriplesError | PeerRefusedError)
            assert ended.code == "used-triples"
            assert "batches 0 to 0" in str(ended)

    def test_a_ledger_restored_on_one_side_is_overruled_by_the_other(self, houses, joint):
        configs = houses.parties(joint, 4 * BATCH)
        session(configs, rows(5))
        configs[0].ledger.unlink()
        assert [one.first_batch for one in session(configs, rows(5))] == [1, 1]
        configs = [dataclasses.replace(one, first_batch=0) for one in configs]
        configs[0].ledger.unlink()
        assert {ended.code for ended in session(configs, rows(5))} == {"used-triples"}

    def test_rows_out_of_range_tell_the_other_side_no_more_than_that(self, houses, joint):
        raw = rows(5)
        raw[2, 4] = 1e9
        one, other = session(houses.parties(joint, BATCH), raw)
        assert isinstance(other, RowError)
        assert "row 2: x4" in str(other)
        assert one.code == "rows"
        assert "x4" not in str(one)

    def test_another_number_of_columns(self, houses, joint):
        configs = houses.parties(joint, BATCH)
        found = both(
            partial(run_party, configs[0], rows(5)[:, :3]),
            partial(run_party, configs[1], rows(5)),
        )
        assert found[0].code == "rows"
        assert isinstance(found[1], ValueError)
        assert "[n, 4]" in str(found[1])

    def test_no_rows(self, houses, joint):
        assert all("no rows" in str(end) for end in session(houses.parties(joint, 9), rows(0)))

    def test_a_stranger(self, houses, joint, tmp_path):
        certificate, key = make_certificate(tmp_path / "stranger", "house 1")
        configs = houses.parties(joint, BATCH, timeout_s=2.0)
        door = dataclasses.replace(configs[1].door, certificate=certificate, key=key)
        configs[1] = dataclasses.replace(configs[1], door=door)
        one, other = session(configs, rows(5))
        assert isinstance(one, TrustError)
        assert "not who is pinned" in str(one)
        assert isinstance(other, TrustError | PeerGoneError)

    def test_a_server_that_is_not_the_pinned_one(self, houses, joint, tmp_path):
        certificate, key = make_certificate(tmp_path / "stranger", "house 0")
        configs = houses.parties(joint, BATCH, timeout_s=2.0)
        door = dataclasses.replace(configs[0].door, certificate=certificate, key=key)
        configs[0] = dataclasses.replace(configs[0], door=door)
        one, other = session(configs, rows(5))
        assert isinstance(other, TrustError)
        assert isinstance(one, JointError)

    def test_a_key_that_others_can_read(self, houses, joint):
        configs = houses.parties(joint, BATCH)
        for path in (configs[0].part, configs[0].deal, configs[0].door.key):
            path.chmod(0o644)
            with pytest.raises(TrustError, match="chmod 600"):
                run_party(configs[0], rows(5)[:, :3])
            path.chmod(0o600)

    def test_nobody(self, houses, joint):
        one, other = houses.parties(joint, BATCH, timeout_s=0.3)
        with pytest.raises(PeerGoneError, match="start the other party"):
            run_party(one, rows(5)[:, :3])
        with pytest.raises(PeerGoneError, match="start party 0 first"):
            run_party(other, rows(5)[:, 3:])


class TestMisbehaviour:
    """The other side is trusted by its certificate and then does not follow the protocol."""

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
                channel._outbox.append((0.0, memoryview(header)))
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
        assert said in str(told[0])

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
        assert (ended.code, str(ended)) == ("deal", "the other party refused (deal): none left")

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


class TestDealFile:
    def test_a_changed_byte_anywhere_is_noticed(self, houses, joint):
        configs = houses.parties(joint, 2 * BATCH, timeout_s=1.0)
        path = configs[0].deal
        whole = path.read_bytes()
        for place in [0, 9, 40, len(whole) // 4, len(whole) - 8 * 2 * BATCH - 30]:
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(changed)
            with pytest.raises(DealError):
                run_party(configs[0], rows(5)[:, :3])

    def test_a_changed_batch_is_noticed_by_both(self, houses, joint):
        configs = houses.parties(joint, 2 * BATCH)
        with configs[0].deal.open("r+b") as file:
            file.seek(-5, os.SEEK_END)
            file.write(b"x")
        found = session(configs, rows(2 * BATCH))
        assert all("batch 1" in str(ended) and ended.code == "deal" for ended in found)

    @pytest.mark.parametrize("cut", [3, 30, 200, -1])
    def test_a_short_file_is_refused(self, houses, joint, cut):
        config = houses.parties(joint, BATCH)[0]
        whole = config.deal.read_bytes()
        config.deal.write_bytes(whole[:cut])
        with pytest.raises(DealError):
            run_party(config, rows(5)[:, :3])

    def test_a_missing_file_is_refused(self, houses, joint):
        config = houses.parties(joint, BATCH)[0]
        config.deal.unlink()
        with pytest.raises(DealError, match="fetch the file from the dealer"):
            run_party(config, rows(5)[:, :3])

    def test_another_dealer_is_refused(self, houses, joint, tmp_path):
        config = houses.parties(joint, BATCH)[0]
        other, _ = make_dealer_key(tmp_path)
        with pytest.raises(DealError, match="not signed by the dealer"):
            run_party(dataclasses.replace(config, dealer_key=other), rows(5)[:, :3])

    def test_deals_are_never_written_over(self, houses, joint, tmp_path):
        config = DealConfig(joint.plan, houses.dealer_keys[1], tmp_path, 5, batch_rows=BATCH)
        dealt = deal(config)
        assert dealt.rows == BATCH
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in dealt.files)
        with pytest.raises(DealError, match="is there already"):
            deal(config)

    @pytest.mark.parametrize("wrong", [{"rows": 0}, {"batch_rows": 0}, {"dealer": "x" * 101}])
    def test_settings_name_the_fix(self, joint, tmp_path, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DealConfig(joint.plan, tmp_path, tmp_path, **{"rows": 1} | wrong)
