"""Joint scores are those in the clear within what is proved; messages tell nothing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.privacy.encoding import Encoding, plain_encoding
from tasks.privacy.model import linear_model, power_model
from tasks.privacy.shares.bounds import fold
from tasks.privacy.shares.compile import JointOptions, compile_joint
from tasks.privacy.shares.dealing import deal_batch
from tasks.privacy.shares.linear import open_weights
from tasks.privacy.shares.material import Material, drawn
from tasks.privacy.shares.part import Part
from tasks.privacy.shares.plan import JointPlan, PlanError
from tasks.privacy.shares.rehearsal import load_kernels, rehearse
from tasks.privacy.shares.scoring import BatchScorer
from tasks.privacy.shares.steps import Exchange, together
from tests.tasks.privacy.models import INPUTS, made, rows

FIRST = ("x4", "x0", "x6")
HOLDERS = ("party-0", "party-1", "shared")


def scored(joint, raw):
    """Both parties' outcomes for raw rows of all columns."""
    inputs = tuple(
        one.encode(raw[:, [int(name[1:]) for name in one.columns]]) for one in joint.plan.encodings
    )
    return rehearse(joint.plan, joint.parts, inputs)


class TestScores:
    @pytest.mark.parametrize("holder", HOLDERS)
    @pytest.mark.parametrize("kind", ["linear", "classes", "square"])
    def test_are_within_what_is_proved(self, kind, holder):
        model, raw = made(kind), rows(500)
        options = JointOptions(holder=holder, receivers="both", tolerance=1e-4)
        joint = compile_joint(model, FIRST, raw, options)
        first, second = scored(joint, raw)
        error = np.abs(first - model.score(raw)).max()
        assert 0 < error <= joint.proof.calibration <= 1e-4
        np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("kind", ["linear", "square"])
    def test_rows_at_the_corners_neither_wrap_nor_err_more_than_certain(self, kind):
        model = made(kind)
        joint = compile_joint(model, FIRST, rows(200), JointOptions(tolerance=1e-3))
        sides = np.sign(model.weights) * model.encoding.limits
        raw = np.concatenate([sides, -sides]) * model.encoding.scale + model.encoding.mean
        found, nothing = scored(joint, raw)
        exact = model.score(raw)
        assert np.abs(found - exact).max() <= joint.proof.certain
        assert np.abs(exact).max() <= joint.proof.largest
        assert joint.proof.spare_bits > 0
        assert nothing is None

    @settings(max_examples=30, deadline=None)
    @given(
        st.integers(0, 10_000),
        st.sampled_from(["linear", "classes", "square"]),
        st.sampled_from(HOLDERS),
        st.floats(-2, 2),
    )
    def test_any_model_is_within_its_proof_or_refused(self, seed, kind, holder, size):
        model = made(kind, seed)
        model = dataclasses.replace(model, weights=model.weights * 10.0**size)
        raw = rows(40, seed)
        try:
            joint = compile_joint(model, FIRST, raw, JointOptions(holder=holder))
        except PlanError:
            return
        found = scored(joint, raw)[0]
        assert np.abs(found - model.score(raw)).max() <= joint.proof.calibration <= 1e-5

    def test_one_party_may_have_the_weights_and_no_rows(self):
        model, raw = made("linear"), rows(50)
        joint = compile_joint(model, (), raw)
        found, _ = scored(joint, raw)
        assert np.abs(found - model.score(raw)).max() <= joint.proof.calibration

    def test_hinges_stay_with_their_column(self):
        base = plain_encoding(rows(500, 99), margin=2.0)
        encoding = dataclasses.replace(base, knots=np.tile([-0.5, 0.5], (INPUTS, 1)))
        weights = np.random.default_rng(5).normal(size=encoding.inputs)
        model, raw = linear_model(encoding, weights, 0.1), rows(60)
        joint = compile_joint(model, FIRST, raw)
        assert joint.plan.inputs == (9, 12)
        assert np.abs(scored(joint, raw)[0] - model.score(raw)).max() <= joint.proof.calibration


class TestDecisions:
    @pytest.mark.parametrize("kind", ["linear", "classes", "square"])
    def test_are_those_of_the_scores(self, kind):
        """Except where the score is nearer to the threshold than what is proved."""
        model, raw = made(kind), rows(2_000)
        threshold = float(np.median(model.score(raw)))
        options = JointOptions(
            reveal="decision", threshold=threshold, receivers="both", tolerance=1e-4
        )
        joint = compile_joint(model, FIRST, raw, options)
        first, second = scored(joint, raw)
        exact = model.score(raw) - threshold
        sure = np.abs(exact) > joint.proof.calibration
        assert sure.mean() > 0.99
        np.testing.assert_array_equal(first[sure], (exact >= 0)[sure])
        np.testing.assert_array_equal(first, second)

    def test_at_the_threshold_itself_it_is_yes_and_a_step_below_no(self):
        encoding = Encoding(("a", "b"), [0, 0], [1, 1], [4, 4])
        model = linear_model(encoding, [1.0, 1.0], 0.0)
        step = 2.0**-10
        raw = np.array([[1.0, 1.0], [1.0, 1.0 - step], [1.0, 1.0 + step], [-4.0, -4.0], [4.0, 4.0]])
        options = JointOptions(reveal="decision", threshold=2.0)
        joint = compile_joint(model, ("a",), raw, options)
        inputs = (raw[:, :1], raw[:, 1:])
        found, _ = rehearse(joint.plan, joint.parts, inputs)
        assert found.ravel().tolist() == [True, False, True, False, True]

    def test_a_threshold_without_decisions_is_refused(self):
        with pytest.raises(ValueError, match="reveal='decision'"):
            JointOptions(threshold=0.5)


class TestMessages:
    def test_of_linear_scoring_are_as_long_as_promised(self):
        """30 columns, all with the party that does not have the weights."""
        raw = np.random.default_rng(0).normal(size=(64, 30))
        encoding = plain_encoding(raw, margin=2.0)
        model = linear_model(encoding, np.random.default_rng(1).normal(size=30) * 0.3, -3.0)
        joint = compile_joint(model, (), raw)
        _, sent = transcript(joint, raw)
        assert joint.plan.width <= 7
        score = -(-joint.plan.revealed_bits // 8)
        assert score < joint.plan.width
        assert sum(one.size for one in sent) == 64 * (joint.plan.width * 30 + score)

    @pytest.mark.parametrize("reveal", ["score", "decision"])
    @pytest.mark.parametrize("kind", ["linear", "square"])
    def test_are_uniform_whatever_the_rows(self, kind, reveal):
        """The same row 4,096 times: every bit of every message is a fair coin.

        But for the top bits of the bytes in which a share of the score is sent without its lowest.
        """
        model = made(kind)
        options = JointOptions(holder="shared", reveal=reveal, tolerance=1e-3)
        joint = compile_joint(model, FIRST, rows(50), options)
        _, sent = transcript(joint, np.tile(rows(1), (4_096, 1)))
        masked = [one for one in sent if one.size >= 4_096 * 3]
        assert len(masked) >= 2
        for message in masked:
            bits = 8 * message.size
            if reveal == "score" and message is sent[-1]:
                bits = 4_096 * joint.plan.revealed_bits
            ones = np.unpackbits(message).sum() / bits
            assert abs(ones - 0.5) < 6 * 0.5 / np.sqrt(bits)

    def test_the_same_rows_never_give_the_same_message(self):
        joint = compile_joint(made("linear"), FIRST, rows(50), JointOptions(holder="shared"))
        sent = transcript(joint, np.tile(rows(1), (64, 1)))[1][0]
        width = 4 * joint.plan.inputs[0]
        by_row = sent[: 64 * width].reshape(64, -1)
        assert len({one.tobytes() for one in by_row}) == 64

    def test_what_one_side_sends_too_much_is_noticed(self):
        def talks():
            yield Exchange(np.zeros(3, np.uint8), 0)

        def listens():
            yield Exchange(np.zeros(0, np.uint8), 2)

        with pytest.raises(ValueError, match="2 bytes are due, 3 come"):
            together(talks(), listens())


def transcript(joint, raw):
    """Outcomes, and every message of one batch in order of steps, party 0's before party 1's."""
    plan = joint.plan
    seeds = (bytes(32), bytes([1]) * 32)
    given = deal_batch(plan, seeds, 0, len(raw))
    layers = together(*(open_weights(plan, i, joint.parts[i], seeds[i]) for i in (0, 1)))
    sent = []

    def heard(steps):
        try:
            step = next(steps)
            while True:
                sent.append(step.outgoing)
                step = steps.send((yield step))
        except StopIteration as done:
            return done.value

    sides = []
    for party in (0, 1):
        names = plan.encodings[party].columns
        inputs = plan.encodings[party].encode(raw[:, [int(name[1:]) for name in names]])
        scorer = BatchScorer(plan, party, joint.parts[party], layers[party])
        material = Material(seeds[party], 0, given[party])
        sides.append(heard(scorer.score(inputs, material)))
    return together(*sides), [one for one in sent if one.size]


class TestPlan:
    @pytest.mark.parametrize("kind", ["linear", "square"])
    def test_comes_back_from_json(self, kind):
        options = JointOptions(holder="shared", tolerance=1e-3)
        joint = compile_joint(made(kind), FIRST, rows(50), options)
        again = JointPlan.from_dict(json.loads(json.dumps(joint.plan.to_dict())))
        assert again.digest == joint.plan.digest
        for party in (0, 1):
            data = json.loads(json.dumps(joint.parts[party].to_dict()))
            Part.from_dict(data).check(again, party)

    def test_every_compilation_has_a_digest_of_its_own(self):
        """Parts are salted: nobody can guess weights and compare."""
        digests = {compile_joint(made("linear"), FIRST, rows(50)).plan.digest for _ in range(3)}
        assert len(digests) == 3

    def test_a_part_of_another_model_is_refused(self):
        one, other = (compile_joint(made("linear", seed), FIRST, rows(50)) for seed in (0, 1))
        one.parts[0].check(one.plan, 0)
        with pytest.raises(PlanError, match="made together"):
            other.parts[0].check(one.plan, 0)
        with pytest.raises(PlanError, match="made together"):
            one.parts[1].check(one.plan, 0)
        with pytest.raises(PlanError, match="plan's own part"):
            compile_joint(made("classes"), FIRST, rows(9)).parts[0].check(one.plan, 0)

    @pytest.mark.parametrize("holder", HOLDERS)
    def test_parts_hold_what_their_party_may_know(self, holder):
        joint = compile_joint(made("linear"), FIRST, rows(50), JointOptions(holder=holder))
        whole = joint.parts[0].weights + joint.parts[1].weights
        limit = np.abs(whole.view(np.int64)).max()
        for party, part in enumerate(joint.parts):
            if holder == "shared":
                assert np.abs(part.weights.view(np.int64)).max() > 2**20 * limit
            else:
                assert part.weights.any() == (holder == f"party-{party}")

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"holder": "both"}, "holder is one of"),
            ({"reveal": "all"}, "reveal is one of"),
            ({"receivers": "none"}, "receivers is one of"),
            ({"width": 9}, "1 to 8 bytes"),
            ({"scores": 0}, "one score or"),
            ({"signs": (1, 2), "cut": 3}, "1 or -1"),
            ({"signs": (), "cut": 3}, "cut is positive where"),
            ({"dropped": -1}, "dropped is 0 or"),
            ({"dropped": 64}, "dropped is 0 or"),
            ({"reveal": "decision"}, "dropped is 0 or"),
        ],
    )
    def test_wrong_values_are_refused(self, wrong, said):
        plan = compile_joint(made("linear"), FIRST, rows(9)).plan
        with pytest.raises(PlanError, match=said):
            dataclasses.replace(plan, **wrong)

    def test_what_is_no_plan_is_refused(self):
        with pytest.raises(PlanError, match="no plan of joint scoring"):
            JointPlan.from_dict({"encodings": []} | {"holder": 1})
        with pytest.raises(PlanError, match="no part"):
            Part.from_dict({"weights": "zz"})


class TestCompile:
    def test_the_narrowest_words_that_keep_the_tolerance_are_taken(self):
        widths = [
            compile_joint(made("linear"), FIRST, rows(50), JointOptions(tolerance=one)).plan.width
            for one in (1e-2, 1e-5, 1e-7)
        ]
        assert widths == sorted(set(widths))

    def test_what_cannot_be_is_refused_with_the_reason(self):
        with pytest.raises(PlanError, match=r"tolerance of 1e-12: the best proves \d"):
            compile_joint(made("square"), FIRST, rows(50), JointOptions(tolerance=1e-12))
        with pytest.raises(PlanError, match="linear models and squares"):
            compile_joint(made("cube"), FIRST, rows(50))
        with pytest.raises(PlanError, match="linear models and squares"):
            compile_joint(made("square classes"), FIRST, rows(50))
        with pytest.raises(PlanError, match="columns of party 0"):
            compile_joint(made("linear"), ("x0", "x0"), rows(50))
        with pytest.raises(PlanError, match="calibration rows"):
            compile_joint(made("linear"), FIRST, np.zeros((0, INPUTS)))
        huge = dataclasses.replace(made("linear"), weights=np.full((1, INPUTS), 1e18))
        with pytest.raises(PlanError, match="do not fit 64 bits"):
            compile_joint(huge, FIRST, rows(50))
        with pytest.raises(ValueError, match="tolerance must be positive"):
            JointOptions(tolerance=0)

    def test_folding_changes_no_score(self):
        rng = np.random.default_rng(0)
        encoding = plain_encoding(rows(99))
        layers = [(rng.normal(size=(4, INPUTS)), rng.normal(size=4)), ([[0.5, -2, 0, -1]], [0.3])]
        model = power_model(encoding, layers, 2)
        folded = fold(model, 0.1)
        assert folded.signs == (-1, -1, 1, 1)
        inputs = encoding.encode(rows(20))
        sums = (inputs @ folded.weights.T + folded.start) ** 2 @ np.array(folded.signs)
        np.testing.assert_allclose(sums + folded.offset, model.score(rows(20))[:, 0] - 0.1)


class TestMaterial:
    def test_a_stream_is_what_it_says(self):
        """AES-256 in counter mode under a key by HKDF, computed the long way."""
        info = b"penstock joint scoring 1/a/3"
        key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(bytes(32))
        encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
        blocks = [encryptor.update(i.to_bytes(16, "big")) for i in range(50)]
        assert drawn(bytes(32), "a", 3, (20, 5)).tobytes() == b"".join(blocks)

    def test_streams_differ_by_seed_name_and_batch_and_begin_alike(self):
        one = drawn(bytes(32), "a", 0, (4, 2))
        np.testing.assert_array_equal(drawn(bytes(32), "a", 0, (9, 2))[:4], one)
        others = [
            drawn(bytes([1]) * 32, "a", 0, (4, 2)),
            drawn(bytes(32), "b", 0, (4, 2)),
            drawn(bytes(32), "a", 1, (4, 2)),
        ]
        for other in others:
            assert not np.isin(one, other).any()

    def test_too_little_is_refused(self):
        material = Material(bytes(32), 0, {"tables": np.zeros((2, 3), np.uint64)})
        with pytest.raises(ValueError, match=r"tables of the deal is \[2, 3\], not \[3, 3\]"):
            material.words("tables", 3, 3)

    def test_secrets_are_not_shown(self):
        assert "seed" not in repr(Material(bytes(32), 0))
        part = Part(np.zeros((1, 1), np.uint64), np.zeros(1, np.uint64), np.zeros(0, np.uint64))
        assert "salt" not in repr(part)


def test_kernels_can_be_loaded_for_any_plan():
    for kind in ("linear", "square"):
        options = JointOptions(reveal="decision", tolerance=1e-3)
        load_kernels(compile_joint(made(kind), FIRST, rows(9), options).plan)
