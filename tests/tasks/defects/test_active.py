"""Which images are asked for: what holds for any input, and what is gained by it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.defects.active.coverage import spread_out, typical
from tasks.defects.active.draw import drawn, random_sample
from tasks.defects.active.guess import Components, Guess
from tasks.defects.active.rank import RankConfig, rank, uncertainty
from tasks.defects.active.texture import LENGTH, texture
from tests.benchmarks import defects_active

NONE = np.zeros(0, np.int64)


def blobs(each=20, centres=((0, 0), (10, 0), (0, 10)), seed=0):
    """Points around centres, and the number of the centre."""
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(c, 1.0, (each, 2)) for c in centres])
    return points, np.repeat(np.arange(len(centres)), each)


def test_without_labels_each_cluster_is_asked_once_and_its_middle_first():
    points, blob = blobs()
    found = rank(points, None, NONE, 3)
    assert sorted(blob[found.order]) == [0, 1, 2]
    assert {reason.why for reason in found.reasons} == {"typical"}
    for place in found.order:
        mean = points[blob == blob[place]].mean(0)
        assert np.linalg.norm(points[place] - mean) < 1.0


def test_clusters_without_labels_come_first_and_large_ones_before_small_ones():
    points, blob = blobs()
    found = typical(points, np.array([3, 25]), np.ones(60, bool), 1)
    assert blob[found].tolist() == [2]
    points = np.concatenate([points, np.random.default_rng(1).normal(20, 0.1, (90, 2))])
    assert typical(points, NONE, np.ones(150, bool), 4)[0] >= 60


def test_later_the_uncertain_are_asked_and_why_is_told():
    points, blob = blobs(centres=((0, 0), (6, 0)))
    between = np.array([[3.0, 0.1], [3.0, -0.2]])
    everything = np.concatenate([points, between])
    labelled = np.arange(0, 40, 4)
    guess = Guess.of(everything[labelled], blob[labelled])
    odds = guess.probabilities(everything, 2)
    found = rank(everything, odds, labelled, 2, RankConfig(start=10, candidates=1))
    assert set(found.order) == {40, 41}
    assert [reason.why for reason in found.reasons] == ["unsure"] * 2
    assert set(found.reasons[0].types) == {0, 1}
    assert sum(found.reasons[0].odds) == pytest.approx(1)


def test_a_batch_is_spread_over_what_is_uncertain():
    points = np.repeat([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], [50, 3, 3], axis=0)
    points += np.random.default_rng(0).normal(0, 0.01, points.shape)
    chosen = points[spread_out(points, np.ones(56), 3)]
    assert len({tuple(np.rint(point)) for point in chosen}) == 3


def test_rare_types_and_what_is_known_of_the_line_count():
    points = np.random.default_rng(0).normal(size=(4, 2))
    odds = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0]])
    labelled = np.array([3])
    plain = RankConfig(start=1, candidates=1, balance=1.0)
    counts = np.array([10, 10, 0])
    assert rank(points, odds, labelled, 1, plain, counts=counts).order.tolist() == [1]
    assert rank(points, odds, labelled, 1, plain, counts=counts[::-1].copy()).order.tolist() == [0]
    # Where the first type is a hundred times as frequent, half is not undecided any more.
    priors = np.array([0.01, 0.98, 0.01])
    found = rank(points, odds, labelled, 1, plain, priors=priors)
    assert found.order.tolist() == [2]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nothing_is_asked_twice_nor_a_copy(data):
    n = data.draw(st.integers(1, 40))
    batch = data.draw(st.integers(0, 50))
    seed = data.draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3)) * data.draw(st.sampled_from([0.0, 1.0]))
    groups = rng.integers(0, n, n)
    labelled = rng.permutation(n)[: data.draw(st.integers(0, n))]
    odds = rng.dirichlet(np.ones(3), n) if data.draw(st.booleans()) else None
    found = rank(points, odds, labelled, batch, RankConfig(start=3), groups=groups)
    asked = groups[found.order].tolist()
    assert len(set(asked)) == len(asked) == len(found.reasons)
    assert not set(asked) & set(groups[labelled].tolist())
    left = len(set(groups.tolist()) - set(groups[labelled].tolist()))
    assert len(asked) == min(batch, left)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"features": np.full((3, 2), np.nan)}, "finite"),
        ({"features": np.zeros(3)}, "images, features"),
        ({"probabilities": np.ones((2, 2))}, "finite ones"),
        ({"labelled": np.array([3])}, "not there"),
        ({"groups": np.zeros(2, np.int64)}, "one for each"),
        ({"counts": np.ones(3, np.int64)}, "one for each type"),
    ],
)
def test_what_does_not_fit_is_told(wrong, why):
    good = {
        "features": np.zeros((3, 2)),
        "probabilities": np.ones((3, 2)) / 2,
        "labelled": NONE,
        "batch": 1,
    }
    with pytest.raises(ValueError, match=why):
        rank(**(good | wrong))
    with pytest.raises(ValueError, match="candidates at least 1"):
        RankConfig(candidates=0)
    with pytest.raises(ValueError, match="entropy or margin"):
        RankConfig(uncertainty="least")


def test_uncertainty_is_highest_where_all_types_are_alike():
    odds = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3] * 3])
    for by in ("entropy", "margin"):
        found = uncertainty(odds, by)
        assert found[0] == pytest.approx(0)
        assert found[2] == pytest.approx(1)
    assert uncertainty(np.ones((2, 1))).tolist() == [0, 0]


def test_the_draw_does_not_depend_on_the_listing():
    names = [f"{i}.png" for i in range(50)]
    order = [names[i] for i in drawn(names)]
    assert order == [sorted(names)[i] for i in drawn(sorted(names))]
    assert order != names
    fewer = [name for name in order if name != "7.png"]
    assert [sorted(fewer)[i] for i in drawn(sorted(fewer))] == fewer


def test_a_random_sample_ends_at_a_gap_and_with_what_the_draw_asked_for():
    names = [f"{i}.png" for i in range(20)]
    a, b, c, d, e = [names[i] for i in drawn(names)][:5]
    assert random_sample(names, {a, b, d}, {a, b, d}) == [a, b]
    assert random_sample(names, {a, b, c, e}, {b}) == [a, b]
    assert random_sample(names, {a, b}, set()) == []


def test_labels_of_hard_images_do_not_get_into_the_random_sample():
    rng = np.random.default_rng(0)
    taken, whole = [], []
    for run in range(400):
        names = [f"{run}-{i}.png" for i in range(40)]
        hard = rng.random(40)
        labelled = {names[i] for i in np.flatnonzero(hard > 0.7)}  # as a ranking would
        asked: set[str] = set()
        for place in drawn(names):
            if names[place] not in labelled and len(asked) < 5:
                asked.add(names[place])
        sample = random_sample(names, labelled | asked, asked)
        order = [names[i] for i in drawn(names)]
        assert sample == order[: len(sample)]
        whole += [hard.mean()]
        taken += [np.mean([hard[names.index(name)] for name in sample])]
    # Those asked for come last, so that the sample itself leans a little the other way.
    assert abs(np.mean(taken) - np.mean(whole)) < 0.05


def test_components_and_a_guess_tell_types_apart():
    points, blob = blobs()
    made = Components.of(np.hstack([points, points]), 2)
    within = made.of_images(np.hstack([points, points]))
    assert within.std() == pytest.approx(1)
    odds = Guess.of(within[::5], blob[::5]).probabilities(within, 4)
    assert (odds.argmax(1) == blob).mean() > 0.98
    assert odds.sum(1) == pytest.approx(np.ones(60))
    assert odds[:, 3].max() == 0
    one_each = Guess.of(within[[0, 20, 40]], np.arange(3)).probabilities(within, 3)
    assert (one_each.argmax(1) == blob).mean() > 0.9
    only = Guess.of(within[:3], np.zeros(3, np.int64)).probabilities(within, 2)
    assert only[:, 0] == pytest.approx(np.ones(60))
    with pytest.raises(ValueError, match="one each"):
        Guess.of(within[:0], NONE)
    with pytest.raises(ValueError, match="finite"):
        Components.of(np.full((2, 2), np.inf))


def test_texture_does_not_see_brightness_but_direction():
    rng = np.random.default_rng(0)
    gray = rng.integers(20, 200, (60, 80)).astype(np.uint8)
    found = texture(gray)
    assert found.shape == (LENGTH,)
    assert np.square(found).sum() == pytest.approx(4, abs=1e-4)
    assert texture(gray.astype(np.uint16) * 257) == pytest.approx(found)
    assert texture(gray + np.uint8(30)) == pytest.approx(found)
    stripes = np.tile(np.array([0, 0, 255, 255], np.uint8), (64, 16))
    assert np.abs(texture(stripes) - texture(stripes.T)).max() > 0.3
    assert texture(np.zeros((1, 1), np.uint8)).sum() == 0
    assert np.isfinite(texture(np.zeros((2_000, 30), np.uint8))).all()
    with pytest.raises(ValueError, match="give gray"):
        texture(np.zeros((4, 4, 3)))


def test_smoke(capsys):
    defects_active.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "defects-active"
    assert result["labels_ratio"] <= 0.6
    assert result["ranked_100_acc"] > 0.9
