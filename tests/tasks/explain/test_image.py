"""Explanations of images by segments: exact where it can be judged, additive, errors named."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tasks.explain.errors import (
    ExplanationTimeoutError,
    ImageError,
    OptionsError,
    PlayersError,
    ScoreError,
    UnstableScoreError,
)
from tasks.explain.image.explainer import ImageExplainer, ImageOptions
from tasks.explain.image.fills import filled
from tasks.explain.image.segments import grid_cells, grid_shift, superpixels
from tasks.explain.scores import TorchScores

FEW = ImageOptions(segments=6, layouts=1)


def picture(channels=1, height=24, width=32, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, height, width)).astype(np.float32)


def curved(images):
    """A score in which segments interact."""
    flat = images.astype(np.float64).reshape(len(images), -1)
    weights = np.random.default_rng(5).normal(size=(flat.shape[1], 3)) / 8
    return np.tanh(flat @ weights).prod(axis=1) + flat @ weights[:, 0]


def small_net(channels=1):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 4, 3, padding=1)
    return nn.Sequential(
        conv, nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )


def by_definition(function, image, labels, fill):
    """Shapley's mean over orders of what a segment adds on joining."""
    players = labels.max() + 1
    other = filled(image, fill)
    known = {}
    for chosen in itertools.product([False, True], repeat=players):
        inside = np.array(chosen)[labels]
        known[chosen] = function(np.where(inside, image, other)[None])[0]
    values = np.zeros(players)
    for order in itertools.permutations(range(players)):
        chosen = [False] * players
        for player in order:
            before = known[tuple(chosen)]
            chosen[player] = True
            values[player] += known[tuple(chosen)] - before
    return values / math.factorial(players)


@pytest.mark.parametrize("kind", ["grid", "superpixels"])
@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_few_segments_have_their_values_by_the_definition(kind, fill):
    image = picture()
    found = ImageExplainer(
        curved, ImageOptions(segments=6, layouts=1, kind=kind, fills=(fill,))
    ).explain(image)
    expected = by_definition(curved, image, found.layouts[0], fill)
    np.testing.assert_allclose(found.values[0], expected, atol=1e-9)
    assert found.method == "exact"
    assert not found.error_map.any()


def test_two_fills_are_the_mean_of_both():
    image = picture()
    blur, mean, both = (
        ImageExplainer(curved, ImageOptions(segments=6, layouts=1, kind="grid", fills=fills))
        .explain(image)
        .map
        for fills in (("blur",), ("mean",), ("blur", "mean"))
    )
    np.testing.assert_allclose(both, (blur + mean) / 2, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(5, 20),
    st.integers(5, 20),
    st.integers(1, 20),
    st.integers(1, 3),
    st.sampled_from(["grid", "superpixels"]),
)
def test_every_map_adds_up(channels, height, width, segments, layouts, kind):
    image = picture(channels, height, width)
    options = ImageOptions(segments=segments, layouts=layouts, kind=kind, evaluations=200_000)
    found = ImageExplainer(curved, options).explain(image)
    assert found.map.shape == found.error_map.shape == (height, width)
    for each in (found.map, found.smooth_map(2.0)):
        assert found.base + each.sum() == pytest.approx(found.score, abs=1e-6)
    for labels, values in zip(found.layouts, found.values, strict=True):
        assert np.array_equal(np.unique(labels), np.arange(len(values)))


def test_drawn_values_lie_within_their_errors_of_the_exact_ones():
    image = picture()
    labels = grid_cells(24, 32, 20)
    exact = by_halves(image, labels)
    options = ImageOptions(segments=20, layouts=1, fills=("blur",), kind="grid", evaluations=2_000)
    found = ImageExplainer(pairwise, options).explain(image)
    assert found.method == "sampled"
    assert np.linalg.norm(found.values[0] - exact) < 0.05 * np.linalg.norm(exact)
    assert (np.abs(found.values[0] - exact) <= 4 * found.errors[0] + 1e-9).all()


def sums(images, labels):
    flat = images.astype(np.float64).reshape(len(images), -1)
    return np.stack([flat[:, labels.ravel() == place].sum(axis=1) for place in range(20)], axis=1)


def pairwise(images):
    """Products of three neighbouring cells, and a linear part."""
    found = sums(images, grid_cells(24, 32, 20)) / 10
    third = found[:, :-2] * found[:, 1:-1] * found[:, 2:]
    return found.sum(axis=1) + third.sum(axis=1)


def by_halves(image, labels):
    """Exact values of `pairwise`, by each product's three players alone."""
    own = sums(image[None], labels)[0] / 10
    other = sums(filled(image, "blur")[None], labels)[0] / 10
    values = own - other
    for first in range(18):
        three = range(first, first + 3)
        for order in itertools.permutations(three):
            now = {p: other[p] for p in three}
            for player in order:
                before = math.prod(now.values())
                now[player] = own[player]
                values[player] += (math.prod(now.values()) - before) / 6
    return values


def test_the_same_seed_gives_the_same_map():
    options = ImageOptions(segments=30, layouts=2)
    first, second = (ImageExplainer(curved, options).explain(picture()) for _ in range(2))
    assert np.array_equal(first.map, second.map)
    other = ImageExplainer(curved, ImageOptions(segments=30, layouts=2, seed=1)).explain(picture())
    assert not np.array_equal(first.map, other.map)


def test_a_module_is_explained_where_it_looks():
    class Corner(nn.Module):
        def forward(self, images):
            return images[:, :, :8, :8].mean(dim=(1, 2, 3))

    image = np.zeros((1, 32, 32), dtype=np.float32)
    image[:, :8, :8] = 1
    found = ImageExplainer(TorchScores(Corner().eval())).explain(image)
    where = np.unravel_index(found.map.argmax(), found.map.shape)
    assert max(where) < 8
    assert np.abs(found.map[16:, 16:]).max() < 1e-6


def test_shap_takes_it():
    found = ImageExplainer(curved, FEW).explain(picture(3))
    shown = found.to_shap()
    assert shown.values.shape == shown.data.shape == (1, 24, 32, 3)
    assert shown.values.sum() == pytest.approx(found.score - found.base)


@pytest.mark.parametrize("kind", ["grid", "superpixels"])
def test_a_constant_image_has_no_values(kind):
    options = ImageOptions(segments=12, layouts=2, kind=kind, evaluations=40_000)
    image = np.full((2, 24, 32), 0.3, dtype=np.float32)
    assert not ImageExplainer(curved, options).explain(image).map.any()
    for level in (0.0, 5.0, 3e38):
        found = ImageExplainer(lambda images: images[:, 0, 0, 0] / 9, options).explain(
            np.full((2, 24, 32), level, dtype=np.float32)
        )
        assert not found.map.any()


def test_grids_of_all_layouts_differ_and_the_first_stand_where_they_stood():
    shifts = [grid_shift(number) for number in range(216)]
    assert shifts[:4] == [(0, 0), (0.5, 1 / 3), (0, 2 / 3), (0.5, 0)]
    down, right = np.array(shifts).T
    assert len({(round(i, 9), round(j, 9)) for i, j in shifts}) == 216
    assert down.min() == right.min() == 0
    assert max(down.max(), right.max()) < 1
    # Nearly as many in each twelfth of a cell as in any other.
    assert np.ptp(np.histogram2d(down, right, (4, 3), ((0, 1), (0, 1)))[0]) <= 2


def test_layouts_of_superpixels_end_before_they_are_one_segment():
    image = picture()
    explainer = ImageExplainer(curved, ImageOptions(segments=49, layouts=15, evaluations=20_000))
    assert min(map(len, explainer.explain(image).values)) > 1
    with pytest.raises(OptionsError, match=r"16 layouts of superpixels.*at most 15"):
        ImageOptions(layouts=16)
    assert ImageOptions(layouts=16, kind="grid").layouts == 16


def test_one_segment_has_all():
    found = ImageExplainer(curved, ImageOptions(segments=1, layouts=1)).explain(picture())
    assert found.values[0].tolist() == [pytest.approx(found.score - found.base)]


def test_five_thousand_superpixels_are_made_and_refused_by_the_budget():
    image = picture(1, 200, 200)
    labels = superpixels(image, 5_000)
    assert 4_000 < labels.max() + 1 <= 5_200
    options = ImageOptions(segments=5_000, layouts=1, kind="superpixels")
    with pytest.raises(PlayersError, match="choose fewer segments"):
        ImageExplainer(curved, options).explain(image)


def test_superpixels_keep_to_edges():
    image = np.zeros((1, 40, 40), dtype=np.float32)
    image[:, :, 17:] = 1
    labels = superpixels(image, 16)
    left, right = np.unique(labels[:, :17]), np.unique(labels[:, 17:])
    assert not set(left) & set(right)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 60),
    st.floats(0, 0.99),
    st.floats(0, 0.99),
)
def test_cells_cover_an_image_by_all_their_numbers(height, width, count, down, right):
    labels = grid_cells(height, width, min(count, height * width), (down, right))
    assert labels.shape == (height, width)
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))


def test_images_of_another_size_and_pixels_that_are_no_numbers_are_refused():
    explainer = ImageExplainer(curved, FEW, shape=(1, 24, 32))
    with pytest.raises(ImageError, match=r"of \(1, 24, 32\)"):
        explainer.explain(picture(3))
    with pytest.raises(ImageError, match="channels first"):
        ImageExplainer(curved, FEW).explain(picture()[0])
    broken = picture()
    broken[0, 3, 3] = np.nan
    with pytest.raises(ImageError, match="1 of 768 pixels"):
        explainer.explain(broken)


def test_channels_that_a_module_does_not_take_are_told():
    with pytest.raises(ImageError, match="takes no images of shape"):
        ImageExplainer(TorchScores(small_net(3).eval()), FEW).explain(picture(1))


def test_a_module_in_training_mode_is_refused():
    net = small_net()
    with pytest.raises(UnstableScoreError, match="eval"):
        ImageExplainer(TorchScores(net), FEW)
    random = np.random.default_rng(0)
    noisy = ImageExplainer(lambda images: random.normal(size=len(images)), FEW)
    with pytest.raises(UnstableScoreError, match="image 0"):
        noisy.explain(picture())


def test_a_score_that_is_not_finite_is_told():
    with pytest.raises(ScoreError, match="image 0"):
        ImageExplainer(lambda images: np.full(len(images), np.nan), FEW).explain(picture())


def test_segments_beyond_the_pixels_are_refused():
    with pytest.raises(PlayersError, match="give 1 to 12"):
        ImageExplainer(curved, ImageOptions(segments=13)).explain(picture(1, 3, 4))


def test_time_is_limited():
    options = ImageOptions(segments=6, layouts=1, seconds=0.0)
    with pytest.raises(ExplanationTimeoutError):
        ImageExplainer(curved, options).explain(picture())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"segments": 0}, "at least 1"),
        ({"layouts": 0}, "at least 1"),
        ({"top": 0}, "at least 1"),
        ({"fills": ()}, "'blur', 'mean' or both"),
        ({"kind": "superpixel"}, "'superpixel'; choose 'grid' or 'superpixels'"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"memory_bytes": -1}, "1 byte or more"),
        ({"seconds": math.nan}, "None for any time"),
    ],
)
def test_wrong_options_are_named(wrong, word):
    with pytest.raises(OptionsError, match=word):
        ImageOptions(**wrong)


def test_a_budget_too_small_to_count_all_coalitions_draws_some():
    options = ImageOptions(segments=12, layouts=1, evaluations=1_000)
    assert ImageExplainer(curved, options).explain(picture()).method == "sampled"
