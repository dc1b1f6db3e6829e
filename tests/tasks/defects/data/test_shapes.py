"""Outlines and runs: which pixels they mark, and that hostile ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.defects.data.shapes import (
    MAX_TEXT,
    MAX_WORK,
    Outline,
    Runs,
    ShapeError,
    drawn,
    shapes_digest,
    unpacked,
)

SIDE = 24
places = st.floats(-4, SIDE + 4, allow_nan=False)
masks = st.integers(0, 2**32).map(np.random.default_rng).map(
    lambda rng: rng.random((int(rng.integers(1, 9)), int(rng.integers(1, 9)))) < rng.random()
)  # fmt: skip


def outline(*points):
    return Outline(np.array(points, np.float64))


def runs_of(mask):
    """The plain runs of a mask, down its columns."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes])).astype(np.int64)


def packed(counts):
    """Compress runs as `rleToString` of COCO's mask API does, number by number."""
    text = ""
    for place, count in enumerate(counts):
        value, more = int(count) - (int(counts[place - 2]) if place > 2 else 0), True
        while more:
            letter, value = value & 31, value >> 5
            more = value != (-1 if letter & 16 else 0)
            text += chr((letter | 32 if more else letter) + 48)
    return text


@given(*[st.integers(0, 10)] * 2, *[st.integers(1, 9)] * 2)
def test_the_area_of_an_outline_on_the_grid_is_exact(left, top, width, height):
    right, bottom = left + width, top + height
    box = outline((left, top), (right, top), (right, bottom), (left, bottom))
    expected = np.zeros((SIDE, SIDE), np.bool_)
    expected[top:bottom, left:right] = True
    assert np.array_equal(drawn([box], SIDE, SIDE), expected)


@settings(max_examples=200)
@given(points=st.lists(st.tuples(places, places), min_size=3, max_size=9))
def test_pixels_are_those_whose_middle_lies_inside(points):
    """Against counting, pixel by pixel, how many edges lie to the left of its middle."""
    found = drawn([outline(*points)], SIDE, SIDE)
    expected = np.zeros_like(found)
    for row in range(SIDE):
        for column in range(SIDE):
            x, y, inside = column + 0.5, row + 0.5, False
            for ends in zip(points, points[1:] + points[:1], strict=True):
                # From the upper end on: both ways of going along an edge round alike.
                (ax, ay), (bx, by) = sorted(ends, key=lambda end: end[1])
                if ay <= y < by:
                    inside ^= ax + (y - ay) / (by - ay) * (bx - ax) <= x
            expected[row, column] = inside
    if expected.any():  # else those of its corners
        assert np.array_equal(found, expected)


@settings(max_examples=300)
@given(cut=places)
def test_outlines_that_share_an_edge_share_no_pixel_and_leave_none_out(cut):
    top, low = (cut, -9.0), (SIDE - cut, SIDE + 9.0)
    left = drawn([outline((-9, -9), top, low, (-9, SIDE + 9))], SIDE, SIDE)
    right = drawn([outline(top, (SIDE + 9, -9), (SIDE + 9, SIDE + 9), low)], SIDE, SIDE)
    assert (left ^ right).all()


def test_a_hair_marks_the_pixels_of_its_corners():
    hair = outline((2.1, 3.1), (2.2, 3.1), (2.2, 7.9), (2.1, 7.9))
    assert np.argwhere(drawn([hair], SIDE, SIDE)).tolist() == [[3, 2], [7, 2]]
    gone = outline((-5, -5), (-4.9, -5), (-4.9, -4))
    assert not drawn([gone], SIDE, SIDE).any()


def test_a_hole_by_a_line_that_crosses_itself_is_no_part_of_it():
    ring = [(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (3, 3), (6, 3), (6, 6), (3, 6), (3, 3)]
    assert drawn([outline(*ring)], SIDE, SIDE).sum() == 81 - 9


@settings(max_examples=200)
@given(mask=masks)
def test_runs_are_down_the_columns_and_unpack_as_they_were_packed(mask):
    counts = runs_of(mask)
    height, width = mask.shape
    assert np.array_equal(unpacked(packed(counts)), counts)
    runs = Runs(height, width, counts)
    assert np.array_equal(drawn([runs], width, height), mask)
    if mask.any():
        rows, columns = np.nonzero(mask)
        left, top, right, bottom = runs.extent()
        assert (left, right) == (columns.min(), columns.max() + 1)
        assert top <= rows.min()
        assert rows.max() + 1 <= bottom
    else:
        with pytest.raises(ShapeError, match="mark no pixel"):
            runs.extent()


def test_a_text_of_cocos_mask_api():
    """``[[0,0,0],[1,1,0]]`` and a run of 40 pixels, worked out by its rules."""
    assert unpacked("1113").tolist() == [1, 1, 1, 4]
    assert unpacked("0X10000" + "0").tolist()[:2] == [0, 40]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "letters from"), ("aé", "letters from"), ("~", "letters from"), ("1P", "ends a run"),
        ("P" * 40 + "0", "longer than"), ("1" * (MAX_TEXT + 1), "are read"),
    ],
)  # fmt: skip
def test_texts_that_are_no_runs_are_refused(text, message):
    with pytest.raises(ShapeError, match=message):
        unpacked(text)


@pytest.mark.parametrize(
    ("height", "width", "counts", "message"),
    [
        (2, 2, [3], "runs of 3 pixels, but 2 x 2"), (0, 4, [], "of no image"),
        (1 << 20, 1 << 20, [1 << 40], "of no image"), (2, 2, [-1, 5], "a run below 0"),
        (2, 2, [2**62, 2**62, 2**62, 2**62, 4], "a run below 0 or above 4"),
    ],
)  # fmt: skip
def test_runs_of_another_image_are_refused(height, width, counts, message):
    with pytest.raises(ShapeError, match=message):
        Runs(height, width, np.array(counts, np.int64))


def test_work_is_known_before_anything_is_made():
    corners = np.tile([[0.0, 0.0], [1e6, 1e6]], (50_000, 1))
    assert Outline(corners).work() > MAX_WORK
    assert Runs(20_000, 20_000, np.array([4 * 10**8])).work() > MAX_WORK
    assert outline((0, 0), (64, 0), (64, 64)).work() < 10_000


def test_the_digest_tells_shapes_apart():
    one, other = outline((0, 0), (4, 0), (4, 4)), outline((0, 0), (4, 0), (4, 5))
    assert shapes_digest([one]) == shapes_digest([outline((0, 0), (4, 0), (4, 4))])
    assert len({shapes_digest(s) for s in ([one], [other], [one, other], [other, one])}) == 4
