"""Types of what a detector found: cut out, learned, judged on held-out parts, kept in a bundle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.bundle.folder import BundleError, seal
from tasks.defects.bundle.bundle import TYPES, DefectBundle, write_bundle
from tasks.defects.classify.fit import TypesConfig
from tasks.defects.classify.found import LEAST_SIDE, Found, learn_types, viewed
from tasks.defects.classify.pack import packed
from tasks.defects.contours import MOST, boxes_of_heat
from tasks.defects.judgement import Judgement
from tasks.defects.samples import Box, Sample
from tasks.defects.type_figures import COMMONEST, EDGE, type_figures
from tests.tasks.defects.bright import parts

SIDE = 80


def found(number, kind, part=""):
    """A plate full of dots and strokes, and a heat map that shows the one that is a defect."""
    rng = np.random.default_rng((number, len(kind)))
    pixels = rng.integers(70, 100, (SIDE, SIDE), dtype=np.uint8)
    heat = np.zeros((SIDE, SIDE), np.float32)

    def spot(kind, top, left):
        return (
            np.s_[top, left : left + 16]
            if kind == "stroke"
            else np.s_[top : top + 6, left : left + 6]
        )

    for each in ("dot", "stroke"):
        for _ in range(rng.integers(2, 40)):
            pixels[spot(each, *rng.integers(0, SIDE - 16, 2))] = 255
    top, left = rng.integers(12, SIDE - 30, 2)
    pixels[top - 10 : top + 16, left - 10 : left + 26] = 85
    place = spot(kind, top, left)
    pixels[place] = 255
    heat[place] = 0.9
    return Found(Sample(f"{kind}/{number}.png", pixels, "ng", kind, part=part), heat)


@pytest.fixture(scope="module")
def types():
    labelled = [found(i, kind) for kind in ("dot", "stroke") for i in range(8)]
    return learn_types([*labelled, found(99, "rare"), found(98, "")], TypesConfig(nearest=2))


def test_small_defects_are_named_by_their_spot(types):
    assert types.view == "hottest spot"
    assert types.chosen_by["hottest spot"] > types.chosen_by["whole image"]
    assert types.classifier.kinds == ("dot", "stroke")
    assert types.left_out == {"rare": 1}
    new = [found(100 + i, kind) for kind in ("dot", "stroke") for i in range(6)]
    said = [types.judge(one.sample.pixels, one.heat) for one in new]
    assert sum(a.kind == b.sample.kind for a, b in zip(said, new, strict=True)) >= 10
    assert all(len(one.nearest) == 2 for one in said)


def test_a_surface_that_is_defective_all_over_is_named_by_the_whole_image():
    def stripes(number, period):
        rng = np.random.default_rng((number, period))
        wave = np.sin((np.arange(SIDE) + rng.integers(99)) * 2 * np.pi / period)[None, :]
        pixels = (128 + 50 * wave + rng.normal(0, 60, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)
        heat = np.full((SIDE, SIDE), 0.3, np.float32)
        heat[tuple(rng.integers(0, SIDE, 2))] = 0.9  # the hottest spot says little
        return Found(Sample(f"{period}/{number}", pixels, "ng", f"period {period}"), heat)

    types = learn_types([stripes(i, period) for period in (34, 44) for i in range(8)])
    assert types.view == "whole image"


def test_too_few_parts_make_no_types():
    one_part = [found(i, kind, part=kind) for kind in ("dot", "stroke") for i in range(3)]
    assert learn_types(one_part) is None
    assert learn_types([found(i, "dot") for i in range(6)]) is None
    assert learn_types([found(i, "") for i in range(6)]) is None


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(8, 90), width=st.integers(8, 90),
    spots=st.lists(st.tuples(st.integers(0, 89), st.integers(0, 89)), max_size=4),
)  # fmt: skip
def test_a_cut_lies_within_the_image_and_shows_the_hottest_pixel(height, width, spots):
    rng = np.random.default_rng(height * 100 + width)
    pixels = rng.integers(0, 256, (height, width), dtype=np.uint8)
    heat = np.zeros((height, width), np.float32)
    for number, (row, column) in enumerate(spots):
        heat[min(row, height - 1), min(column, width - 1)] = 0.5 + number / 10
    cut = viewed(pixels, heat, "hottest spot")
    assert min(cut.shape) >= min(LEAST_SIDE, height, width)
    if spots:
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert (cut == pixels[row, column]).any()
    assert viewed(pixels, heat, "whole image") is pixels


def test_figures_count_parts_and_set_floors_beside(types):
    held = [found(200 + i, "dot", part=f"p{i // 2}").sample for i in range(6)]
    held += [found(300, "stroke").sample, found(301, "rare").sample]
    named = ["dot", "dot", "dot", "stroke", "dot", "dot", "unknown", "unknown"]
    by_edge = ["stroke"] * 8
    learned = [one for kind, n in (("dot", 5), ("stroke", 3)) for one in held[:1] * n]
    told = type_figures(held, named, by_edge, types, learned)
    assert (told["parts"], told["right"]) == (4, 2)  # one image of p1 is named wrongly
    assert told["low"] < 0.5 < told["high"]
    assert [(one["name"], one["parts"], one["right"]) for one in told["by_type"]] == [
        ("dot", 3, 2), ("stroke", 1, 0),
    ]  # fmt: skip
    assert told["unknown"] == pytest.approx(1 / 7)
    assert told["floors"] == {COMMONEST: 3, EDGE: 1}
    assert told["decides"]
    better = type_figures(held, named, ["dot"] * 8, types, learned)
    assert (better["floors"][EDGE], better["decides"]) == (3, False)
    assert told["strange"] == {"parts": 1, "unknown": 1}
    assert told["confusion"]["columns"] == ["dot", "stroke", "unknown"]
    assert told["confusion"]["rows"]["dot"] == [5, 1, 0]


def test_a_bundle_keeps_types_and_their_view(types, tmp_path):
    facts = {"view": types.view, "left_out": types.left_out, "chosen_by": types.chosen_by}
    facts["decides"] = False
    whole = replace(parts(), types=packed(types.classifier), types_facts=facts)
    bundle = write_bundle(tmp_path / "bundle", whole)
    one, kept = found(400, "stroke"), DefectBundle.load(bundle.folder).types()
    told = types.judge(one.sample.pixels, one.heat)
    assert kept.judge(one.sample.pixels, one.heat) == told
    assert (kept.view, kept.left_out) == (types.view, types.left_out)
    before = Judgement(1.0, one.heat, "NG", {"pit": 0.7, "unknown": 0.3}, (Box(1, 1, 5, 5, "pit"),))
    said = kept.named(one.sample.pixels, before)
    assert (said.kinds, said.boxes, said.like) == (before.kinds, before.boxes, told.nearest)
    said = types.named(one.sample.pixels, before)
    assert (said.kind, said.boxes[0].kind, said.like) == (told.kind, told.kind, told.nearest)
    assert write_bundle(tmp_path / "none", parts()).types() is None
    (bundle.folder / TYPES).write_bytes(b"no archive")
    seal(bundle.folder, bundle.manifest)
    with pytest.raises(BundleError, match=r"types.npz: no classifier"):
        DefectBundle.load(bundle.folder).types()


def test_warm_spots_are_boxes_with_the_warmest_first():
    heat = np.zeros((40, 60), np.float32)
    heat[2:10, 3:9], heat[20:30, 40:60], heat[35:37, 5:7] = 0.6, 1.4, 0.9
    heat[39, 59] = np.nan
    first, second = boxes_of_heat(heat, "pit")
    assert (first.left, first.top, first.right, first.bottom) == (40, 20, 60, 30)
    assert (first.score, first.kind) == (1.0, "pit")
    assert second.score == pytest.approx(0.6)
    assert boxes_of_heat(np.zeros((8, 8), np.float32)) == ()
    many = np.kron(np.indices((10, 10)).sum(0) % 2, np.ones((5, 5))).astype(np.float32)
    assert len(boxes_of_heat(many)) == MOST
