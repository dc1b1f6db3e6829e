"""Thresholds by promise: exact ranks, refusals, ties, parts, costs."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.defects.judgement import Thresholds
from tasks.defects.promise.bounds import average_needed, average_rank, bound, needed, rank
from tasks.defects.promise.compare import compare
from tasks.defects.promise.cost import CostModel, Costs
from tasks.defects.promise.parts import Scored, part_scores, scored
from tasks.defects.promise.prevalence import estimate_prevalence
from tasks.defects.promise.rates import escape_rates, false_reject_rate
from tasks.defects.promise.thresholds import (
    Promise,
    TooFewPartsError,
    promised_thresholds,
)
from tasks.defects.promise.words import assumptions, sentences
from tasks.defects.samples import Sample
from tests.benchmarks import defects_promise

PER = ("every image", "one image", "part")


def alone(scores):
    return Scored(np.asarray(scores, float), [str(i) for i in range(len(scores))])


def exactly_at_most(k, n, alpha):
    """P(Binomial(n, alpha) <= k) as a fraction."""
    alpha = Fraction(str(alpha))
    return sum(math.comb(n, i) * alpha**i * (1 - alpha) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(("alpha", "confidence"), [(0.1, 0.95), (0.05, 0.95), (0.2, 0.9)])
@pytest.mark.parametrize("n", [5, 13, 14, 28, 29, 46, 58, 59, 93, 120, 250])
def test_the_rank_is_the_last_that_keeps_the_promise(n, alpha, confidence):
    """One rank less would be wasted, one more would break it; in fractions, without rounding."""
    k = rank(n, alpha, confidence)
    slack = 1 - Fraction(str(confidence))
    assert k == 0 or exactly_at_most(k - 1, n, alpha) <= slack
    assert exactly_at_most(k, n, alpha) > slack
    assert k == 0 or bound(n, k, confidence) <= alpha < bound(n, k + 1, confidence)


@given(st.floats(0.005, 0.6), st.floats(0.5, 0.999), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_needed_is_the_first_size_that_is_not_refused(alpha, confidence, misses):
    n = needed(alpha, confidence, misses)
    assert rank(n, alpha, confidence) == misses + 1
    assert rank(n - 1, alpha, confidence) == misses


@given(st.integers(1, 99), st.integers(0, 3))
def test_the_mean_promise_counts_in_decimals(percent, misses):
    n = average_needed(percent / 100, misses)
    assert average_rank(n, percent / 100) >= misses + 1
    assert n == 0 or average_rank(n - 1, percent / 100) < misses + 1
    assert Fraction(misses + 1, n + 1) <= Fraction(percent, 100)


def test_sizes_of_the_notes():
    assert [needed(a, 0.95) for a in (0.1, 0.05, 0.01)] == [29, 59, 299]
    assert [average_needed(a) for a in (0.1, 0.05, 0.01)] == [9, 19, 99]
    assert 0.058 < bound(50, 1, 0.95) < 0.0583


@pytest.mark.parametrize(("alpha", "missing"), [(0.1, 0), (0.05, 9), (0.01, 249)])
def test_fifty_defects_promise_six_per_cent_and_no_less(alpha, missing):
    promise, defects = Promise(max_escape=alpha), alone(np.arange(50))
    if not missing:
        assert promised_thresholds(promise, defects).kept[0].rank == 2
        return
    with pytest.raises(TooFewPartsError, match=rf"label {missing} more.*no less than 0\.0582") as e:
        promised_thresholds(promise, defects)
    assert e.value.missing == {"defective parts": missing}
    enough = alone(np.arange(50 + missing))
    assert promised_thresholds(promise, enough).thresholds == Thresholds(0.0, np.inf)


def test_a_refusal_tells_all_that_is_missing():
    kinds = ["crack"] * 60 + ["dent"] * 20
    ng = Scored(np.arange(80.0), [str(i) for i in range(80)], kinds)
    promise = Promise(max_escape=0.05, max_false_reject=0.01, by_type=True)
    with pytest.raises(TooFewPartsError, match="average=True") as e:
        promised_thresholds(promise, ng)
    # Two types share the 5 %, so each is at 97.5 %.
    assert e.value.missing == {
        "defective parts of type crack": needed(0.05, 0.975) - 60,
        "defective parts of type dent": needed(0.05, 0.975) - 20,
        "good parts": 299,
    }
    kept = promised_thresholds(Promise(max_escape=0.05, average=True, by_type=True), ng).kept
    assert [(one.kind, one.rank, one.threshold) for one in kept] == [
        ("crack", 3, 2.0), ("dent", 1, 60.0),
    ]  # fmt: skip


def test_types_are_not_promised_without_names():
    promise = Promise(max_escape=0.1, by_type=True)
    for kinds in ((), ["crack"] * 39 + [""]):
        with pytest.raises(ValueError, match="name them all"):
            promised_thresholds(promise, Scored(np.arange(40.0), list("ab" * 20), kinds))
    with pytest.raises(TooFewPartsError):
        promised_thresholds(promise)


def test_copies_of_images_carry_nothing():
    ng = Scored(np.arange(600.0), [str(i // 20) for i in range(600)])
    with pytest.raises(TooFewPartsError, match="30 are there"):
        promised_thresholds(Promise(max_escape=0.05), ng)


@given(
    st.lists(st.integers(0, 6), min_size=30, max_size=80),
    st.lists(st.integers(-2, 4), min_size=30, max_size=80),
    st.sampled_from(PER),
)
@settings(deadline=None)
def test_no_more_calibration_parts_lie_beyond_than_the_rank_allows(ng, ok, per):
    """Also where many scores are equal."""
    promise = Promise(max_escape=0.1, max_false_reject=0.1, per=per)
    found = promised_thresholds(promise, alone(ng), alone(ok))
    verdicts = [found.thresholds.verdict(score) for score in ng]
    rejected = [found.thresholds.verdict(score) for score in ok]
    escape, reject = found.kept
    assert verdicts.count("OK") <= escape.rank - 1
    assert rejected.count("NG") <= reject.rank - 1
    assert escape.bound <= 0.1
    assert found.thresholds.ok_below <= escape.threshold
    assert found.thresholds.ng_from >= min(reject.threshold, found.thresholds.ng_from)


@given(st.lists(st.floats(-1e30, 1e30), min_size=29, max_size=40, unique=True))
@settings(deadline=None)
def test_thresholds_stored_as_float32_err_to_the_safe_side(scores):
    found = promised_thresholds(
        Promise(max_escape=0.1, max_false_reject=0.1), alone(scores), alone(scores)
    )
    for one in found.kept:
        assert float(np.float32(one.threshold)) == one.threshold
    assert found.kept[0].threshold <= sorted(scores)[found.kept[0].rank - 1]
    assert found.kept[1].threshold > sorted(scores)[-found.kept[1].rank]


def test_equal_scores_are_all_on_the_safe_side():
    same = alone(np.full(40, 0.1))
    found = promised_thresholds(Promise(max_escape=0.1, max_false_reject=0.1), same, same)
    assert found.thresholds.verdict(0.1) == "REVIEW"
    assert found.thresholds.verdict(float(np.float32(0.1))) == "REVIEW"


@pytest.mark.parametrize("score", [0.0, 1e-46, 1e-40, -1e-46, -1e-40, 1e39, -1e39])
def test_thresholds_are_never_numbers_that_count_as_0_or_none(score):
    """A score of 0 must not be rejected where the processor takes 1e-45 for 0."""
    same = alone(np.full(40, score))
    found = promised_thresholds(Promise(max_escape=0.1, max_false_reject=0.1), same, same)
    assert found.thresholds.ok_below <= score
    assert found.thresholds.ng_from > score or found.thresholds.ng_from == np.inf
    for one in (found.thresholds.ok_below, found.thresholds.ng_from):
        assert one == 0 or abs(one) >= np.finfo(np.float32).tiny
        assert one in {float(np.float32(one)), np.inf, -np.inf}


def test_what_nobody_could_promise_is_not_proposed():
    sure = Promise(max_escape=0.1, confidence=0.99999)
    with pytest.raises(TooFewPartsError, match=r"at 0\.99999 confidence") as e:
        promised_thresholds(sure, alone([1.0]))
    assert "no less than" not in str(e.value)


def test_a_side_without_a_promise_is_left_to_people():
    scores = alone(np.arange(40))
    escape = promised_thresholds(Promise(max_escape=0.1), scores)
    reject = promised_thresholds(Promise(max_false_reject=0.1), ok=scores)
    assert escape.thresholds == Thresholds(0.0, np.inf)
    assert reject.thresholds.ok_below == -np.inf
    assert reject.thresholds.verdict(39.0) == "REVIEW"
    assert reject.thresholds.verdict(39.1) == "NG"
    nobody = promised_thresholds(Promise(max_escape=0.1, review=False), scores)
    assert nobody.thresholds == Thresholds(0.0, 0.0)


def test_crossed_promises_take_the_lower_threshold_and_say_so():
    good, bad = alone(np.arange(100)), alone(1_000 + np.arange(100))
    promise = Promise(max_escape=0.05, max_false_reject=0.05, review=False)
    found = promised_thresholds(promise, bad, good)
    assert found.crossed
    assert found.thresholds.ok_below == found.thresholds.ng_from == found.kept[1].threshold
    assert "nothing is left to review" in sentences(found)[-1]
    # The shared threshold lies below every defective part.
    assert "at most 1 of 100 calibration parts lie beyond" in sentences(found)[0]
    with pytest.raises(ValueError, match="no single threshold"):
        promised_thresholds(promise, good, bad)


def test_what_a_part_with_several_images_counts_as():
    images = Scored(np.array([3.0, 1.0, 2.0, 5.0]), ["a", "a", "a", "b"])
    assert part_scores(images, "escape", "every image").tolist() == [1, 5]
    assert part_scores(images, "escape", "part").tolist() == [3, 5]
    assert part_scores(images, "false reject", "every image").tolist() == [3, 5]
    assert part_scores(images, "false reject", "part").tolist() == [3, 5]
    drawn = [part_scores(images, "escape", "one image", seed)[0] for seed in range(300)]
    assert all(70 < drawn.count(score) < 130 for score in (1.0, 2.0, 3.0))


def test_good_images_of_a_defective_part_are_on_neither_side():
    pixels = np.zeros((8, 8), np.uint8)
    rows = [("a", "ng", "p"), ("b", "ok", "p"), ("c", "ok", "q"), ("d", None, "r"), ("e", "ng", "")]
    samples = [Sample(name, pixels, label, part=part) for name, label, part in rows]
    ng, ok = scored(samples, [4, 3, 2, 1, 0])
    assert ng.scores.tolist() == [4, 0]
    assert ok.scores.tolist() == [2]
    assert ng.places()[1] == 2


def redraws(k_off, draws=1_500, n=59, alpha=0.05):
    """Return how often the true miss rate is kept, with a threshold so many ranks off."""
    rng = np.random.default_rng(5)
    promise, held = Promise(max_escape=alpha), 0
    for _ in range(draws):
        scores = rng.random(n)
        place = promised_thresholds(promise, alone(scores)).kept[0].rank - 1 + k_off
        held += np.sort(scores)[place] <= alpha
    return held / draws


def test_the_promise_holds_over_redraws_and_one_rank_more_would_not():
    assert 0.935 < redraws(0) < 0.968
    assert redraws(1) < 0.83


def test_types_hold_all_at_once():
    """Without sharing the level among three types they would in .95 ** 3 of all draws."""
    rng = np.random.default_rng(2)
    shared = Promise(max_escape=0.05, by_type=True)
    n, draws, held = needed(0.05, 1 - 0.05 / 3), 600, np.zeros(2)
    for _ in range(draws):
        u = rng.random((3, n))
        images = Scored(u.ravel(), [str(i) for i in range(3 * n)], [k for k in "abc" for _ in u[0]])
        own = [one.threshold for one in promised_thresholds(shared, images).kept]
        alone_each = [promised_thresholds(Promise(max_escape=0.05), alone(v[:59])) for v in u]
        held += max(own) <= 0.05, max(one.thresholds.ok_below for one in alone_each) <= 0.05
    assert n == 80
    assert held[0] / draws > 0.925
    assert held[1] / draws < 0.9


def test_rates_have_exact_intervals_and_share_the_level_among_types():
    kinds = ["a"] * 50 + ["b"] * 20
    ng = Scored(np.r_[np.ones(50), np.zeros(2), np.ones(18)], [str(i) for i in range(70)], kinds)
    whole, first, second = escape_rates(ng, Thresholds(0.5, 0.5))
    assert (whole.name, whole.parts, whole.wrong) == ("all", 70, 2)
    assert (first.name, first.wrong, second.name, second.wrong) == ("a", 0, "b", 2)
    assert first.high == pytest.approx(1 - 0.0125 ** (1 / 50))  # .05 / 2 types, two-sided
    rejected = false_reject_rate(alone([0.0, 0.5, 1.0]), Thresholds(0.5, 0.5))
    assert (rejected.parts, rejected.wrong) == (3, 2)


def line(seed=0, n=60, images=3):
    rng = np.random.default_rng(seed)
    parts = [str(i // images) for i in range(n * images)]
    ng = np.repeat(rng.normal(2.0, 1, n), images) + rng.normal(0, 0.3, n * images)
    ok = np.repeat(rng.normal(0, 1, n), images) + rng.normal(0, 0.3, n * images)
    return Scored(ng, parts), Scored(ok, parts)


@pytest.mark.parametrize("costs", [(100, 5, 1), (3, 5, 1), (1, 1, 1), (10, 10, 0.1), (50, 1, 0)])
def test_the_cheapest_pair_is_the_cheapest_of_all_pairs(costs):
    ng, ok = line(n=12)
    model = CostModel(ng, ok, Costs(*costs), 0.1, draws=2)
    at = [-np.inf, *sorted({*ng.scores, *ok.scores}), np.inf]
    pairs = itertools.combinations_with_replacement(at, 2)
    least = min(model.point(Thresholds(a, b)).cost for a, b in pairs)
    assert model.cheapest().cost == pytest.approx(least)


def test_the_cheapest_within_a_promise_keeps_it():
    ng, ok = line()
    promised = promised_thresholds(Promise(max_escape=0.05, max_false_reject=0.1), ng, ok)
    free = CostModel(ng, ok, Costs(1, 20, 1), 0.1)
    within = free.cheapest(promised.thresholds)
    assert free.cheapest().thresholds.ok_below > promised.thresholds.ok_below
    assert within.thresholds.ok_below <= promised.thresholds.ok_below
    assert within.thresholds.ng_from >= promised.thresholds.ng_from
    assert within.low < within.cost < within.high
    assert within.cost >= free.cheapest().cost
    curve = free.curve()
    assert (curve.low <= curve.cost + 1e-12).all()
    assert (curve.cost <= curve.high + 1e-12).all()
    assert curve.cost[0] == pytest.approx(0.9 * 20)  # all rejected
    assert curve.cost[-1] == pytest.approx(0.1 * 1)  # all passed


def test_intervals_of_cost_are_by_part():
    """Twenty copies of every image leave the interval as wide as it was."""
    rng = np.random.default_rng(3)
    scores, good = rng.normal(1, 1, 60), rng.normal(-1, 1, 60)
    at, costs = Thresholds(0.0, 0.0), Costs(10, 1, 1)
    widths = []
    for copies in (1, 20):
        parts = [str(i) for i in range(60) for _ in range(copies)]
        sides = Scored(np.repeat(scores, copies), parts), Scored(np.repeat(good, copies), parts)
        point = CostModel(*sides, costs, 0.2).point(at)
        widths.append(point.high - point.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
def test_prevalence_is_estimated_from_unlabelled_parts(share):
    inside = []
    for seed in range(10):
        ng, ok = line(seed, n=100)
        rng = np.random.default_rng((seed, 9))
        bad = rng.random(500) < share
        mixed = np.where(bad, rng.normal(2.0, 1, 500), rng.normal(0, 1, 500))
        found = estimate_prevalence(ng, ok, alone(mixed), draws=200)
        inside.append(found.low <= share <= found.high)
    assert sum(inside) >= 8
    with pytest.raises(ValueError, match="overlap"):
        estimate_prevalence(ok, ok, ok)


def test_a_shift_is_told_and_none_is_not():
    rng = np.random.default_rng(4)
    before = alone(rng.normal(size=59))
    flagged = [compare(before, alone(rng.normal(size=60)), level=0.05).shifted for _ in range(200)]
    assert sum(flagged) <= 18  # 10 expected at most, sd 3.1
    assert compare(before, alone(rng.normal(-1.2, 1, 60))).shifted


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "give max_escape"),
        ({"max_escape": 5}, r"share between 0 and 1"),
        ({"max_escape": 0.1, "confidence": 95}, "share between"),
        ({"max_escape": 0.1, "per": "photo"}, "give one of"),
        ({"max_escape": 0.1, "source": "training"}, "give one of"),
        ({"max_false_reject": 0.1, "by_type": True}, "only escapes"),
    ],
)
def test_nonsense_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Promise(**wrong)
    with pytest.raises(ValueError, match="not finite"):
        alone([1.0, np.nan])


def test_words_say_what_is_assumed():
    scores = alone(np.arange(60))
    exact = promised_thresholds(Promise(max_escape=0.1), scores)
    folds = promised_thresholds(Promise(max_escape=0.1, source="out-of-fold"), scores)
    assert sentences(exact)[0].startswith("At most 10 % of defective parts have an image that")
    assert "1 of 60" in sentences(exact)[0]
    assert sentences(folds)[0].startswith("An estimate: ")
    assert any("as estimates" in text for text in assumptions(folds))
    mean = promised_thresholds(Promise(max_escape=0.1, average=True), scores)
    assert "in the mean" in sentences(mean)[0]


@pytest.mark.long
def test_the_benchmark_runs_at_its_small_size(capsys):
    defects_promise.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["refused_when_small"] is True
    assert result["upper_min"] >= 0.95
    for alpha in ("05", "10", "20"):
        assert result[f"held_share_{alpha}"] > result[f"held_share_rank_off_{alpha}"]
        assert result[f"held_share_images_{alpha}"] < 0.85
    assert result["held_share_training"] < 0.6
