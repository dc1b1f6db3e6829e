"""Rule sets: checked, written and read, run exactly, compared, exported to SQL that agrees."""

from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.explain.rules.compare import compare
from tasks.explain.rules.engine import beside_model, codes, run_rules
from tasks.explain.rules.export import ansi_sql, flink_sql, to_text
from tasks.explain.rules.files import from_json, to_json
from tasks.explain.rules.measure import measure, wilson
from tasks.explain.rules.model import (
    DECISIONS,
    OPERATORS,
    Condition,
    ContradictionError,
    DuplicateRuleError,
    Rule,
    RuleSet,
    RuleSetError,
    UnknownDecisionError,
    UnknownFeatureError,
)

NAMES = ("amount", 'odd "name"', "hour`s", "n_1d")
EDGES = (-1.5, 0.0, 0.1, 1.0, 3.0, float(np.float32(0.1)), 1e300, -1e-300)


def rule_of(decision, *conditions):
    return Rule(tuple(Condition(*one) for one in conditions), decision)


def set_of(*rules, version="1"):
    return RuleSet("cards", version, NAMES, rules, "d" * 64, "m" * 64)


@st.composite
def some_rules(draw):
    found = {}
    for _ in range(draw(st.integers(0, 5))):
        conditions = []
        for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)):
            low, high = sorted(draw(st.lists(st.sampled_from(EDGES), min_size=2, max_size=2)))
            sides = draw(st.sampled_from(("low", "high", "both")))
            if sides != "high":
                conditions.append((name, ">=" if low == high else draw(st.sampled_from(">")), low))
            if sides != "low":
                conditions.append((name, "<=" if low == high else draw(st.sampled_from("<")), high))
        rule = rule_of(draw(st.sampled_from(DECISIONS)), *conditions)
        found[rule.id] = rule
    return set_of(*found.values())


values = st.one_of(st.sampled_from((*EDGES, math.nan, math.inf, -math.inf)), st.floats(-4, 4))
tables = st.lists(st.tuples(*[values] * len(NAMES)), min_size=1, max_size=12)


def plainly(rules, row):
    """What a set says of a row, in plain Python."""
    compared = {
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
    }
    named = dict(zip(NAMES, row, strict=True))
    held = [
        rule
        for rule in rules.rules
        if all(
            math.isfinite(named[c.feature]) and compared[c.operator](named[c.feature], c.value)
            for c in rule.conditions
        )
    ]
    decision = max((DECISIONS.index(rule.decision) for rule in held), default=-1)
    return decision, [rule.id for rule in held]


@given(some_rules(), tables)
@settings(max_examples=60, deadline=None)
def test_the_engine_is_exact_and_sql_agrees(rules, rows):
    outcome = run_rules(rules, rows)
    ids = [rule.id for rule in rules.rules]
    expected = [plainly(rules, row) for row in rows]
    assert outcome.decisions.tolist() == [decision for decision, _ in expected]
    for matched, (_, held) in zip(outcome.matched, expected, strict=True):
        assert [one for one, yes in zip(ids, matched, strict=True) if yes] == held

    said = [
        (None if code < 0 else DECISIONS[code], "".join(f"{one} " for one in held))
        for code, held in expected
    ]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(NAMES, pl.Float64), orient="row")
    context = pl.SQLContext(t=frame, eager=True)
    assert context.execute(ansi_sql(rules, "t")).rows() == [
        (*row, *verdict) for row, verdict in zip(frame.rows(), said, strict=True)
    ] or _same(context.execute(ansi_sql(rules, "t")), said)

    with sqlite3.connect(":memory:") as database:
        columns = ", ".join('"' + name.replace('"', '""') + '" REAL' for name in NAMES)
        database.execute(f"CREATE TABLE t ({columns})")
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        for query in (ansi_sql(rules, "t"), flink_sql(rules, "t")):  # SQLite knows both quotes
            assert [row[-2:] for row in database.execute(query)] == said
    database.close()


def _same(frame, said):
    return [row[-2:] for row in frame.rows()] == said


@given(some_rules())
@settings(max_examples=50, deadline=None)
def test_json_gives_the_set_back(rules):
    text = to_json(rules)
    assert from_json(text) == rules
    assert to_json(from_json(text)) == text


def test_ids_follow_conditions_alone():
    one = rule_of("block", ("amount", ">", 5), ("n_1d", "<=", 3))
    assert one.id == rule_of("review", ("n_1d", "<=", 3.0), ("amount", ">", 5.0)).id
    assert one.id != rule_of("block", ("amount", ">=", 5), ("n_1d", "<=", 3)).id
    assert rule_of("block", ("amount", ">", 0.0)).id == rule_of("block", ("amount", ">", -0.0)).id
    assert set_of(one).lineage() == [
        {
            "rule": one.id,
            "features": ["amount", "n_1d"],
            "data_digest": "d" * 64,
            "model_digest": "m" * 64,
        }
    ]


def edited(change):
    data = json.loads(to_json(set_of(rule_of("block", ("amount", ">", 5)))))
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "kind", "fix"),
    [
        (lambda d: d["rules"][0].update({"if": [["amont", ">", 5]], "id": None}), None, "id None"),
        (lambda d: d["rules"][0].update({"if": [["amount", ">", 6]]}), None, "remove the id"),
        (
            lambda d: d["rules"].append({"if": [["amont", ">", 5]], "then": "block"}),
            UnknownFeatureError,
            "no feature 'amont'; correct the name",
        ),
        (
            lambda d: d["rules"].append(
                {"if": [["amount", ">", 5], ["amount", "<=", 3]], "then": "block"}
            ),
            ContradictionError,
            "no value fulfils amount > 5.0 and amount <= 3.0; correct one",
        ),
        (
            lambda d: d["rules"].append(
                {"if": [["amount", ">", 5], ["amount", "<=", 5]], "then": "block"}
            ),
            ContradictionError,
            "no value",
        ),
        (
            lambda d: d["rules"].append({"if": [["amount", ">", 5]], "then": "review"}),
            DuplicateRuleError,
            "remove one of them",
        ),
        (lambda d: d["rules"][0].update({"then": "stop"}), UnknownDecisionError, "write one of"),
        (lambda d: d["rules"][0].update({"if": []}), None, "write some"),
        (lambda d: d["rules"][0].update({"if": [["amount", ">"]]}), None, "such as"),
        (lambda d: d["rules"][0].update({"if": [["amount", "=", 5]]}), None, "write one of"),
        (lambda d: d["rules"][0].update({"if": [["amount", ">", "5"]]}), None, "no finite number"),
        (lambda d: d["rules"][0].update({"if": [["amount", ">", True]]}), None, "no finite"),
        (
            lambda d: d["rules"][0].update({"if": [["amount", ">", 5], ["amount", ">", 6]]}),
            None,
            "keep the stricter",
        ),
        (lambda d: d["rules"][0].update({"wenn": 1}), None, "unknown key 'wenn'"),
        (lambda d: d.pop("version"), None, "lacks 'version'"),
        (lambda d: d.update(format=2), None, "reads format 1"),
        (lambda d: d.update(version=2), None, "text in quotes"),
        (lambda d: d.update(features=["amount", "amount"]), None, "listed twice"),
    ],
)
def test_a_bad_edit_is_refused_with_its_fix(change, kind, fix):
    with pytest.raises(kind or RuleSetError, match=fix):
        from_json(edited(change))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1, "format": 1}', "[" * 100_000])
def test_what_is_no_set_is_refused(text):
    with pytest.raises(RuleSetError):
        from_json(text)


def test_rules_beside_a_model_record_every_disagreement():
    rules = set_of(
        rule_of("block", ("amount", ">", 100)),
        rule_of("approve", ("n_1d", ">", 5)),
        rule_of("review", ("amount", ">", 50)),
    )
    rows = np.zeros((7, 4), np.float32)
    rows[:, 0] = [200, 0, 60, 0, 0, math.nan, 200]
    rows[:, 3] = [0, 9, 0, 0, 0, 0, 9]
    model = codes(["approve", "block", "block", "review", "approve", "block", "block"])
    final, found = beside_model(rules, rows, model, ("flag", "veto"))
    assert [DECISIONS[one] for one in final] == [
        *("block", "approve", "block", "review", "approve", "block", "block")
    ]
    assert [(one.row, one.kind) for one in found] == [
        *((0, "flag"), (1, "veto"), (2, "lighter"), (3, "no rule")),
        *((5, "no rule"), (6, "rules differ")),
    ]
    assert "amount > 100.0" in found[0].reason
    assert "2 rules lack a value" in found[4].reason
    assert found[5].by == tuple(rules.rules[place].id for place in (0, 2, 1))  # the gravest first

    kept, still = beside_model(rules, rows, model, powers=())
    assert kept.tolist() == model.tolist()
    assert [one.row for one in still] == [one.row for one in found]
    assert [one.kind for one in still] == [one.kind for one in found]


@given(some_rules(), tables, st.data())
@settings(max_examples=40, deadline=None)
def test_no_decision_changes_without_a_record(rules, rows, data):
    model = np.array([data.draw(st.integers(0, 2)) for _ in rows])
    final, found = beside_model(rules, rows, model, ("flag", "veto"))
    told = {one.row: one for one in found}
    said = run_rules(rules, rows).decisions
    for row in range(len(rows)):
        if final[row] != model[row] or (said[row] >= 0 and said[row] != model[row]):
            assert told[row].final == DECISIONS[final[row]]
            assert told[row].model == DECISIONS[model[row]]
    with pytest.raises(RuleSetError, match="unknown power"):
        beside_model(rules, rows, model, powers=("stop",))


def test_editions_are_compared_on_history():
    block, review = rule_of("block", ("amount", ">", 100)), rule_of("review", ("amount", ">", 50))
    old = set_of(block, review)
    new = set_of(replace(block, decision="review"), rule_of("review", ("n_1d", ">", 5)))
    rows = np.zeros((6, 4))
    rows[:, 0], rows[:, 3] = [200, 60, 60, 0, 0, 300], [0, 0, 0, 9, 0, 9]
    found = compare(old, new, rows, examples=1)
    assert found.added == (new.rules[1].id,)
    assert found.removed == (review.id,)
    assert found.redecided == (block.id,)
    assert (found.rows, found.changed) == (6, 5)
    assert [(one.before, one.after, one.rows, one.examples) for one in found.changes] == [
        *(("review", None, 2, (1,)), ("block", "review", 2, (0,)), (None, "review", 1, (3,)))
    ]
    assert compare(old, old, rows).changes == ()
    with pytest.raises(RuleSetError, match="different features"):
        compare(old, replace(old, features=(*NAMES, "more")), rows)


def test_figures_are_counts():
    rules = set_of(
        rule_of("block", ("amount", ">", 100)),
        rule_of("review", ("amount", ">", 50)),
        rule_of("approve", ("n_1d", ">", 5)),
    )
    rows = np.zeros((8, 4))
    rows[:, 0], rows[:, 3] = [200, 200, 60, 60, 0, 0, 7, 0], [0, 0, 0, 9, 9, 0, 0, 0]
    model = np.array([2, 1, 1, 0, 0, 0, 1, 0])
    found = measure(rules, rows, model)
    assert (found.coverage.hits, found.coverage.rows) == (3, 4)
    assert (found.precision.hits, found.precision.rows) == (3, 4)
    assert found.f1 == 0.75
    assert found.f1_block == pytest.approx(2 / 3)
    assert found.fidelity.hits == 5  # rows 1, 3 and 6 are decided otherwise
    assert found.conflicts.tolist() == [3]  # one rule approves, one reviews
    assert found.nested == 2  # rows 0 and 1 are reviewed and blocked
    block, review, approve = found.rules
    assert (block.support, block.precision.hits, block.recall.rows) == (2, 1, 1)
    assert (review.support, review.precision.hits, review.recall.rows) == (4, 3, 4)
    assert (approve.support, approve.precision.hits, approve.recall.rows) == (2, 2, 4)
    assert [(gap.row, gap.decision) for gap in found.gaps] == [(6, "review")]
    assert found.gaps[0].strongest[0][:2] == ("amount", 7.0)
    told = measure(rules, rows, model, np.tile([0.0, 1.0, -2.0, 0.5], (8, 1)))
    assert [name for name, _, _ in told.gaps[0].strongest] == ["hour`s", 'odd "name"', "n_1d"]
    text = to_text(rules, found)
    assert all(rule.id in text for rule in rules.rules)
    with pytest.raises(RuleSetError, match="other rules"):
        to_text(set_of(), found)


def test_missing_values_are_told():
    rules = set_of(rule_of("block", ("amount", "<=", 3), ("n_1d", ">", 0)))
    outcome = run_rules(rules, [[math.nan, 0, 0, 1], [0, math.nan, 0, 1], [-math.inf, 0, 0, 1]])
    assert outcome.decisions.tolist() == [-1, 2, -1]
    assert outcome.missing[:, 0].tolist() == [True, False, True]
    found = measure(rules, [[math.nan, 0, 0, 1], [0, 0, 0, 1]], [2, 2])
    assert found.rules[0].missing == 1
    assert len(found.gaps) == 1


def test_float32_rows_compare_as_what_they_are():
    near = float(np.float32(0.1))  # a little above 0.1
    rows = np.array([[0.1, 0, 0, 0]], np.float32)
    assert run_rules(set_of(rule_of("block", ("amount", ">", 0.1))), rows).matched.all()
    assert not run_rules(set_of(rule_of("block", ("amount", ">", near))), rows).matched.any()


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (3, 10), (1, 1), (500, 1000)])
def test_wilson_solves_its_equation(hits, rows):
    share = wilson(hits, rows)
    assert 0 <= share.low <= share.value <= share.high <= 1
    for end in (share.low, share.high):
        if 0 < end < 1:
            deviation = abs(share.value - end) / math.sqrt(end * (1 - end) / rows)
            assert deviation == pytest.approx(1.959963984540054, rel=1e-9)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)


@pytest.mark.parametrize("name", ["a\nb", "", "a\x00"])
def test_names_that_sql_lacks_are_refused(name):
    rules = RuleSet("x", "1", (name,), (rule_of("block", (name, ">", 1)),))
    for export in (ansi_sql, flink_sql):
        with pytest.raises(RuleSetError, match="rename"):
            export(rules, "t")
    with pytest.raises(RuleSetError, match="added column"):
        ansi_sql(RuleSet("x", "1", ("rule_ids",), ()), "t")


def test_operators_are_four():
    assert set(OPERATORS) == {">", ">=", "<", "<="}
