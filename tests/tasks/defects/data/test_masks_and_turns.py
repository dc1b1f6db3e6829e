"""Masks as people keep them, and turns by EXIF of boxes and masks alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tasks.defects.data.masks import MaskError, binary_mask, fitted, mask_facts, usual_threshold
from tasks.defects.data.settle import (
    Conflict,
    Seen,
    copies,
    fitted_box,
    main_kind,
    settled,
)
from tasks.defects.data.turns import stored_size, turned, turned_box
from tasks.defects.samples import Box


@pytest.mark.parametrize("orientation", range(1, 9))
@settings(max_examples=10, deadline=None)
@given(
    left=st.integers(0, 18),
    top=st.integers(0, 8),
    width=st.integers(1, 6),
    height=st.integers(1, 4),
)
def test_boxes_and_masks_turn_as_pillow_turns_the_image(orientation, left, top, width, height):
    stored = np.zeros((12, 24), np.uint8)
    stored[top : top + height, left : left + width] = 255
    held = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(held, "PNG", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(held)))
    assert np.array_equal(turned(stored, orientation), shown)
    assert stored_size(*shown.shape[::-1], orientation) == (24, 12)
    box = turned_box(Box(left, top, left + width, top + height), orientation, 24, 12)
    rows, columns = np.nonzero(shown)
    assert (box.left, box.top, box.right, box.bottom) == (
        columns.min(), rows.min(), columns.max() + 1, rows.max() + 1,
    )  # fmt: skip


def disc(side=64):
    y, x = np.mgrid[:side, :side]
    return (y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / 4) ** 2


def test_soft_noisy_coloured_deep_and_numbered_masks_mean_the_same():
    truth = disc()
    rng = np.random.default_rng(0)
    white = truth * 255
    held = io.BytesIO()
    Image.fromarray(white.astype(np.uint8)).save(held, "JPEG", quality=60)
    forms = {
        "jpeg": np.asarray(Image.open(held)),
        "noisy": np.clip(white + rng.normal(0, 20, truth.shape), 0, 255).astype(np.uint8),
        "colour": np.stack([white, white * 0, white * 0], 2).astype(np.uint8),
        "deep": (white * 257).astype(np.uint16),
        "numbers": truth * np.uint8(3),
    }
    for name, pixels in forms.items():
        facts = mask_facts(pixels)
        threshold = usual_threshold([facts])
        assert threshold == (1 if name == "numbers" else 128)
        found = binary_mask(pixels, threshold, 64, 64)
        assert (found != truth).mean() < 0.002, name
        assert facts.marked(threshold) == found.sum()
        assert facts.soft == (name in {"jpeg", "noisy"})


def test_noise_of_an_empty_mask_is_no_number_where_others_are_white():
    noise = np.random.default_rng(0).integers(0, 6, (32, 32)).astype(np.uint8)
    empty, full = mask_facts(noise), mask_facts(disc(32) * np.uint8(255))
    assert usual_threshold([empty]) == 1  # alone nobody can tell
    assert empty.marked(usual_threshold([empty, full])) == 0
    assert usual_threshold([]) == usual_threshold([mask_facts(noise * 0)]) == 128


def test_masks_of_another_size_are_refused_with_both_sizes_or_brought_to_it():
    facts = mask_facts(disc(32) * np.uint8(255))
    with pytest.raises(MaskError, match=r"mask 32 x 32, image 64 x 64$"):
        fitted(facts, 64, 64, resize=False)
    fitted(facts, 64, 64, resize=True)
    with pytest.raises(MaskError, match="another shape"):
        fitted(facts, 64, 48, resize=True)
    found = binary_mask(disc(32) * np.uint8(255), 128, 64, 64)
    assert (found != disc(64)).mean() < 0.02
    fitted(mask_facts(np.zeros((33, 66), np.uint8)), 200, 100, resize=True)  # 66.7 cut off


def test_a_picture_is_no_mask():
    picture = np.random.default_rng(0).normal(120, 20, (64, 64)).astype(np.uint8)
    with pytest.raises(MaskError, match="neither dark nor light"):
        fitted(mask_facts(picture), 64, 64, resize=True)


def test_boxes_are_clipped_by_a_pixel_at_most():
    assert fitted_box(Box(-1, 0, 5, 10.5, "a"), 10, 10) == Box(0, 0, 5, 10, "a")
    for box in (Box(-1.5, 0, 5, 5), Box(0, 0, 5, 12), Box(10, 0, 11, 5), Box(50, 50, 60, 60)):
        with pytest.raises(Conflict, match="box-outside"):
            fitted_box(box, 10, 10)


def test_what_is_said_is_brought_together():
    box = Box(0, 0, 4, 4, "pit")
    assert settled(None, "", None, None) == (None, "")
    assert settled(None, "", (), None) == settled(None, "", None, 0) == ("ok", "")
    assert settled(None, "", (box,), None) == ("ng", "pit")
    assert settled("ng", "dent", (box,), 5) == ("ng", "dent")
    assert settled(None, "", (), 7) == ("ng", "")
    for boxes, marked in (((box,), None), (None, 3)):
        with pytest.raises(Conflict, match="ok-with-defect"):
            settled("ok", "", boxes, marked)
    assert main_kind([box, Box(0, 0, 5, 5, "dent"), Box(0, 0, 3, 4, "pit")]) == "pit"
    assert main_kind([Box(0, 0, 2, 2, "b"), Box(0, 0, 2, 2, "a"), Box(0, 0, 9, 9)]) == "a"


def test_copies_with_two_labels_are_all_refused_and_of_others_the_best_known_stays():
    seen = [
        Seen("a", "x", None, ""), Seen("b", "x", "ng", "pit", 1), Seen("c", "x", "ng", ""),
        Seen("d", "y", "ok", ""), Seen("e", "y", "ng", ""), Seen("f", "z", "ok", ""),
        Seen("g", "w", "ng", "pit"), Seen("h", "w", "ng", "dent"), Seen("i", "w", None, ""),
    ]  # fmt: skip
    conflicts, repeats = copies(seen)
    assert repeats == {0: 1, 2: 1}
    assert sorted(conflicts) == [3, 4, 6, 7, 8]
    assert "d is ok; e is ng" in conflicts[3].observed
