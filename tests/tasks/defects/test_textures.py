"""Generated surfaces and defects: deterministic, masked to the pixel, different where they say."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.defects.samples import SampleError, parts_of
from tasks.defects.textures.camera import Camera
from tasks.defects.textures.defects import DEFECTS, LEAST_CHANGE, add_defect, damage
from tasks.defects.textures.fields import fractal_noise, spectral_noise, value_noise, worley
from tasks.defects.textures.line import LineConfig, boxes_of, make_line
from tasks.defects.textures.surface import TEXTURES, draw_surface, make_texture, varied

SEEDS = st.integers(0, 2**31)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


@pytest.mark.parametrize("kind", TEXTURES)
def test_a_texture_follows_its_seed_and_has_something_to_see(kind):
    drawn = [make_texture(kind, (64, 80), np.random.default_rng(seed)) for seed in range(8)]
    again = [make_texture(kind, (64, 80), np.random.default_rng(seed)) for seed in range(8)]
    assert [digest(a) for a in drawn] == [digest(a) for a in again]
    assert len({digest(a) for a in drawn}) == 8
    for pixels in drawn:
        assert pixels.shape == (64, 80)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 2


@given(kind=st.sampled_from(TEXTURES), height=st.integers(8, 70), width=st.integers(8, 70), s=SEEDS)
@settings(max_examples=60, deadline=None)
def test_textures_of_any_size_are_finite(kind, height, width, s):
    field = draw_surface(kind, np.random.default_rng(s)).render(
        (height, width), np.random.default_rng(s)
    )
    assert field.shape == (height, width)
    assert field.dtype == np.float32
    assert np.isfinite(field).all()


@given(
    texture=st.sampled_from(TEXTURES),
    kind=st.sampled_from(DEFECTS),
    height=st.integers(24, 90),
    width=st.integers(24, 90),
    colour=st.booleans(),
    s=SEEDS,
)
@settings(max_examples=120, deadline=None)
def test_a_defect_changes_what_its_mask_covers_and_nothing_else(
    texture, kind, height, width, colour, s
):
    pixels = make_texture(texture, (height, width), np.random.default_rng(s))
    if colour:
        pixels = np.stack([pixels, pixels // 2, 255 - pixels], 2)
    kept = pixels.copy()
    spoilt, mask = add_defect(pixels, kind, np.random.default_rng(s))
    twice, same = add_defect(pixels, kind, np.random.default_rng(s))
    assert np.array_equal(pixels, kept)  # the given image is left alone
    assert np.array_equal(spoilt, twice)
    assert np.array_equal(mask, same)
    assert spoilt.shape == pixels.shape
    assert spoilt.dtype == np.uint8
    assert mask.any()
    assert np.array_equal(spoilt[~mask], pixels[~mask])
    assert (spoilt != pixels).any()


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_shows_and_is_a_small_part_of_the_image(kind):
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        field = draw_surface("mixed", rng).render((96, 96), rng)
        changed, mask = damage(field, kind, rng)
        moved = np.abs(np.clip(changed, 0, 1) - np.clip(field, 0, 1))
        assert 255 * moved[mask].mean() >= LEAST_CHANGE
        shares.append(mask.mean())
    assert 0.0005 < np.median(shares) < 0.25


def test_strength_raises_the_contrast():
    def change(strength):
        found = []
        for seed in range(30):
            rng = np.random.default_rng(seed)
            field = draw_surface("cast", rng).render((96, 96), rng)
            changed, mask = damage(field, "stain", rng, (strength, strength))
            found.append(np.abs(changed - field)[mask].mean() / field.std())
        return np.mean(found)

    assert change(4.0) > 1.5 * change(1.0)


def test_fields_have_the_spread_they_promise():
    rng = np.random.default_rng(0)
    for field in (
        value_noise((400, 400), 5, rng),
        fractal_noise((400, 400), 12, 4, 0.6, rng),
        spectral_noise((400, 400), rng, slope=1.2, stretch=6, angle=0.4),
    ):
        assert field.std() == pytest.approx(1, abs=0.12)
        assert field.mean() == pytest.approx(0, abs=0.12)
    first, second = worley((60, 60), 10, rng)
    assert (first <= second).all()
    assert 0 < first.max() < 1.5


def test_a_stretched_field_is_smooth_along_its_direction():
    field = spectral_noise((128, 128), np.random.default_rng(1), slope=0.5, stretch=20)
    along, across = np.abs(np.diff(field, axis=1)).mean(), np.abs(np.diff(field, axis=0)).mean()
    assert across > 3 * along


def test_surfaces_of_a_line_are_alike_and_those_of_two_are_not():
    def moments(surface, seed):
        field = surface.render((96, 96), np.random.default_rng(seed))
        steps = np.diff(field, axis=0).std(), np.diff(field, axis=1).std()
        return np.log([field.std(), *steps])

    lines = [draw_surface("mixed", np.random.default_rng(seed)) for seed in range(12)]
    drawn = np.array([[moments(line, seed) for seed in range(6)] for line in lines])
    within, between = drawn.std(axis=1).mean(), drawn.mean(axis=1).std(axis=0).mean()
    assert between > 3 * within


@pytest.mark.parametrize("kind", ["print", "pcb"])
@pytest.mark.parametrize("seed", range(12))
def test_every_part_of_a_line_carries_the_same_print(kind, seed):
    surface = draw_surface(kind, np.random.default_rng(seed))
    first, *others = (surface.render((90, 120), np.random.default_rng(n)) for n in range(5))
    middle = first[4:-4, 4:-4]
    for other in others:
        moved = [
            np.corrcoef(middle.ravel(), other[i : i + 82, j : j + 112].ravel())[0, 1]
            for i in range(9)
            for j in range(9)
        ]
        assert max(moved) > 0.6


def test_variation_of_zero_leaves_a_surface_alone():
    surface = draw_surface("weave", np.random.default_rng(0))
    assert varied(surface, np.random.default_rng(1), 0.0) == surface
    assert varied(surface, np.random.default_rng(1), 0.2) != surface


def test_a_camera_darkens_corners_and_blurs():
    field = np.full((64, 64), 0.5, np.float32)
    dark = Camera(vignetting=0.8).exposed(field, np.random.default_rng(0))
    assert dark[0, 0] < dark[32, 32] - 0.2
    noisy = Camera(noise=0.05).taken(field, np.random.default_rng(0))
    assert 9 < noisy.std() < 16
    edge = np.where(np.arange(64) < 32, 0, 1).astype(np.float32)[None, :].repeat(64, 0)
    assert (
        np.abs(np.diff(Camera(blur=2).exposed(edge, np.random.default_rng(0)), axis=1)).max() < 0.3
    )


def test_a_line_has_parts_exposures_types_masks_and_boxes():
    config = LineConfig(ok=3, ng={"pit": 2, "scratch": 2}, exposures=3, shape=(64, 96), seed=5)
    line = make_line(config)
    assert len(line) == 7 * 3
    assert len({sample.name for sample in line}) == 21
    assert len(set(parts_of(line))) == 7
    assert [s.kind for s in line[:9]] == [""] * 9
    for sample in line:
        assert sample.pixels.shape == (64, 96)
        assert (sample.label == "ng") == (sample.mask is not None) == bool(sample.boxes)
        for box in sample.boxes:
            inside = sample.mask[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
            assert inside.any()
    shots = [s.pixels.astype(float) for s in line[:3]]
    assert np.ptp([shot.mean() for shot in shots]) > 1
    assert np.corrcoef(shots[0].ravel(), shots[1].ravel())[0, 1] > 0.8
    assert all(
        np.array_equal(a.pixels, b.pixels) for a, b in zip(line, make_line(config), strict=True)
    )


def test_more_parts_leave_those_before_as_they_are():
    few = make_line(LineConfig(ok=2, ng={"pit": 1}))
    many = {s.name: s for s in make_line(LineConfig(ok=5, ng={"dent": 2, "pit": 3}))}
    assert all(np.array_equal(s.pixels, many[s.name].pixels) for s in few)


def test_boxes_hold_every_marked_pixel():
    mask = np.zeros((40, 40), bool)
    mask[2:5, 3:9] = mask[20:22, 30:33] = True
    boxes = boxes_of(mask, "pit")
    assert [(b.left, b.top, b.right, b.bottom) for b in boxes] == [(3, 2, 9, 5), (30, 20, 33, 22)]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda rng: make_texture("velvet", 64, rng), "velvet"),
        (lambda rng: make_texture("cast", 4, rng), "8 pixels"),
        (lambda rng: add_defect(np.zeros((64, 64), np.uint8), "rust", rng), "rust"),
        (lambda rng: add_defect(np.zeros((9, 64), np.uint8), "pit", rng), "16"),
        (lambda rng: damage(np.ones((32, 32), np.float32), "pit", rng, (2, 1)), "strength"),
        (lambda rng: LineConfig(texture="velvet"), "velvet"),
        (lambda rng: LineConfig(ng={"rust": 1}), "rust"),
        (lambda rng: LineConfig(shape=(8, 64)), "16"),
        (lambda rng: LineConfig(exposures=0), "exposure"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(make, named):
    with pytest.raises((ValueError, SampleError), match=named):
        make(np.random.default_rng(0))
