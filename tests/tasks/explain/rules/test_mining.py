"""Mining: choice against enumeration, planted rules found again, refusals, the benchmark."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.explain.rules.candidates import holds_where, readable
from tasks.explain.rules.choose import LEAST_GAIN, Cover, choose
from tasks.explain.rules.files import from_json, to_json
from tasks.explain.rules.measure import f1_of, measure
from tasks.explain.rules.mine import MineConfig, mine
from tasks.explain.rules.model import RuleSetError, table_digest
from tasks.explain.rules.teacher import Teacher
from tests.benchmarks import rules as benchmark
from tests.benchmarks._inspected_parts import NAMES as PARTS
from tests.benchmarks._inspected_parts import measures

NAMES = ("a", "b", "c", "d")


def planted(rows, seed=0):
    """Rows, and scores of a model that blocks where a > .9, reviews where b <= .2 and c > .7."""
    values = np.random.default_rng(seed).random((rows, 4)).astype(np.float32)
    scores = np.full(rows, -3.0)
    scores[(values[:, 1] <= 0.2) & (values[:, 2] > 0.7)] = 1.0
    scores[values[:, 0] > 0.9] = 3.0
    return values, Teacher.from_scores(scores, 0.0, 2.0)


def test_planted_rules_are_found_again():
    rows, teacher = planted(8_000)
    found = mine(rows, NAMES, teacher, model_digest="m")
    assert [(rule.decision, rule.features) for rule in found.rules] == [
        *(("block", ("a",)), ("review", ("b", "c")))
    ]
    limits = [one.value for rule in found.rules for one in rule.conditions]
    assert limits == pytest.approx([0.9, 0.2, 0.7], abs=0.01)
    unseen, decided = planted(5_000, seed=1)
    figures = measure(found, unseen, decided.decisions)
    assert figures.f1 > 0.98
    assert figures.f1_block > 0.98
    assert found.data_digest == table_digest(rows, NAMES)
    assert found == from_json(to_json(found)) == mine(rows, NAMES, teacher, model_digest="m")


def test_decisions_alone_suffice_and_missing_values_match_nothing():
    rows, teacher = planted(8_000)
    rows[::50, 0] = np.nan
    rows[1::50, 3] = np.inf
    alone = Teacher.from_decisions(teacher.decisions)
    found = mine(rows, NAMES, alone, importance=np.array([2.0, 1.0, 1.0, 0.0]))
    unseen, decided = planted(5_000, seed=1)
    assert measure(found, unseen, decided.decisions).f1 > 0.95


def test_the_most_rules_are_not_exceeded():
    draws = np.random.default_rng(3)
    rows = draws.normal(size=(4_000, 4)).astype(np.float32)
    scores = (rows[:, :3].astype(np.float64) ** 2).sum(axis=1) - 6
    teacher = Teacher.from_scores(scores, 0.0, 4.0)
    for most in (1, 4, 12):
        found = mine(rows, NAMES, teacher, MineConfig(max_rules=most, max_conditions=3))
        assert 1 <= len(found.rules) <= most
        assert max(len(rule.conditions) for rule in found.rules) <= 3


@st.composite
def covers(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    draws = np.random.default_rng(seed)
    count, wanted, others = (int(draws.integers(1, top)) for top in (8, 9, 9))
    return Cover(
        (draws.random((count, wanted)) < 0.4).astype(np.float32),
        (draws.random((count, others)) < 0.2).astype(np.float32),
        draws.integers(1, 4, wanted).astype(np.float64),
        draws.integers(1, 4, others).astype(np.float64),
    )


def plain_f1(cover, chosen):
    hits = sum(
        w
        for w, c in zip(cover.wanted_weights, cover.wanted.T, strict=True)
        if any(c[j] for j in chosen)
    )
    false = sum(
        w
        for w, c in zip(cover.others_weights, cover.others.T, strict=True)
        if any(c[j] for j in chosen)
    )
    return 2 * hits / (hits + false + sum(cover.wanted_weights))


@given(covers(), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_no_single_addition_or_exchange_betters_a_choice(cover, most):
    """The judge enumerates: all sets for the bound, all neighbours for the optimum."""
    chosen = choose(cover, most)
    assert len(set(chosen)) == len(chosen) <= most
    reached = plain_f1(cover, chosen)
    assert reached == pytest.approx(cover.f1(chosen), abs=1e-12)
    every = range(len(cover.wanted))
    sets = [s for size in range(most + 1) for s in itertools.combinations(every, size)]
    assert reached <= max(plain_f1(cover, one) for one in sets) + 1e-12
    if len(chosen) < most:
        assert all(plain_f1(cover, [*chosen, new]) <= reached + LEAST_GAIN + 1e-8 for new in every)
    for old, new in itertools.product(chosen, every):
        rest = [one for one in chosen if one != old]
        assert plain_f1(cover, [*rest, new]) <= reached + 1e-8


def test_rules_given_are_kept_and_built_upon():
    cover = Cover(np.eye(3, dtype=np.float32), np.zeros((3, 1), np.float32), np.ones(3), np.ones(1))
    assert sorted(choose(cover, 2, [0])) == [1, 2]
    assert choose(cover, 0) == []


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_readable_thresholds_part_the_same_rows(seed):
    draws = np.random.default_rng(seed)
    columns = draws.normal(size=(2, 30)) * 10.0 ** draws.integers(-5, 6)
    path = tuple(
        (place, bool(draws.integers(2)), float(draws.choice(columns[place]))) for place in (0, 1)
    )
    short = readable(path, columns)
    assert (holds_where(short, columns) == holds_where(path, columns)).all()
    assert all(len(repr(new[2])) <= len(repr(old[2])) for new, old in zip(short, path, strict=True))


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"teacher": Teacher.from_scores(np.zeros(100), 1.0, 2.0)}, "flags 0 of 100"),
        ({"teacher": Teacher.from_scores(np.ones(100), 1.0, 2.0)}, "flags 100 of 100"),
        ({"teacher": Teacher.from_decisions([0, 1])}, "one row for each decision"),
        ({"names": NAMES[:3]}, "one column for each name"),
        ({"importance": np.zeros(4)}, "not all zero"),
        ({"importance": np.array([1, 1, 1, np.nan])}, "none negative"),
    ],
)
def test_what_cannot_be_mined_is_refused(change, fix):
    rows, teacher = planted(100)
    given_ = {"rows": rows, "names": NAMES, "teacher": teacher} | change
    with pytest.raises(RuleSetError, match=fix):
        mine(**given_)


@pytest.mark.parametrize("count", [4, 40, 2_000])
def test_decisions_without_a_reason_give_no_rules(count):
    draws = np.random.default_rng(5)
    rows = draws.normal(size=(count, 4)).astype(np.float32)
    teacher = Teacher.from_decisions([1, *(draws.random(count - 1) < 0.02)])
    with pytest.raises(RuleSetError, match="lower min_support"):
        mine(rows, NAMES, teacher)


def test_teachers_and_settings_are_checked():
    with pytest.raises(RuleSetError, match="finite score"):
        Teacher.from_scores([0.0, np.nan], 0, 1)
    with pytest.raises(RuleSetError, match="not above block_at"):
        Teacher.from_scores([0.0], 2, 1)
    with pytest.raises(RuleSetError, match="0 \\(approve\\)"):
        Teacher.from_decisions([0, 3])
    with pytest.raises(RuleSetError, match="max_block_rules"):
        MineConfig(max_block_rules=-1)
    assert Teacher.from_scores([0.0, 1.0, 2.0, 3.0], 1, 2).decisions.tolist() == [0, 1, 2, 2]


def test_constant_features_are_never_cut():
    rows, teacher = planted(6_000)
    rows[:, 3] = 7.0
    found = mine(rows, NAMES, teacher)
    assert "d" not in {feature for rule in found.rules for feature in rule.features}


@pytest.mark.long
def test_benchmark(capsys):
    benchmark.main(["--smoke", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["f1_block_review"] > 0.8
    assert found["n_rules"] <= 30 >= found["plain_n_rules"]
    assert {"fidelity", "coverage", "precision", "tree_f1", "figs_f1", "plain_f1"} <= found.keys()
    assert {"gain", "gain_figs", "plain_conflicts", "plain_nested"} <= found.keys()
    assert found["defects_f1_block_review"] > 0.6
    assert found["defects_n_rules"] <= 30
    assert f1_of(np.array([True, True]), np.array([True, False])) == pytest.approx(2 / 3)


def test_measures_of_parts_tell_a_spot_apart():
    plain = np.full((48, 48), 120, np.uint8)
    spot = plain.copy()
    spot[10:14, 8:28] = 30
    before, after = (dict(zip(PARTS, measures(one), strict=True)) for one in (plain, spot))
    assert (before["spots"], before["spot_pixels"], before["mean"]) == (0, 0, 120)
    assert after["spots"] >= 1
    assert after["spot_length"] > 3 * after["spot_width"]
    assert after["spot_darker"] == 1
    assert after["darkest"] < 60 < after["mean"]
