"""Why an image was rejected: exact values of cells, judged by all coalitions of a small image."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from connectors.defects.pictures import explained_picture
from kernels.shapley.exact import members_of, shapley_matrix
from models.defect_net import DefectNet, DefectNetShape
from tasks.defects.bundle.bundle import write_bundle
from tasks.defects.detect.config import DetectConfig, DetectError
from tasks.defects.detect.detector import FACTS, WEIGHTS, tensor_of
from tasks.defects.detect.explain import explain_defects, spread
from tasks.defects.detect.finetune import highest_count
from tasks.defects.detect.fit import fit
from tasks.defects.detect.scorer import COUNTS, SOURCES
from tasks.defects.judgement import Thresholds
from tasks.defects.textures.line import LineConfig, make_line
from tests.tasks.defects.bright import parts

SMALL = DetectConfig(steps=0, piece=32, batch=4, memory=24, projected=8, folds=2)


@pytest.fixture(scope="module")
def line():
    return make_line(LineConfig(shape=(64, 80), ok=8, ng={"pit": 3, "scratch": 3}))


@pytest.fixture(scope="module")
def detector(line):
    torch.manual_seed(0)
    net = DefectNet(DefectNetShape(8, (8, 8, 8), (1, 1, 1), 8)).eval()
    return replace(fit(line, SMALL, net), thresholds=Thresholds(0.4, 0.6))


def worth_of(scorer, maps, present):
    """The scorer's larger sum, of cells that are present, others as in good images: one by one."""
    weights = (scorer.decision.double() / scorer.unusual).numpy()
    usual = scorer.usual.double().numpy()
    sums = np.full(2, float(scorer.decision_bias[0]))
    for place in range(len(usual)):
        source, count = divmod(place, len(COUNTS))
        levels = np.where(present, maps[source], usual[place])
        kept = highest_count(COUNTS[count], len(levels))
        sums += weights[:, place] * (np.sort(levels)[::-1][:kept].mean() - usual[place])
    return sums


def test_cells_have_their_values_by_the_definition(detector, line):
    pixels = line[-1].pixels[:8, :20]  # two rows of five cells
    found = explain_defects(detector, pixels)
    tensor = tensor_of(pixels)[None]
    with torch.inference_mode():
        maps = detector.scorer.maps(detector.scorer.net(tensor), tensor)[0].double()
    cells = maps.flatten(1).numpy()
    assert cells.shape == (len(SOURCES), found.values.size)
    members = members_of(np.arange(2**10), 10)
    worth = np.array([worth_of(detector.scorer, cells, row) for row in members])
    branch = worth[-1].argmax()
    expected = shapley_matrix(10) @ worth[:, branch]
    np.testing.assert_allclose(found.values.ravel(), expected, atol=1e-9)
    assert found.log_odds == pytest.approx(worth[-1].max(), abs=1e-9)


def test_every_map_adds_up_to_the_judged_score(detector, line):
    for sample in line:
        found = explain_defects(detector, sample.pixels)
        judged = detector.judge([sample.pixels])[0]
        assert found.score == judged.score
        assert 1 / (1 + np.exp(-found.log_odds)) == pytest.approx(judged.score, abs=1e-4)
        for values in (found.values, found.map):
            assert found.base + values.sum() == pytest.approx(found.log_odds, abs=1e-6)
        assert found.verdict == judged.verdict
        assert found.above == pytest.approx(found.log_odds - np.log(0.6 / 0.4))


def test_the_worst_tile_is_explained_and_nothing_else(detector, line):
    small = replace(detector, config=replace(SMALL, side=128))
    good = [sample.pixels for sample in line if sample.label == "ok"]
    wide = np.concatenate([good[0], good[1], line[-1].pixels], axis=1)
    found = explain_defects(small, wide)
    outside = np.ones(wide.shape, dtype=bool)
    outside[found.window] = False
    assert outside.any()
    assert not found.map[outside].any()
    assert found.base + found.map.sum() == pytest.approx(found.log_odds, abs=1e-6)
    judged = small.judge([wide])[0]
    assert 1 / (1 + np.exp(-found.log_odds)) == pytest.approx(judged.score, abs=1e-4)


def test_words_say_where_how_large_and_what_good_patch_is_like_it(detector, line):
    good = [sample for sample in line if sample.label == "ok"]
    found = explain_defects(detector, line[-1].pixels, good, similar=2)
    top, left, bottom, right = found.region
    assert 0 <= top < bottom <= 64
    assert 0 <= left < right <= 80
    assert f"{bottom - top} x {right - left} pixels" in found.words
    assert "limit for NG" in found.words
    assert len(found.similar) == 2
    assert found.similar[0].distance <= found.similar[1].distance
    assert found.similar[0].name in found.words
    own = explain_defects(detector, good[3].pixels, good).similar[0]
    assert own.name == good[3].name
    assert own.distance == pytest.approx(0, abs=1e-2)


def test_the_same_image_has_the_same_explanation(detector, line):
    first, second = (explain_defects(detector, line[-1].pixels) for _ in range(2))
    assert np.array_equal(first.map, second.map)
    assert first.words == second.words


def test_shap_takes_it(detector, line):
    pixels = line[-1].pixels
    found = explain_defects(detector, pixels)
    shown = found.to_shap(pixels)
    assert shown.values.shape == (1, 64, 80, 1)
    assert shown.data.shape[:3] == (1, 64, 80)


def test_without_thresholds_nothing_is_said_of_them(detector, line):
    found = explain_defects(replace(detector, thresholds=None), line[-1].pixels)
    assert found.above is None
    assert "limit" not in found.words


def test_pixels_that_cannot_be_judged_are_refused(detector):
    with pytest.raises(DetectError, match="uint8"):
        explain_defects(detector, np.zeros((64, 64), dtype=np.float32))
    with pytest.raises(DetectError, match="sides must be at least"):
        explain_defects(detector, np.zeros((4, 64), dtype=np.uint8))


def test_a_constant_image_is_explained(detector):
    found = explain_defects(detector, np.full((64, 64), 128, dtype=np.uint8))
    assert found.base + found.values.sum() == pytest.approx(found.log_odds, abs=1e-6)


def test_spreading_keeps_the_sum():
    values = np.random.default_rng(0).normal(size=(5, 7))
    assert spread(values, (21, 30)).sum() == pytest.approx(values.sum())


def test_a_bundle_explains_by_its_own_thresholds(detector, line, tmp_path):
    files = replace(detector, thresholds=None).to_bytes()
    facts = json.loads(files[FACTS])
    made = replace(parts(), detector=files[WEIGHTS], detector_facts=facts)
    bundle = write_bundle(tmp_path / "bundle", made)
    pixels = line[-1].pixels
    found = bundle.explain(pixels)
    own = explain_defects(replace(detector, thresholds=bundle.thresholds), pixels)
    assert np.array_equal(found.map, own.map)
    assert found.words == own.words
    assert found.above is not None


def test_the_picture_is_red_where_the_score_was_raised_most(detector, line):
    pixels = line[-1].pixels
    found = explain_defects(detector, pixels)
    shown = np.asarray(Image.open(io.BytesIO(explained_picture(found, pixels)))).astype(int)
    assert shown.shape == (64, 80, 3)
    row, column = np.unravel_index(found.map.argmax(), found.map.shape)
    assert shown[row, column, 0] - shown[row, column, 1] > 150
    cold = found.map < 0.001 * found.map.max()
    assert np.median(np.ptp(shown[cold], axis=-1)) < 5
