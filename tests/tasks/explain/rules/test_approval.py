"""Editions are tried over history before they run, and scorecards run beside a model on record."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.explain.rules.approval import (
    Limits,
    NotApprovedError,
    require_approval,
    try_edition,
)
from tasks.explain.rules.beside_scorecard import beside_scorecard
from tasks.explain.rules.compare import compare
from tasks.explain.rules.edition import edition_digest, edition_from_json, edition_json
from tasks.explain.rules.engine import run_rules
from tasks.explain.rules.model import (
    DECISIONS,
    Condition,
    Rule,
    RuleSet,
    RuleSetError,
    table_digest,
)
from tasks.explain.rules.scorecard import GradedRule, Ramp, Scorecard, decide, run_scorecard

NAMES = ("amount", "n_1d")
LARGE = GradedRule((Ramp("amount", 100, 200),), 10)
MANY = GradedRule((Ramp("n_1d", 0, 10),), -4)
CARD = Scorecard("cards", "1", NAMES, (LARGE, MANY), 0, 5, 10)
RULES = RuleSet("cards", "1", NAMES, (Rule((Condition("amount", ">", 150),), "review"),))
ROWS = np.array([[float(a), 0] for a in range(0, 400, 2)], np.float32)
MODEL = (ROWS[:, 0] >= 150).astype(np.int8)
WIDE = Limits(most_flagged=1.0)


@pytest.mark.parametrize("rules", [RULES, CARD])
def test_an_edition_runs_only_as_it_was_tried(rules):
    trial = try_edition(rules, ROWS, MODEL, "a. person", limits=WIDE)
    assert trial.failures == ()
    assert trial.digest == edition_digest(rules)
    assert trial.history == table_digest(ROWS, NAMES)
    assert trial.flagged == pytest.approx((decide(rules, ROWS) > 0).mean())
    assert (trial.before, trial.changed) == ("", 0.0)
    require_approval(rules, trial.to_json())
    edited = replace(rules, rules=(replace(rules.rules[0], note="a word"), *rules.rules[1:]))
    with pytest.raises(NotApprovedError, match="run the trial again"):
        require_approval(edited, trial.to_json())
    with pytest.raises(RuleSetError, match="called version '1'"):
        try_edition(edited, ROWS, MODEL, "a. person", old=rules)


@pytest.mark.parametrize(
    ("decision", "vetoed", "may"), [("approve", 1.0, False), ("review", 0.0, True)]
)
def test_the_share_that_rules_would_veto_is_tried(decision, vetoed, may):
    every = replace(RULES, rules=(Rule((Condition("amount", ">=", 0),), decision),))
    trial = try_edition(every, ROWS, MODEL, "a. person", limits=WIDE)
    assert (trial.vetoed, trial.may_veto) == (vetoed, may)
    none = try_edition(every, ROWS, np.zeros_like(MODEL), "a. person", limits=Limits(0, 0, 1))
    assert (none.vetoed, none.may_veto) == (None, False)


@pytest.mark.parametrize(
    "change",
    [
        {"vetoed": "0"},
        {"model": None},
        {"flagged": None},
        {"thresholds": []},
        {"thresholds": {"review": "0"}},
        {"coverage": True},
    ],
)
def test_a_record_that_no_trial_wrote_is_refused(change):
    record = json.loads(try_edition(RULES, ROWS, MODEL, "a. person", limits=WIDE).to_json())
    with pytest.raises(RuleSetError, match="run the trial again"):
        require_approval(RULES, json.dumps(record | change))


def test_failures_follow_from_figures_and_limits_whatever_the_record_says():
    trial = try_edition(RULES, ROWS, MODEL, "a. person", limits=replace(WIDE, most_flagged=0.1))
    record = json.loads(trial.to_json())
    assert record["failures"] == list(trial.failures) != []
    with pytest.raises(NotApprovedError, match=r"above the limit 0\.1"):
        require_approval(RULES, json.dumps(record | {"failures": []}))


def test_coverage_that_nobody_knows_passes_no_limit():
    limits = replace(WIDE, least_coverage=0.9)
    trial = try_edition(RULES, ROWS, np.zeros_like(MODEL), "a. person", limits=limits)
    assert trial.coverage is None
    assert any("flags none of the rows" in one for one in trial.failures)


@pytest.mark.parametrize(
    ("tried", "now", "covers"),
    [
        ({"review": 0.1, "block": 0.5}, {"review": 0.1, "block": 0.5}, True),
        ({"review": 0.1, "block": 0.5}, {"review": 0.2, "block": 0.6}, True),
        ({"review": 0.1, "block": 0.5}, {"review": 0.09, "block": 0.5}, False),
        ({"review": 0.1, "block": 0.5}, {"review": 0.1, "block": 0.4}, False),
        ({"review": 0.1}, {"review": 0.1, "block": 0.4}, False),
        ({}, {"review": 1.0}, False),
    ],
)
def test_a_trial_covers_what_is_decided_from_scores_no_lower(tried, now, covers):
    trial = try_edition(RULES, ROWS, MODEL, "a", limits=WIDE, thresholds=tried)
    assert trial.covers(now) is covers
    assert require_approval(RULES, trial.to_json()) == trial


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('"value": ' + "9" * 401, "401 digits"),
        ('"value": ' + "9" * 5_001, "5001 digits"),
        ('"name": "\\ud800"', "half of a character"),
    ],
)
def test_numbers_and_texts_that_cannot_be_are_named(text, why):
    with pytest.raises(RuleSetError, match=why):
        edition_from_json(f"{{{text}}}")


def test_points_have_a_bound():
    with pytest.raises(RuleSetError, match="at most 1,000,000,000"):
        replace(LARGE, points=10**9 + 1)


def test_large_tables_are_run_in_parts(monkeypatch):
    whole = run_scorecard(CARD, ROWS), run_rules(RULES, ROWS)
    monkeypatch.setattr("tasks.explain.rules.engine.AT_ONCE", 7)
    parts = run_scorecard(CARD, ROWS), run_rules(RULES, ROWS)
    for one, other in zip(whole, parts, strict=True):
        for name in vars(one):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert run_rules(RULES, ROWS[:0]).matched.shape == (0, 1)


@pytest.mark.parametrize("rules", [RULES, CARD])
def test_an_edition_of_either_kind_is_read_back(rules):
    assert edition_from_json(edition_json(rules)) == rules


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"review_at": 1}', "{"])
def test_what_is_no_edition_is_refused(text):
    with pytest.raises(RuleSetError):
        edition_from_json(text)


def test_a_broken_limit_is_named_and_holds_the_edition_back():
    new = replace(CARD, version="2", review_at=3)
    trial = try_edition(new, ROWS, MODEL, "a. person", old=CARD)
    expected = compare(CARD, new, ROWS)
    assert trial.before == edition_digest(CARD)
    assert trial.changed == expected.changed / expected.rows > 0.01
    assert len(trial.failures) == 2
    assert "flagged" in trial.failures[0]
    assert "changed" in trial.failures[1]
    with pytest.raises(NotApprovedError, match=r"above the limit 0.05; changed .*; edit the rules"):
        require_approval(new, trial.to_json())
    poor = try_edition(new, ROWS, 1 - MODEL, "a. person", limits=replace(WIDE, least_coverage=0.9))
    assert [one.split()[0] for one in poor.failures] == ["precision", "coverage"]


def test_rules_that_flag_nothing_have_no_precision():
    none = replace(CARD, rules=())
    trial = try_edition(none, ROWS, MODEL, "a. person")
    assert json.loads(trial.to_json())["precision"] is None
    assert trial.failures == ()


def test_what_cannot_be_tried_is_refused():
    with pytest.raises(RuleSetError, match="who answers"):
        try_edition(CARD, ROWS, MODEL, "")
    with pytest.raises(RuleSetError, match="like with like"):
        try_edition(replace(CARD, version="2"), ROWS, MODEL, "a", old=RULES)
    with pytest.raises(RuleSetError, match="between 0 and 1"):
        Limits(most_changed=2)
    with pytest.raises(RuleSetError, match="lacks 'before'"):
        require_approval(CARD, "{}")


def test_editions_of_a_scorecard_are_compared():
    new = replace(CARD, version="2", rules=(replace(LARGE, points=20),))
    found = compare(CARD, new, ROWS)
    assert found.redecided == (LARGE.id,)
    assert found.removed == (MANY.id,)
    assert found.changed == int((decide(CARD, ROWS) != decide(new, ROWS)).sum()) > 0


def test_a_scorecard_beside_a_model_records_every_disagreement():
    rows = [[180, 0], [300, 0], [20, 0], [160, 10], [math.nan, 0]]
    final, found = beside_scorecard(CARD, rows, [0, 1, 2, 0, 1])
    assert final.tolist() == [1, 2, 2, 0, 1]
    assert [(one.row, one.kind) for one in found] == [
        *((0, "flag"), (1, "flag"), (2, "veto"), (4, "veto"))
    ]
    assert found[0].by == (LARGE.id,)
    assert found[0].reason.startswith("8 points say review: +8 by")
    assert "1 rules lack a value" in found[3].reason
    vetoed, _ = beside_scorecard(CARD, rows, [0, 1, 2, 0, 1], powers=("veto",))
    assert vetoed.tolist() == [0, 1, 0, 0, 1]  # the last row lacks what a rule reads
    with pytest.raises(RuleSetError, match="unknown power"):
        beside_scorecard(CARD, rows, [0] * 5, powers=("stop",))


cells = st.one_of(st.floats(-50, 400), st.just(math.nan))


@given(
    st.lists(st.tuples(cells, cells, st.integers(0, 2)), min_size=1, max_size=12),
    st.sampled_from([(), ("flag",), ("veto",), ("flag", "veto")]),
)
@settings(max_examples=60, deadline=None)
def test_no_decision_changes_without_a_record(given_, powers):
    rows, model = [row[:2] for row in given_], [row[2] for row in given_]
    final, found = beside_scorecard(CARD, rows, model, powers=powers)
    said = run_scorecard(CARD, rows).decisions
    told = {one.row: one for one in found}
    assert set(told) == {row for row in range(len(rows)) if said[row] != model[row]}
    for row in range(len(rows)):
        if final[row] != model[row]:
            assert told[row].final == DECISIONS[final[row]]
    if not powers:
        assert final.tolist() == model
