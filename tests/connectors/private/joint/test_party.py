"""Sessions of two parties over TLS: right scores, and a typed refusal on both sides else."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from connectors.private.joint.certificates import make_certificate
from connectors.private.joint.errors import (
    AgreementError,
    DealError,
    JointError,
    PeerGoneError,
    PeerRefusedError,
    TrustError,
    UsedTriplesError,
)
from connectors.private.joint.ledger import Ledger
from connectors.private.joint.party import run_party
from infra.errors import ConfigurationError
from tasks.privacy.encoding import RowError
from tasks.privacy.shares.compile import JointOptions, compile_joint
from tests.connectors.private.joint.houses import BATCH, FIRST, both, end, session, start
from tests.tasks.privacy.models import made, rows


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


class TestRefusals:
    """One side is set up for something else: both end, with the reason, long before a timeout."""

    def test_settings_that_differ(self, houses, joint):
        configs = houses.parties(joint, BATCH)
        configs[1] = dataclasses.replace(configs[1], first_batch=1)
        for ended in session(configs, rows(5)):
            assert isinstance(ended, AgreementError | PeerRefusedError)
            assert ended.code == "agreement"
            assert "asked_batch differs" in str(ended)

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
            assert ("batches 0 to 0" in str(ended)) == isinstance(ended, UsedTriplesError)

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
            with pytest.raises(ConfigurationError, match="chmod 600"):
                run_party(configs[0], rows(5)[:, :3])
            path.chmod(0o600)

    def test_nobody(self, houses, joint):
        one, other = houses.parties(joint, BATCH, timeout_s=0.3)
        with pytest.raises(PeerGoneError, match="start the other party"):
            run_party(one, rows(5)[:, :3])
        with pytest.raises(PeerGoneError, match="start party 0 first"):
            run_party(other, rows(5)[:, 3:])
