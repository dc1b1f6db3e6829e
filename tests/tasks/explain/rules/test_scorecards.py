"""Scorecards: checked, run as plain arithmetic does, written and read, in SQL the same numbers."""

from __future__ import annotations

import json
import math
import sqlite3

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.explain.rules.export_scorecard import (
    scorecard_ansi_sql,
    scorecard_flink_sql,
    scorecard_from_json,
    scorecard_json,
    scorecard_text,
)
from tasks.explain.rules.model import (
    DECISIONS,
    DuplicateRuleError,
    RuleSetError,
    UnknownFeatureError,
)
from tasks.explain.rules.scorecard import GradedRule, Ramp, Scorecard, run_scorecard

NAMES = ("amount", 'odd "name"', "hour`s", "n_1d")
EDGES = (-1.5, 0.0, 0.1, 0.3, 1.0, 3.0, 17.25, -1e-3)


@st.composite
def some_cards(draw):
    found = {}
    for _ in range(draw(st.integers(0, 5))):
        conditions = []
        for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)):
            ends = draw(st.lists(st.sampled_from(EDGES), min_size=2, max_size=2, unique=True))
            conditions.append(Ramp(name, *ends))
        points = draw(st.integers(-300, 300).filter(bool))
        rule = GradedRule(tuple(conditions), points)
        found[rule.id] = rule
    review, block = sorted(draw(st.lists(st.integers(-400, 400), min_size=2, max_size=2)))
    base = draw(st.integers(-300, 300))
    return Scorecard("cards", "1", NAMES, tuple(found.values()), base, review, block, "d", "m")


cells = st.one_of(
    st.sampled_from((*EDGES, math.nan, math.inf, -math.inf, 1e308, -1e308)), st.floats(-4, 4)
)
tables = st.lists(st.tuples(*[cells] * len(NAMES)), min_size=1, max_size=12)


def plainly(card, row):
    """Points and decision of a row, in plain Python."""
    named = dict(zip(card.features, row, strict=True))
    total = float(card.base)
    for rule in card.rules:
        part = float(rule.points)
        for one in rule.conditions:
            value = named[one.feature]
            if value is None or not math.isfinite(value):
                degree = 0.0
            elif (value >= one.full_at) if one.rises else (value <= one.full_at):
                degree = 1.0
            elif (value <= one.empty_at) if one.rises else (value >= one.empty_at):
                degree = 0.0
            else:
                degree = (value - one.empty_at) * (1 / (one.full_at - one.empty_at))
            part *= degree
        total += part
    grave = (total >= card.review_at) + (total >= card.block_at)
    return total, DECISIONS[grave]


@given(some_cards(), tables)
@settings(max_examples=80, deadline=None)
def test_rows_are_scored_as_plain_arithmetic_and_sql_agrees_to_the_bit(card, rows):
    found = run_scorecard(card, rows)
    expected = [plainly(card, row) for row in rows]
    assert found.total.tolist() == [total for total, _ in expected]
    assert [DECISIONS[one] for one in found.decisions] == [said for _, said in expected]
    assert found.total == pytest.approx(card.base + found.added.sum(axis=1))

    frame = pl.DataFrame(rows, schema=dict.fromkeys(NAMES, pl.Float64), orient="row")
    context = pl.SQLContext(t=frame, eager=True)
    told = context.execute(scorecard_ansi_sql(card, "t")).rows()
    assert [row[-2:] for row in told] == expected

    with sqlite3.connect(":memory:") as database:
        columns = ", ".join('"' + name.replace('"', '""') + '" REAL' for name in NAMES)
        database.execute(f"CREATE TABLE t ({columns})")
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)  # NaN becomes NULL
        for query in (scorecard_ansi_sql(card, "t"), scorecard_flink_sql(card, "t")):
            assert [row[-2:] for row in database.execute(query)] == expected
    database.close()


@given(some_cards())
@settings(max_examples=50, deadline=None)
def test_json_gives_the_card_back_with_its_lineage(card):
    text = scorecard_json(card)
    again = scorecard_from_json(text)
    assert again == card
    assert scorecard_json(again) == text
    assert again.lineage() == card.lineage()
    assert all(rule.id in scorecard_text(card) for rule in card.rules)
    for told, rule in zip(card.lineage(), card.rules, strict=True):
        assert told == {
            "rule": rule.id,
            "features": list(rule.features),
            "data_digest": "d",
            "model_digest": "m",
        }


def one_rule(**changes):
    parts = {"conditions": (Ramp("amount", 0, 1),), "points": 10} | changes
    return GradedRule(**parts)


def card_of(*rules, **changes):
    parts = {"base": 0, "review_at": 5, "block_at": 10} | changes
    return Scorecard("cards", "1", NAMES, rules, **parts)


@pytest.mark.parametrize(
    ("make", "kind", "fix"),
    [
        (lambda: Ramp("a", 1, 1), RuleSetError, "two numbers apart"),
        (lambda: Ramp("a", -1.7e308, 1.7e308), RuleSetError, "two numbers apart"),
        (lambda: Ramp("a", math.nan, 1), RuleSetError, "finite number"),
        (lambda: Ramp("a", True, 1), RuleSetError, "finite number"),
        (lambda: one_rule(conditions=()), RuleSetError, "use base"),
        (
            lambda: one_rule(conditions=(Ramp("a", 0, 1), Ramp("a", 1, 2))),
            RuleSetError,
            "keep one",
        ),
        (lambda: one_rule(points=0), RuleSetError, "not 0"),
        (lambda: one_rule(points=1.5), RuleSetError, "whole number"),
        (lambda: card_of(one_rule(), one_rule(points=3)), DuplicateRuleError, "add their points"),
        (
            lambda: card_of(one_rule(conditions=(Ramp("amont", 0, 1),))),
            UnknownFeatureError,
            "correct the name",
        ),
        (lambda: card_of(review_at=11), RuleSetError, "review from fewer"),
        (lambda: card_of(base=0.5), RuleSetError, "whole number"),
        (lambda: run_scorecard(card_of(), np.zeros((2, 3))), RuleSetError, "exactly these"),
    ],
)
def test_what_cannot_be_is_refused_with_its_fix(make, kind, fix):
    with pytest.raises(kind, match=fix):
        make()


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (lambda d: d["rules"][0].update({"if": [["amount", 0, 2]]}), "remove the id"),
        (lambda d: d["rules"][0].update({"if": [["amount", 0]]}), "such as"),
        (lambda d: d["rules"][0].update(points="10"), "whole number"),
        (lambda d: d["rules"][0].update(note=3), "text in quotes"),
        (lambda d: d.pop("base"), "lacks 'base'"),
        (lambda d: d.update(format=2), "reads format 1"),
        (lambda d: d.update(cutoff=2), "unknown key 'cutoff'"),
        (lambda d: d.update(version=2), "text in quotes"),
    ],
)
def test_a_bad_edit_is_refused_with_its_fix(change, fix):
    data = json.loads(scorecard_json(card_of(one_rule())))
    change(data)
    with pytest.raises(RuleSetError, match=fix):
        scorecard_from_json(json.dumps(data))


def test_a_missing_value_adds_nothing_and_is_told():
    card = card_of(one_rule(), one_rule(conditions=(Ramp("n_1d", 1, 0),), points=4))
    found = run_scorecard(card, [[math.nan, 0, 0, 0], [1, 0, 0, math.inf], [0.5, 0, 0, 0.5]])
    assert found.total.tolist() == [4, 10, 7]
    assert found.missing.tolist() == [[True, False], [False, True], [False, False]]
    assert [DECISIONS[one] for one in found.decisions] == ["approve", "block", "review"]


def test_names_that_sql_lacks_are_refused():
    with pytest.raises(RuleSetError, match="added column"):
        scorecard_ansi_sql(Scorecard("x", "1", ("rule_points",), (), 0, 1, 2), "t")
    with pytest.raises(RuleSetError, match="rename"):
        scorecard_flink_sql(card_of(), "a\nb")
