"""Augmentations: masks and boxes go where the pixels go, strength 0 is nothing, seeds repeat."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tasks.defects.augment.boxes import LEAST_SIDE, LEAST_VISIBLE, cut
from tasks.defects.augment.exposure import Exposure, exposure
from tasks.defects.augment.lens import Lens, lens
from tasks.defects.augment.mixing import mixed
from tasks.defects.augment.mosaic import mosaic
from tasks.defects.augment.poisson import blend, poisson_transplant, solve
from tasks.defects.augment.windows import window
from tasks.defects.samples import Box, Sample, SampleError
from tasks.defects.textures.camera import Camera
from tests.benchmarks import defects_augment

SEEDS = st.integers(0, 2**31)
SIDES = st.integers(24, 70)


def drawn(seed, height, width, *, colour=False, label="ng"):
    """Return noise with a bright block, a mask of it, and a box around the mask."""
    rng = np.random.default_rng(seed)
    shape = (height, width, 3) if colour else (height, width)
    pixels = rng.integers(60, 120, shape, dtype=np.uint8)
    if label == "ok":
        return Sample(f"ok {seed}", pixels, "ok")
    tall, wide = int(rng.integers(3, height // 3)), int(rng.integers(3, width // 3))
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[top : top + tall, left : left + wide] = True
    pixels[mask] = 220
    box = Box(left, top, left + wide, top + tall, "block")
    return Sample(f"ng {seed}", pixels, "ng", "block", mask, (box,))


def held(sample):
    """Return whether the boxes, a pixel wider, hold the whole mask."""
    rows, columns = np.nonzero(sample.mask)
    inside = np.zeros(len(rows), dtype=np.bool_)
    for box in sample.boxes:
        inside |= (
            (rows + 0.5 > box.top - 1) & (rows + 0.5 < box.bottom + 1)
            & (columns + 0.5 > box.left - 1) & (columns + 0.5 < box.right + 1)
        )  # fmt: skip
    return bool(inside.all())


def in_frame(sample):
    height, width = sample.pixels.shape[:2]
    return all(
        box.left >= 0 and box.top >= 0 and box.right <= width and box.bottom <= height
        for box in sample.boxes
    )


def same(first, second):
    return (
        np.array_equal(first.pixels, second.pixels)
        and np.array_equal(first.mask, second.mask)
        and (first.boxes, first.label, first.kind) == (second.boxes, second.label, second.kind)
    )


def test_a_box_that_is_cut_is_kept_where_enough_is_left():
    box = Box(10, 10, 20, 20)
    assert cut(box, 0, 0, 20, 20) is box
    assert cut(box, 0, 0, 12.5, 40) == Box(10, 10, 12.5, 20)
    assert cut(box, 0, 0, 10 + 10 * LEAST_VISIBLE - 0.01, 40) is None
    assert cut(box, 0, 0, 10, 40) is None
    thin = Box(0, 0, 1, 9)
    assert cut(thin, 0, 0, 9, 9) is thin  # as small as it was
    assert cut(Box(0, 0, 3, 3), 0, 0, LEAST_SIDE - 0.1, 9) is None


@given(s=SEEDS, height=SIDES, width=SIDES, colour=st.booleans(), around=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_window_moves_mask_and_boxes_alike(s, height, width, colour, around):
    sample = drawn(s, height, width, colour=colour)
    found, dropped = window(sample, (32, 40), np.random.default_rng(s), around=around)
    assert found.pixels.shape[:2] == found.mask.shape == (32, 40)
    assert len(found.boxes) + dropped <= 1
    assert (found.label == "ok") <= (not found.mask.any() and not found.boxes and not dropped)
    assert in_frame(found)
    if not dropped:
        assert held(found)
    if around and not dropped:
        assert found.boxes


def test_a_window_of_the_whole_image_is_that_image():
    sample = drawn(3, 40, 48)
    found, dropped = window(sample, (40, 48), np.random.default_rng(0), (1, 1))
    assert same(found, sample)
    assert dropped == 0


def test_a_window_without_the_box_is_good_where_boxes_are_all_there_is():
    sample = replace(drawn(3, 64, 64), mask=None, boxes=(Box(26, 26, 32, 32, "block"),))
    labels = set()
    for seed in range(20):
        found, dropped = window(sample, (24, 24), np.random.default_rng(seed), (1, 1))
        assert (found.label == "ng") == bool(found.boxes or dropped)
        assert found.mask is None
        labels.add(found.label)
    assert labels == {"ok", "ng"}


@given(s=SEEDS, sides=st.lists(SIDES, min_size=8, max_size=8), good=st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_a_mosaic_joins_pixels_masks_and_boxes(s, sides, good):
    four = [
        drawn(s + k, sides[k], sides[k + 4], colour=k == 2, label="ok" if k < good else "ng")
        for k in range(4)
    ]
    found, dropped = mosaic(four, (60, 50), np.random.default_rng(s))
    assert found.pixels.shape == (60, 50, 3)
    assert found.mask.shape == (60, 50)
    assert found.mask.dtype == np.bool_
    assert len(found.boxes) + dropped <= 4 - good
    assert (found.label == "ng") == bool(found.mask.any() or found.boxes or dropped)
    assert found.kind == ("block" if found.label == "ng" else "")
    assert in_frame(found)
    near = ndimage.binary_dilation(found.mask, np.ones((3, 3)))
    if not dropped:
        assert held(found)
        assert not (found.pixels[~near] > 150).any()  # the blocks are brighter than all else
    assert same(found, mosaic(four, (60, 50), np.random.default_rng(s)).sample)
    if found.mask.sum() > 40:
        assert found.pixels[found.mask].mean() > 120


def test_a_mosaic_of_what_nobody_drew_or_labelled():
    ok = drawn(0, 40, 40, label="ok")
    unlabelled = replace(ok, name="?", label=None)
    boxed = replace(drawn(1, 40, 40), mask=None, boxes=(Box(0, 0, 40, 40, "block"),))
    rng = np.random.default_rng(0)
    found = mosaic([ok, ok, ok, unlabelled], (32, 32), rng).sample
    assert found.label is None
    assert found.mask is None
    found = mosaic([ok, ok, unlabelled, boxed], (32, 32), rng).sample
    assert found.label == "ng"
    assert found.mask is None
    assert len(found.boxes) == 1
    assert mosaic([ok] * 4, (32, 32), rng).sample.label == "ok"
    with pytest.raises(SampleError, match="neither mask nor boxes"):
        mosaic([ok, ok, ok, replace(boxed, boxes=())], (32, 32), rng)
    with pytest.raises(ValueError, match="4 samples"):
        mosaic([ok] * 3, (32, 32), rng)
    with pytest.raises(ValueError, match="at least 16"):
        mosaic([ok] * 4, (8, 32), rng)
    with pytest.raises(ValueError, match="zoom"):
        mosaic([ok] * 4, (32, 32), rng, (1, 0.5))


ENDS = st.tuples(st.booleans(), st.booleans())


@given(rows=ENDS, columns=ENDS, height=st.integers(3, 20), width=st.integers(3, 20), s=SEEDS)
@settings(max_examples=60, deadline=None)
def test_poisson_s_equation_is_solved(rows, columns, height, width, s):
    rng = np.random.default_rng(s)
    wanted = rng.standard_normal((height, width, 2)).astype(np.float32)
    if all((*rows, *columns)):
        wanted -= wanted.mean(axis=(0, 1))
    divergence = np.zeros_like(wanted)
    for axis, ends in enumerate((rows, columns)):
        size = [(0, 0)] * 3
        size[axis] = (1, 1)
        wider = np.pad(wanted, size)  # 0 behind a fixed edge, and the same again behind a free one
        edge = np.pad(wanted, size, "edge")
        for place, free in zip((0, -1), ends, strict=True):
            at = (place,) if axis == 0 else (slice(None), place)
            if free:
                wider[at] = edge[at]
        divergence += np.diff(wider, 2, axis=axis)
    assert np.abs(solve(divergence, (rows, columns)) - wanted).max() < 1e-3


def test_a_defect_on_the_surface_it_came_from_changes_nothing():
    rng = np.random.default_rng(0)
    surface = rng.uniform(0.2, 0.8, (40, 50, 1)).astype(np.float32)
    mask = np.zeros((40, 50), dtype=np.bool_)
    mask[10:20, 12:30] = True
    assert np.abs(blend(surface, mask, surface) - surface).max() < 1e-5
    assert np.array_equal(blend(surface, np.zeros_like(mask), surface), surface)


def test_a_blended_defect_keeps_its_contrast_and_leaves_no_step_at_its_rim():
    surface = np.full((64, 64, 1), 0.8, dtype=np.float32)
    mask = np.zeros((64, 64), dtype=np.bool_)
    mask[28:34, 28:34] = True
    source = surface.copy()
    source[mask] = 0.4
    target = np.full((64, 64, 1), 0.4, dtype=np.float32)
    made = blend(source, mask, target)
    assert np.abs(made[mask] - 0.2).max() < 0.03  # half the light, half the contrast
    assert np.abs(made[~mask] - 0.4).max() < 0.03
    sloping = np.broadcast_to(np.linspace(0.3, 0.6, 64, dtype=np.float32)[:, None, None],
                              (64, 64, 1))  # fmt: skip
    made = blend(source, mask, sloping)
    rim = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask)
    assert np.abs(made - sloping)[rim].max() < 0.03


@given(s=SEEDS, sides=st.tuples(SIDES, SIDES, SIDES, SIDES), colour=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_transplant_moves_mask_and_boxes_as_one(s, sides, colour):
    defective = drawn(s, *sides[:2])
    normal = drawn(s + 1, *sides[2:], colour=colour, label="ok")
    found = poisson_transplant(defective, normal, np.random.default_rng(s))
    again = poisson_transplant(defective, normal, np.random.default_rng(s))
    if found is None:
        assert again is None
        return
    assert same(found, again)
    assert found.pixels.shape == normal.pixels.shape
    assert found.pixels.dtype == np.uint8
    assert found.mask.sum() == defective.mask.sum()
    assert (found.label, found.kind) == ("ng", "block")
    assert held(found)
    assert in_frame(found)
    box, before = found.boxes[0], defective.boxes[0]
    for axis in (0, 1):  # what touches an edge still does, and nothing else lies outside
        for place in (0, -1):
            edge = tuple(place if one == axis else slice(None) for one in (0, 1))
            assert found.mask[edge].any() >= defective.mask[edge].any()
    assert (box.right - box.left, box.bottom - box.top) == (
        before.right - before.left,
        before.bottom - before.top,
    )


def test_a_transplant_fits_or_is_none():
    rng = np.random.default_rng(0)
    defective = drawn(5, 60, 60)
    normal = drawn(6, 64, 64, label="ok")
    assert poisson_transplant(defective, drawn(6, 24, 24, label="ok"), rng) is None or (
        max(defective.mask.any(axis=1).sum(), defective.mask.any(axis=0).sum()) < 24
    )
    where = np.zeros((64, 64), dtype=np.bool_)
    assert poisson_transplant(defective, normal, rng, where) is None
    with pytest.raises(SampleError, match="mask"):
        poisson_transplant(replace(defective, mask=None), normal, rng)
    with pytest.raises(SampleError, match="labelled ng"):
        poisson_transplant(defective, drawn(7, 64, 64), rng)
    with pytest.raises(SampleError, match="give its size"):
        poisson_transplant(defective, normal, rng, where[:10])


def test_a_transplant_stays_where_it_may_lie():
    pixels = np.full((40, 40), 100, dtype=np.uint8)
    mask = np.zeros((40, 40), dtype=np.bool_)
    mask[18:22, 18:22] = True
    defective = Sample("a", np.where(mask, 200, pixels).astype(np.uint8), "ng", "", mask)
    where = np.zeros((80, 80), dtype=np.bool_)
    where[30:, 30:] = True
    normal = Sample("b", np.full((80, 80), 100, dtype=np.uint8), "ok")
    found = [
        poisson_transplant(defective, normal, np.random.default_rng(seed), where)
        for seed in range(20)
    ]
    fitted = [one for one in found if one is not None]
    assert len(fitted) > 10
    assert all(where[one.mask].all() for one in fitted)
    assert len({one.mask.tobytes() for one in fitted}) > 5


def test_a_break_at_the_left_edge_stays_there():
    pixels = np.full((40, 40), 100, dtype=np.uint8)
    mask = np.zeros((40, 40), dtype=np.bool_)
    mask[10:20, :8] = True
    defective = Sample("a", np.where(mask, 10, pixels).astype(np.uint8), "ng", "", mask)
    normal = Sample("b", np.full((50, 50), 150, dtype=np.uint8), "ok")
    for seed in range(5):
        found = poisson_transplant(defective, normal, np.random.default_rng(seed))
        assert found.mask[:, :8].sum() == mask.sum()
        assert found.pixels[found.mask].max() < 40
        assert found.pixels[:, 30:].min() > 140


@pytest.mark.parametrize("augment", [exposure, lambda *args: lens(*args).sample])
@given(s=SEEDS, height=SIDES, width=SIDES, colour=st.booleans())
@settings(max_examples=30, deadline=None)
def test_strength_0_is_nothing_and_seeds_repeat(augment, s, height, width, colour):
    sample = drawn(s, height, width, colour=colour)
    assert same(augment(sample, np.random.default_rng(s), 0.0), sample)
    found, again = (augment(sample, np.random.default_rng(s), 1.0) for _ in range(2))
    assert same(found, again)
    assert found.pixels.shape == sample.pixels.shape
    assert found.pixels.dtype == np.uint8


def test_exposure_leaves_mask_boxes_and_label():
    sample = drawn(0, 40, 40)
    found = exposure(sample, np.random.default_rng(0))
    assert not np.array_equal(found.pixels, sample.pixels)
    assert found.mask is sample.mask
    assert (found.boxes, found.label) == (sample.boxes, "ng")


def test_shot_noise_follows_the_light():
    rng = np.random.default_rng(0)
    dark, bright = (np.full((200, 200, 1), level, dtype=np.float32) for level in (0.1, 0.8))
    camera = Exposure(electrons=5_000)
    for surface in (dark, bright):
        wanted = np.sqrt(surface.mean() / 5_000)
        assert camera.taken(surface, rng).std() == pytest.approx(wanted, rel=0.03)
    assert Exposure(read=0.02).taken(dark, rng).std() == pytest.approx(0.02, rel=0.03)
    over = Exposure(light=Camera(gain=2)).taken(bright, rng)
    assert over.min() == over.max() == 1
    power = Exposure(light=Camera(gain=2, gamma=0.5)).taken(dark, rng)
    assert power == pytest.approx(np.sqrt(0.2))
    with pytest.raises(ValueError, match="full well"):
        Exposure(electrons=0)


LENSES = st.builds(
    Lens,
    distortion=st.floats(-0.2, 0.2),
    tilt=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    vignetting=st.floats(0, 0.9),
    defocus=st.floats(0, 4),
)


@given(camera=LENSES, height=SIDES, width=SIDES, s=SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_lens_has_an_inverse_and_makes_nothing_up(camera, height, width, s):
    points = np.random.default_rng(s).uniform(0, 1, (2, 50)) * np.array([[height], [width]])
    before = camera.source(points, (height, width))
    assert np.abs(camera.target(before, (height, width)) - points).max() < 1e-6
    assert before.min() > -1e-3
    assert (before < np.array([[height], [width]]) + 1e-3).all()


@given(camera=LENSES, height=SIDES, width=SIDES, s=SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_bent_box_holds_the_bent_mask(camera, height, width, s):
    sample = drawn(s, height, width)
    surface = sample.pixels[..., None].astype(np.float32) / 255
    bent, mask = camera.bent(surface, sample.mask)
    assert bent.dtype == np.float32
    assert 0 <= bent.min() <= bent.max() <= 1
    box = camera.moved(sample.boxes[0], (height, width))
    assert held(Sample("bent", sample.pixels, "ng", "", mask, (box,)))
    seen = camera.dimmed(bent, np.random.default_rng(0))
    assert 0 <= seen.min() <= seen.max() <= 1 + 1e-6


def test_a_box_that_no_pixel_comes_from_goes_out_of_the_image():
    camera = Lens(distortion=0.2, tilt=(0.2, 0.2))
    box = camera.moved(Box(55, 55, 60, 60), (60, 60))
    assert min(box.left, box.top) > 60


@given(s=SEEDS, height=SIDES, width=SIDES)
@settings(max_examples=60, deadline=None)
def test_a_sample_by_another_lens_is_consistent(s, height, width):
    found, dropped = lens(drawn(s, height, width), np.random.default_rng(s), 2.0)
    assert in_frame(found)
    assert len(found.boxes) + dropped <= 1
    if not dropped:
        assert held(found)
    assert (found.label == "ok") <= (not found.mask.any() and not found.boxes)


def test_a_lens_dims_corners_and_spreads_points():
    flat = np.full((41, 41, 1), 0.5, dtype=np.float32)
    rng = np.random.default_rng(0)
    dim = Lens(vignetting=0.4).dimmed(flat, rng)
    assert dim[20, 20, 0] == pytest.approx(0.5)
    assert dim[0, 0, 0] == pytest.approx(0.3)
    point = np.zeros((41, 41, 1), dtype=np.float32)
    point[20, 20] = 1
    spread = Lens(defocus=3).dimmed(point, rng)
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    assert (spread > 1e-3).sum() == pytest.approx(np.pi * 9, rel=0.35)
    for wrong in ({"distortion": 0.5}, {"tilt": (0.0, 0.5)}, {"vignetting": 1.0}, {"defocus": -1}):
        with pytest.raises(ValueError, match="give"):
            Lens(**wrong)


@given(s=SEEDS, count=st.integers(2, 9), how=st.sampled_from(["cutmix", "mixup"]))
@settings(max_examples=40, deadline=None)
def test_mixed_labels_sum_to_one(s, count, how):
    rng = np.random.default_rng(s)
    pixels = torch.from_numpy(rng.random((count, 3, 16, 16), dtype=np.float32))
    kinds = torch.from_numpy(rng.integers(0, 4, count))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    found, told = mixed(pixels, kinds, 4, how, np.random.default_rng(s))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found.shape == pixels.shape
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert torch.allclose(told.sum(dim=1), torch.ones(count))
    assert (told >= 0).all()
    again = mixed(pixels, kinds, 4, how, np.random.default_rng(s))
    assert torch.equal(found, again[0])
    assert torch.equal(told, again[1])
    whole, plain = mixed(pixels, kinds, 4, how, np.random.default_rng(s), share=0.0)
    assert torch.equal(whole, pixels)
    assert torch.equal(plain.argmax(dim=1), kinds)


def test_differences_are_paired():
    found = defects_augment.difference([0.5, 0.7, 0.9], [0.4, 0.6, 0.8])
    assert found["delta"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0.1, abs=1e-6)
    one = defects_augment.difference([0.5], [0.4])
    assert one["low"] is None


def test_an_interrupted_run_goes_on(tmp_path, capsys):
    kept = tmp_path / "kept.jsonl"
    run = ["--smoke", "--json", "--half", "surfaces", "--kept", str(kept)]
    defects_augment.main([*run, "--arms", "baseline", "mosaic"])
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = kept.read_text().splitlines()
    assert len(lines) == 4
    kept.write_text("\n".join(lines[:2]) + "\n")
    defects_augment.main([*run, "--arms", "baseline", "mosaic"])
    second = json.loads(capsys.readouterr().out.splitlines()[-1])
    for arm in ("baseline", "mosaic"):
        for name in ("image_auroc", "pixel_auroc"):
            assert first["surfaces"][arm][name] == second["surfaces"][arm][name]


def test_smoke(capsys):
    defects_augment.main(["--smoke", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "defects-augment"
    for half, arms in defects_augment.ARMS.items():
        assert set(result[half]) == {"draws", *arms}
        for arm in arms[1:]:
            name = "acc" if half == "types" else "image_auroc"
            one = result[half][arm][name]
            assert one["low"] <= one["delta"] <= one["high"]
