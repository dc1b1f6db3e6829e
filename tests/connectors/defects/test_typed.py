"""Types named by a bundle's classifier: on the line, at the centre, in results, in pictures."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from connectors.defects.inspect.central.ensemble import EnsembleInspector
from connectors.defects.inspect.central.load import load_central
from connectors.defects.inspect.inspector import EdgeInspector, Opinion, open_inspector
from connectors.defects.inspect.typed import TypedInspector
from connectors.defects.pictures import SIDE, heat_picture, picture, sheet
from tasks.defects.bundle.bundle import write_bundle
from tasks.defects.classify.found import Found, learn_types
from tasks.defects.classify.pack import packed
from tasks.defects.judgement import Judgement
from tasks.defects.samples import Box, Sample
from tests.tasks.defects.bright import parts, plate

LINES = np.s_[8:16:2, 8:16]


def spot(number, kind):
    """A plate with a bright square that is full or lined."""
    pixels = plate(number, 230)
    if kind == "lined":
        pixels[LINES] = 150
    heat = np.zeros(pixels.shape, np.float32)
    heat[8:16, 8:16] = 0.9
    return Found(Sample(f"{kind}/{number}.png", pixels, "ng", kind), heat)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with types, and one without."""
    types = learn_types([spot(i, kind) for kind in ("full", "lined") for i in range(5)])
    facts = {"view": types.view, "left_out": {}, "chosen_by": dict(types.chosen_by)}
    facts["decides"] = True
    place = tmp_path_factory.mktemp("typed")
    write_bundle(place / "plain", parts())
    return write_bundle(
        place / "typed", replace(parts(), types=packed(types.classifier), types_facts=facts)
    )


def test_what_is_not_ok_is_named_by_the_bundle_and_else_as_before(bundle):
    typed, edge = open_inspector(bundle.folder), open_inspector(bundle.folder / "edge.onnx")
    assert isinstance(typed, TypedInspector)
    assert isinstance(edge, EdgeInspector)
    assert isinstance(open_inspector(bundle.folder, typed=False), EdgeInspector)
    assert isinstance(open_inspector(bundle.folder.parent / "plain"), EdgeInspector)
    assert typed.digest not in {edge.digest, bundle.digest}
    for kind in ("full", "lined"):
        pixels = spot(50, kind).sample.pixels
        said, before = typed.judge(pixels), edge.judge(pixels)
        assert (said.verdict, said.score) == ("NG", before.score)
        assert set(before.kinds) == {"spot", "unknown"}
        assert said.kind == kind
        assert {box.kind for box in said.boxes} == {kind}
        opinion = Opinion.of(said, typed).to_json()
        assert json.loads(json.dumps(opinion))["like"] == list(said.like)
        assert len(opinion["like"]) == 3
        (box,) = opinion["boxes"]
        assert box[:4] == pytest.approx(
            [8, 8, 16, 16], abs=1
        )  # the heat map is four times as coarse
    fine = plate(7)
    assert typed.judge(fine).kinds == edge.judge(fine).kinds
    assert typed.judge(fine).like == ()


def test_the_centre_names_once_what_all_its_views_found(bundle):
    central = load_central([bundle.folder])
    pixels = spot(60, "lined").sample.pixels
    said = central.judge(pixels)
    assert isinstance(central, TypedInspector)
    assert (said.verdict, said.kind, len(said.like)) == ("NG", "lined", 3)
    assert isinstance(load_central([bundle.folder.parent / "plain"]), EnsembleInspector)
    assert isinstance(load_central([bundle.folder / "edge.onnx"]), EnsembleInspector)


def test_pictures_are_small_and_show_boxes():
    pixels = np.full((300, 600), 120, np.uint8)
    said = Judgement(2.0, np.zeros((300, 600), np.float32), boxes=(Box(100, 50, 400, 200, "pit"),))
    shown = np.asarray(Image.open(io.BytesIO(heat_picture(said, pixels))))
    assert shown.shape == (SIDE // 2, SIDE, 3)
    assert Image.open(io.BytesIO(picture(pixels))).size == (SIDE, SIDE // 2)
    marked = (shown != shown[..., :1]).any(axis=2)
    rows, columns = np.nonzero(marked)
    scale = SIDE / 600
    assert abs(rows.min() - 50 * scale) < 2
    assert abs(columns.max() - 400 * scale) < 2
    whole = Image.open(io.BytesIO(sheet([(Sample("名.png", pixels, "ng", "pit"), said)] * 5)))
    assert whole.width > 3 * 2 * SIDE
    assert whole.height > 2 * SIDE


@pytest.mark.parametrize("corner", [(599, 299), (301.3, 80.2), (0, 0)])
def test_a_box_thinner_than_a_pixel_of_the_picture_is_still_shown(corner):
    pixels = np.full((300, 600), 120, np.uint8)
    box = Box(*corner, corner[0] + 1, corner[1] + 1, "pit")
    said = Judgement(2.0, np.zeros((300, 600), np.float32), boxes=(box,))
    shown = np.asarray(Image.open(io.BytesIO(heat_picture(said, pixels))))
    assert (shown != shown[..., :1]).any()
