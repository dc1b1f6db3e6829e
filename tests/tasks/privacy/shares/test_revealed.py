"""A revealed score is told to its tolerance: to a step on both sides, and no finer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.ring64.wire import unpacked
from tasks.privacy.shares.compile import JointOptions, compile_joint
from tasks.privacy.shares.scoring import BatchScorer
from tasks.privacy.shares.steps import together
from tests.tasks.privacy.models import made, rows
from tests.tasks.privacy.shares.test_shares import FIRST, scored

PLAN = compile_joint(made("linear"), FIRST, rows(9), JointOptions(receivers="both")).plan


def small(dropped):
    """A plan whose scores have two bytes."""
    return dataclasses.replace(PLAN, width=2, dropped=dropped)


@pytest.mark.parametrize("kind", ["linear", "classes", "square"])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-4])
def test_scores_are_told_as_coarsely_as_the_tolerance_allows(kind, tolerance):
    model, raw = made(kind), rows(400)
    joint = compile_joint(model, FIRST, raw, JointOptions(tolerance=tolerance))
    step = joint.proof.step
    assert tolerance / 4 < step <= tolerance
    found, _ = scored(joint, raw)
    assert np.abs(found - model.score(raw)).max() <= joint.proof.calibration <= tolerance
    steps = np.diff(np.unique(found)) / step
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 1), st.floats(-4, 0))
def test_no_model_is_told_finer_than_a_quarter_nor_wraps(seed, size, tolerance):
    """Rows at the corners, where scores are largest; tolerances up to the scores' own size."""
    model = made("linear", seed)
    model = dataclasses.replace(model, weights=model.weights * 10.0**size)
    tolerance = 10.0**tolerance
    joint = compile_joint(model, FIRST, rows(40, seed), JointOptions(tolerance=tolerance))
    assert tolerance / 4 < joint.proof.step <= tolerance
    sides = np.sign(model.weights) * model.encoding.limits
    raw = np.concatenate([sides, -sides]) * model.encoding.scale + model.encoding.mean
    assert np.abs(scored(joint, raw)[0] - model.score(raw)).max() <= joint.proof.certain


def test_what_the_other_side_sends_tells_the_interval_and_no_more():
    """For every score modulo 2**16 of one interval the message to a fixed share is the same."""
    plan = small(dropped=5)
    mine = np.uint64(0x1234)
    scores = np.arange(1 << 16, dtype=np.uint64)
    theirs = (scores - mine) & np.uint64(0xFFFF)
    sent = next(BatchScorer(plan, 1, None, None)._revealed_scores(theirs[:, None])).outgoing
    words = unpacked(sent, 2, (len(scores),))
    np.testing.assert_array_equal(words, theirs >> np.uint64(5))
    assert np.bincount(words.astype(np.int64)).tolist() == [32] * (1 << 11)


@settings(deadline=None)
@given(st.integers(-(2**15) + 64, 2**15 - 65), st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_any_score_is_within_a_step_on_both_sides_alike(score, mask, dropped):
    """Also near the ends of the ring, whatever lies above it in the words."""
    plan = small(dropped=dropped)
    shares = np.array([[mask]], np.uint64), np.array([[(score - mask) % 2**64]], np.uint64)
    one, other = together(
        *(BatchScorer(plan, i, None, None)._revealed_scores(shares[i]) for i in (0, 1))
    )
    assert one == other
    error = abs(one[0, 0] * 2.0**plan.score_bits - score)
    assert error <= 2**dropped - 1
