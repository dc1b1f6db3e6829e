"""Fitting scorecards: planted ones found again, cutoffs against enumeration, figures as counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.explain.rules.fit_scorecard import (
    ScorecardConfig,
    _best_cutoff,
    _short,
    fit_scorecard,
    parts_of,
)
from tasks.explain.rules.measure import f1_of
from tasks.explain.rules.measure_scorecard import measure_scorecard
from tasks.explain.rules.model import RuleSetError, table_digest
from tasks.explain.rules.scorecard import GradedRule, Ramp, Scorecard, run_scorecard
from tasks.explain.rules.teacher import Teacher

NAMES = ("card.a", "card.b", "shop.c", "shop.d")
SMALL = ScorecardConfig(max_rules=8, made_rows=2_000, grow_steps=60, steps=400, batch=1_024)


def label(rows):
    """A model that adds up: graded in a, and in b where c is large."""
    a, b, c = (rows[:, place].astype(np.float64) for place in range(3))
    scores = 4 * np.clip(a - 0.5, 0, 0.5) + 3 * b * (c > 0.6)
    return Teacher.from_scores(scores, 2.6, 3.6)


def drawn(rows, seed=0):
    return np.random.default_rng(seed).random((rows, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    rows = drawn(4_000)
    return fit_scorecard(rows, NAMES, label(rows), SMALL, label=label, model_digest="m")


def test_a_planted_scorecard_is_found_again(fitted):
    rows = drawn(4_000)
    unseen = drawn(5_000, seed=1)
    figures = measure_scorecard(fitted, unseen, label(unseen).decisions)
    assert figures.f1 > 0.9
    assert figures.f1_block > 0.85
    assert figures.n_rules <= 8
    assert max(len(rule.conditions) for rule in fitted.rules) <= 3
    assert {"card.a", "card.b", "shop.c"} <= {f for rule in fitted.rules for f in rule.features}
    assert (fitted.data_digest, fitted.model_digest) == (table_digest(rows, NAMES), "m")


def test_the_same_rows_give_the_same_scorecard(fitted):
    rows = drawn(4_000)
    again = fit_scorecard(rows, NAMES, label(rows), SMALL, label=label, model_digest="m")
    assert again == fitted


def test_decisions_alone_suffice_and_missing_values_add_nothing():
    rows = drawn(4_000)
    given_ = Teacher.from_decisions(label(rows).decisions)
    rows[::50, 3] = np.nan
    rows[1::50, 3] = np.inf
    card = fit_scorecard(rows, NAMES, given_, SMALL)
    unseen = drawn(5_000, seed=1)
    figures = measure_scorecard(card, unseen, label(unseen).decisions)
    assert figures.f1 > 0.8


def test_a_model_that_never_blocks_gives_a_cutoff_out_of_reach():
    rows = drawn(2_000)
    scores = rows[:, 0].astype(np.float64)
    card = fit_scorecard(rows, NAMES, Teacher.from_scores(scores, 0.8, 2.0), SMALL)
    assert not (run_scorecard(card, rows).decisions == 2).any()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_no_whole_cutoff_is_better_than_the_best(seed):
    draws = np.random.default_rng(seed)
    total = draws.normal(size=30) * 4
    wanted = draws.random(30) < 0.4
    cutoff = _best_cutoff(total, wanted)
    if not wanted.any():
        assert cutoff > total.max()
        return
    every = [f1_of(total >= level, wanted) for level in range(-40, 40)]
    assert f1_of(total >= cutoff, wanted) == np.nanmax(every)


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e5), st.booleans())
@settings(max_examples=100, deadline=None)
def test_short_ends_hardly_move_a_ramp(start, width, falls):
    end = start - width if falls else start + width
    if start == end:
        return
    short = _short("a", start, end)
    assert abs(short.empty_at - start) <= width / 100
    assert abs(short.full_at - end) <= width / 100


def test_figures_are_counts():
    card = Scorecard(
        "cards",
        "1",
        ("a", "b"),
        (GradedRule((Ramp("a", 0, 10),), 10), GradedRule((Ramp("b", 0, 1),), -4)),
        base=0,
        review_at=5,
        block_at=9,
    )
    rows = [[10, 0], [6, 0], [6, 1], [0, 0], [float("nan"), 0], [2, 0]]
    figures = measure_scorecard(card, rows, [2, 1, 1, 0, 1, 0])
    assert (figures.coverage.hits, figures.coverage.rows) == (2, 4)
    assert (figures.precision.hits, figures.precision.rows) == (2, 2)
    assert figures.fidelity.hits == 4
    assert figures.f1 == pytest.approx(2 / 3)
    assert figures.n_rules == 4
    assert [gap.row for gap in figures.gaps] == [2, 4]
    first, second = figures.rules
    assert (first.support, first.mean_added, first.missing) == (4, 6.0, 1)
    assert (second.support, second.mean_added) == (1, -4.0)
    assert first.f1_without == 0
    assert second.f1_without == pytest.approx(6 / 7)


def test_parts_and_settings_are_checked():
    assert parts_of(("x", *NAMES)) == [[1, 2], [3, 4]]
    with pytest.raises(RuleSetError, match="are cutoffs"):
        ScorecardConfig(max_rules=2)
    with pytest.raises(RuleSetError, match="at least 1"):
        ScorecardConfig(steps=0)
    with pytest.raises(RuleSetError, match="above 0"):
        ScorecardConfig(temperature=0.0)
    rows = drawn(50)
    with pytest.raises(RuleSetError, match="flags 0 of 50"):
        fit_scorecard(rows, NAMES, Teacher.from_scores(np.zeros(50), 1, 2), SMALL)
