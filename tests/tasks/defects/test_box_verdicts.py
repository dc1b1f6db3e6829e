"""Boxes of a line: what they are learned from, how a verdict tells them, their figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.defects.boxes.figures import box_figures, box_words
from tasks.defects.boxes.labelled import BoxesConfig, drawn
from tasks.defects.boxes.verdict import boxed
from tasks.defects.judgement import Judgement
from tasks.defects.samples import Box, Sample

FEW = BoxesConfig(least=4)
CONTOUR = Box(0, 0, 9, 9, "pit", 0.7)
PIXELS = np.zeros((32, 40), np.uint8)


def defect(number, *boxes, kind="pit", mask=None):
    return Sample(f"{number}.png", PIXELS, "ng", kind, mask, boxes)


def good(count):
    return [Sample(f"ok {number}.png", PIXELS, "ok") for number in range(count)]


def judgement(verdict, *, kinds=None, boxes=(CONTOUR,)):
    heat = np.zeros(PIXELS.shape, np.float32)
    return Judgement(0.5, heat, verdict, kinds or {"pit": 0.8, "unknown": 0.2}, boxes)


# --- what is learned from ------------------------------------------------------------------------


def test_enough_images_with_boxes_or_masks_are_learned_from_with_half_as_many_good_ones():
    mask = np.zeros(PIXELS.shape, bool)
    mask[3:9, 3:9] = mask[20:30, 20:30] = True
    marked = [defect(i, Box(1, 1, 5, 5)) for i in range(3)] + [defect(3, mask=mask)]
    chosen = drawn([*marked, defect(9), *good(30)], FEW)
    assert [len(one.boxes) for one in chosen.samples] == [1, 1, 1, 2, 0, 0]
    assert {box.kind for one in chosen.samples for box in one.boxes} == {"pit"}
    assert (chosen.reason, chosen.left_aside) == ("", 0)
    assert len({one.name for one in chosen.samples}) == 6


def test_too_few_are_told_unless_it_is_asked_for_or_not_wanted():
    samples = [*(defect(i, Box(1, 1, 5, 5)) for i in range(3)), defect(9), *good(3)]
    assert drawn(samples, FEW) == (
        [],
        "3 of the images to learn from have boxes or masks; label 1 more",
        0,
    )
    assert len(drawn(samples, replace(FEW, fit=True)).samples) == 4
    assert drawn(samples, replace(FEW, least=3, fit=False)) == ([], "", 0)
    nothing = drawn(good(9), replace(FEW, fit=True))
    assert nothing.reason == "0 of the images to learn from have boxes or masks; label 1 more"
    outside = [defect(i, Box(50, 50, 60, 60)) for i in range(9)]
    assert drawn(outside, FEW).reason.startswith("0 of the images")
    with pytest.raises(ValueError, match="give at least 1 image"):
        BoxesConfig(least=0)


@pytest.mark.parametrize("nobody", ["", "unknown"])
def test_boxes_without_a_type_are_left_aside_or_all_count_as_of_none(nobody):
    named = [defect(i, Box(1, 1, 5, 5)) for i in range(4)]
    mixed = Box(1, 1, 5, 5), Box(7, 7, 9, 9, nobody or "unknown")
    unnamed = [defect(7, *mixed), defect(8, Box(1, 1, 5, 5), kind=nobody)]
    enough = drawn([*named, *unnamed], FEW)
    assert {one.name for one in enough.samples} == {f"{i}.png" for i in range(4)}
    assert enough.left_aside == 2
    short = drawn([*named[:2], *unnamed], FEW)
    assert len(short.samples) == 4
    assert {box.kind for one in short.samples for box in one.boxes} == {""}
    assert short.left_aside == 0


# --- beside a verdict ----------------------------------------------------------------------------


def test_boxes_take_the_place_of_contours_and_change_nothing_else():
    found = [Box(4, 4, 8, 8, "scratch", 0.9), Box(1, 1, 3, 3, "", 0.5), Box(0, 0, 2, 2, "pit", 0.1)]
    for verdict in ("NG", "REVIEW"):
        said = judgement(verdict)
        told = boxed(said, found, 0.3)
        assert told.boxes == (found[0], replace(found[1], kind="pit"))
        assert replace(told, boxes=()).kinds == said.kinds
        assert (told.score, told.verdict, told.like) == (said.score, said.verdict, said.like)
        for nothing in (found[2:], []):
            assert boxed(said, nothing, 0.3).boxes == (CONTOUR,)
    fine = judgement("OK", boxes=(CONTOUR,))
    assert boxed(fine, found, 0.3) is fine


def test_a_warm_spot_that_no_box_touches_keeps_its_contour():
    spots = (CONTOUR, Box(9, 0, 20, 9, "pit", 0.9), Box(5, 20, 9, 30, "pit", 0.6))
    found = [Box(20, 0, 30, 9, "scratch", 0.8), Box(6, 22, 7, 23, "pit", 0.7)]
    told = boxed(judgement("NG", boxes=spots), found, 0.3)
    assert told.boxes == (*found, *spots[:2])
    assert boxed(judgement("NG", boxes=()), found, 0.3).boxes == tuple(found)


def test_boxes_of_an_unknown_defect_claim_no_type():
    said = judgement("NG", kinds={"pit": 0.2, "unknown": 0.8})
    told = boxed(said, [Box(4, 4, 8, 8, "scratch", 0.9)], 0.3)
    assert told.boxes == (Box(4, 4, 8, 8, "unknown", 0.9),)


# --- figures -------------------------------------------------------------------------------------


def test_figures_are_of_marked_and_good_images_with_contours_beside():
    true = [Box(0, 0, 10, 10), Box(20, 10, 30, 20)]
    samples = [defect(0, true[0]), defect(1, *true), defect(2), defect(3, Box(1, 1, 9, 9, "dent"))]
    samples += good(1)
    hit = [replace(box, kind="pit", score=0.9) for box in true]
    found = [hit[:1], hit[:1], hit, hit[1:], [replace(hit[0], score=0.2)]]
    figures = box_figures(samples, found, [[]] * 5, ("pit", "scratch"), 0.3)
    assert {name: figures[name] for name in ("images", "good", "boxes", "strange")} == {
        "images": 3, "good": 1, "boxes": 3, "strange": 1,
    }  # fmt: skip
    # Two of three boxes are hit at .9, where a third box lies on a defect of another type.
    assert figures["map50"] == pytest.approx(2 / 3 * 2 / 3)
    assert figures["contours_map50"] == 0
    assert 0 <= figures["low"] <= figures["map50"] <= figures["high"] <= 1
    assert figures["by_type"] == [{"name": "pit", "boxes": 3, "ap": figures["map50"]}]
    assert figures["told"] == {"from": 0.3, "boxes": 3, "right": 2}
    words = box_words(figures)
    assert words.startswith("boxes: mAP50 0.444 [")
    assert "on 3 images held out (0.000 by contours of the heat map)" in words


def test_without_types_places_alone_count():
    samples = [defect(0, Box(0, 0, 10, 10)), defect(1, Box(0, 0, 10, 10), kind="dent")]
    contours = [[Box(0, 0, 10, 10, "pit", 0.8)], [Box(0, 0, 10, 10, "pit", 0.8)]]
    figures = box_figures(samples, [[Box(0, 0, 10, 9, "", 0.8)]] * 2, contours, ("",), 0.3)
    assert (figures["map50"], figures["contours_map50"], figures["strange"]) == (1, 1, 0)
    assert figures["by_type"] == [{"name": "", "boxes": 2, "ap": 1.0}]


def test_nothing_marked_is_not_measured():
    figures = box_figures([defect(0), *good(2)], [[]] * 3, [[]] * 3, ("pit",), 0.3)
    assert figures == {"images": 0, "good": 2, "boxes": 0, "strange": 0}
    assert "not measured" in box_words(figures)
