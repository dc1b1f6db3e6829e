"""Golden samples: alignment, light, what differs, and products that are others."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tasks.defects.detect.config import DetectError
from tasks.defects.judgement import UNKNOWN, Thresholds
from tasks.defects.template.align import Pose, aligned, detail, laid, put_back
from tasks.defects.template.config import AlignError, TemplateConfig
from tasks.defects.template.detector import ARRAYS, EXTRA, FACTS, MISSING, TemplateDetector
from tasks.defects.template.difference import beyond, ink_of, relit
from tasks.defects.template.fit import fit_template

CONFIG = TemplateConfig()
SHAPE = (96, 112)


def printed(seed=0, shape=SHAPE, pitch=16):
    """Bright signs on dark ground, no two alike, float32 in [0, 1], with a margin of 24.

    The place of one sign, rows 68 to 78 and columns 84 to 92, is empty.
    """
    rng = np.random.default_rng(seed)
    page = np.full((shape[0] + 48, shape[1] + 48), 0.25, np.float32)
    for top in range(4, page.shape[0] - 12, pitch):
        for left in range(4, page.shape[1] - 12, pitch):
            sign = rng.random((5, 4)) < 0.5
            page[top : top + 10, left : left + 8] += 0.5 * sign.repeat(2, 0).repeat(2, 1)
    page[66:80, 82:94] = 0.25
    return ndimage.gaussian_filter(page, 0.7)


STRAIGHT = Pose()


def taken(page, pose=STRAIGHT, seed=0, light=None, shape=SHAPE, noise=0.01):
    rng = np.random.default_rng(seed)
    image = laid(page, pose, shape)
    image = image if light is None else image * light
    image = image + noise * rng.standard_normal(shape)
    return np.clip(255 * image + 0.5, 0, 255).astype(np.uint8)


def turned(degrees, zoom=1.0, down=0.0, right=0.0):
    angle = math.radians(degrees)
    return Pose(zoom * math.cos(angle), zoom * math.sin(angle), down, right)


def slanted(amount):
    return (1 + amount * np.linspace(-1, 1, SHAPE[1], dtype=np.float32))[None, :]


@pytest.fixture(scope="module")
def page():
    return printed()


@pytest.fixture(scope="module")
def detector(page):
    return fit_template([taken(page, seed=k) for k in range(3)])


@settings(max_examples=12, deadline=None)
@given(
    st.floats(-4.5, 4.5), st.floats(0.975, 1.025), st.floats(-9, 9), st.floats(-9, 9),
    st.floats(-0.3, 0.3), st.floats(0.6, 1.3),
)  # fmt: skip
def test_pose_is_found_under_another_light(degrees, zoom, down, right, slant, gain):
    page, pose = printed(), turned(degrees, zoom, down, right)
    golden = taken(page) / np.float32(255)
    image = taken(page, pose, 1, gain * slanted(slant)) / np.float32(255)
    found = aligned(image, golden, CONFIG)
    # The pose of the image on the golden sample undoes the one that it was taken in.
    back = laid(image, found.pose, SHAPE)
    seen = np.isfinite(back)
    middle = np.zeros(SHAPE, bool)
    middle[20:-20, 20:-20] = True
    both = seen & middle
    assert both.sum() > 2_000
    assert np.corrcoef(detail(np.nan_to_num(back))[both], detail(golden)[both])[0, 1] > 0.93
    assert found.alike > 0.8
    own = math.degrees(math.atan2(found.pose.across, found.pose.along))
    assert own == pytest.approx(-degrees, abs=0.3)


def test_put_back_undoes_laid(page):
    pose = turned(3, 1.02, 2.5, -4)
    image = taken(page) / np.float32(255)
    there = np.nan_to_num(laid(image, pose, (100, 120)))
    back = put_back(there, pose, SHAPE)
    inner = np.s_[30:-30, 30:-30]
    assert np.abs(back[inner] - image[inner]).mean() < 0.03
    smooth = ndimage.gaussian_filter(image, 2)
    again = put_back(np.nan_to_num(laid(smooth, pose, (100, 120))), pose, SHAPE)
    assert np.abs(again[inner] - smooth[inner]).max() < 0.02


def test_light_is_taken_out_and_defects_are_not(page):
    golden = taken(page, noise=0) / np.float32(255)
    image = 0.7 * golden * slanted(0.3) + 0.05
    image[40:48, 40:48] = 0.9
    made = relit(golden, image, 14)
    apart = np.abs(image - made)
    assert apart[40:48, 40:48].mean() > 0.3
    apart[34:54, 34:54] = 0
    assert np.quantile(apart, 0.99) < 0.07  # from .35 before, by light alone


def test_an_edge_may_be_off_its_place_by_a_pixel_and_not_by_three():
    golden = np.zeros((20, 30), np.float32)
    golden[:, 15:] = 1
    moved = [np.roll(golden, by, axis=1) for by in (1, 3)]
    for one in moved:
        one[:, :5] = 0
    assert not beyond(moved[0], golden, 1).any()
    assert beyond(moved[1], golden, 1).min() < -0.4
    np.testing.assert_allclose(beyond(golden * 0.5, golden, 0)[:, 20:], -0.5, atol=0.01)


def test_a_lacking_line_of_two_pixels_is_no_moved_edge():
    golden = np.zeros((20, 20), np.float32)
    golden[:, 10:12] = 1
    assert beyond(np.zeros_like(golden), golden, 1).min() < -0.3
    assert beyond(golden, np.zeros_like(golden), 1).max() > 0.4
    assert np.isnan(beyond(np.full_like(golden, np.nan), golden, 1)).all()


def test_print_is_the_rarer_brightness():
    golden = np.full((20, 20), 0.8, np.float32)
    golden[5:8, 5:15] = 0.1
    ink, polarity = ink_of(golden)
    assert polarity == -1
    np.testing.assert_array_equal(ink, golden < 0.5)
    assert ink_of(1 - golden)[1] == 1


@pytest.mark.parametrize("pose", [Pose(), turned(2.5, 1.015, 5, -6)])
def test_missing_and_extra_are_told_apart_and_found_in_the_images_own_pixels(page, detector, pose):
    inks = ndimage.label(page[24:-24, 24:-24] > 0.5)[0]
    largest = ndimage.find_objects(inks)[int(np.bincount(inks.ravel())[1:].argmax())]
    rows, columns = (slice(one.start + 24, one.stop + 24) for one in largest)
    lost, dirty = page.copy(), page.copy()
    lost[rows, columns] = 0.25
    dirty[70:78, 84:92] = 0.7
    good, without, extra = detector.judge(
        [taken(one, pose, 7, slanted(0.2)) for one in (page, lost, dirty)]
    )
    assert good.score < without.score
    assert good.score < extra.score
    assert without.kind == MISSING
    assert extra.kind == EXTRA
    assert without.boxes[0].kind == MISSING
    assert extra.boxes[0].kind == EXTRA
    assert not good.boxes
    # Where the dirt lies in the image: the pose leads from its pixels to the page's.
    target = np.zeros_like(page)
    target[70:78, 84:92] = 1
    seen = laid(target, pose, SHAPE) > 0.5
    y, x = (one.mean() for one in np.nonzero(seen))
    box = extra.boxes[0]
    assert box.left < x < box.right
    assert box.top < y < box.bottom
    assert extra.heat.shape == SHAPE
    assert extra.heat.dtype == np.float32
    assert (
        extra.heat[seen].mean()
        > 0.5
        > extra.heat[~ndimage.binary_dilation(seen, iterations=4)].max()
    )
    for one in (good, without, extra):
        assert sum(one.kinds.values()) == pytest.approx(1)
        assert one.heat.min() >= 0
        assert one.heat.max() < 1


def test_good_images_have_no_type(detector, page):
    assert detector.judge([taken(page, seed=9)])[0].kind == UNKNOWN


def test_another_product_is_refused(detector):
    with pytest.raises(AlignError, match="image 1 is no image of this product"):
        detector.judge([taken(printed()), taken(printed(seed=5, pitch=21))])
    noise = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    for pixels in (noise, np.full(SHAPE, 90, np.uint8), noise[:30, :30]):
        with pytest.raises(AlignError, match="no image of this product"):
            detector.judge([pixels])


def test_another_text_on_the_same_grid_is_a_defect(detector, page):
    other, own = detector.judge([taken(printed(seed=5)), taken(page, seed=5)])
    assert other.score > 10 * own.score
    assert {box.kind for box in other.boxes} == {MISSING, EXTRA}


def test_too_far_off_its_place_is_refused(page):
    strict = fit_template([taken(page)], TemplateConfig(shift=0.02, turn=1, zoom=0))
    with pytest.raises(AlignError, match="too far off its place"):
        strict.judge([taken(page, turned(0, 1, 12, 12), 1)])
    assert strict.judge([taken(page, turned(0.8, 1, 1, 1), 1)])


def test_goldens_of_two_products_are_told(page):
    with pytest.raises(AlignError, match="golden image 1 cannot be laid on the first"):
        fit_template([taken(page), taken(printed(seed=5, pitch=21))])


def test_no_golden_and_one_without_print_are_told():
    with pytest.raises(DetectError, match="no golden image"):
        fit_template([])
    with pytest.raises(DetectError, match="shows no print"):
        fit_template([np.full((40, 40), 7, np.uint8)])
    with pytest.raises(DetectError, match="golden image 0"):
        fit_template([np.zeros((4, 40), np.uint8)])


def test_places_that_differ_among_good_images_may_differ(page):
    goldens = []
    for k in range(6):
        own = page.copy()
        own[60:68, 60:76] = 0.3 + 0.08 * k  # a number that each part has of its own
        goldens.append(taken(own, seed=k))
    other = page.copy()
    other[60:68, 60:76] = 0.62
    spread = fit_template(goldens).judge([taken(other, seed=9)])[0]
    fixed = fit_template(goldens[:1]).judge([taken(other, seed=9)])[0]
    assert spread.score < fixed.score / 2


def test_colour_differs_where_brightness_does_not(page):
    gray = np.repeat(taken(page)[..., None], 3, axis=2)
    golden = [np.repeat(taken(page, seed=k)[..., None], 3, axis=2) for k in range(2)]
    dyed = gray.astype(float)
    dyed[40:50, 40:50] += np.array([40, -20.4, 0])  # of one brightness
    images = [gray, np.clip(dyed, 0, 255).astype(np.uint8)]
    good, bad = fit_template(golden).judge(images)
    assert bad.score > 3 * good.score
    as_gray = fit_template([taken(page, seed=k) for k in range(2)]).judge(images)
    assert as_gray[1].score < 1.5 * as_gray[0].score
    assert fit_template(golden).judge([taken(page)])[0].score < bad.score


def test_thresholds_give_verdicts(detector, page):
    strict = replace(detector, thresholds=Thresholds(0.0, 0.0))
    assert detector.judge([taken(page)])[0].verdict == "REVIEW"
    assert strict.judge([taken(page)])[0].verdict == "NG"


def test_bytes_and_back_judge_alike(detector, page):
    again = TemplateDetector.from_bytes(detector.to_bytes())
    first, second = (one.judge([taken(page, seed=3)])[0] for one in (detector, again))
    assert first.score == second.score
    assert np.array_equal(first.heat, second.heat)
    assert again.provenance == {"goldens": 3, "size": list(SHAPE)}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda files: files.pop(ARRAYS), "needs template.safetensors"),
        (lambda files: files.update({ARRAYS: b"junk"}), "not the files"),
        (lambda files: files.update({FACTS: b"[]"}), "not the files"),
        (lambda files: files.update({FACTS: json.dumps({"format": "x"}).encode()}), "format 'x'"),
    ],
)
def test_broken_files_are_told(detector, spoil, said):
    files = detector.to_bytes()
    spoil(files)
    with pytest.raises(DetectError, match=said):
        TemplateDetector.from_bytes(files)


@pytest.mark.parametrize("wrong", [{"turn": 90}, {"alike": 0}, {"edge": -1}, {"spreads": 0}])
def test_wrong_settings_are_told(wrong):
    with pytest.raises(ValueError, match="give"):
        TemplateConfig(**wrong)
