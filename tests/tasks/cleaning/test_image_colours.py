"""Embedded colour profiles: what they say counts, whatever cannot be used is left aside."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from tasks.cleaning.images.colour import MAX_PROFILE
from tasks.cleaning.images.decode import decode
from tasks.cleaning.images.limits import ImageLimits
from tasks.cleaning.images.sandbox import Sandbox
from tests.benchmarks._hostile_images import gray_profile, icc, stored, swapped_profile

SWAPPED = swapped_profile()
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 255, (24, 24, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 255, (24, 24), dtype=np.uint8)


def inks() -> bytes:
    """A CMYK profile by a table of two steps: every ink only darkens, black wholly."""
    corners = itertools.product((0, 1), repeat=4)  # the last ink changes first
    table = bytes(
        v for c, m, y, k in corners for v in (0 if k else 255 - 80 * (c + m + y), 128, 128)
    )
    one = struct.pack(">9i", *(65_536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + one + bytes(range(256)) * 4 + table
    return icc(b"CMYK", b"Lab ", {b"A2B0": lut + bytes(range(256)) * 3}, kind=b"prtr")


def use_of(data):
    return decode(data, ImageLimits()).facts["profile_use"]


def test_a_profile_that_swaps_red_and_green_is_undone():
    found = decode(stored(COLOUR, "PNG", icc_profile=SWAPPED), ImageLimits())
    assert np.array_equal(found.pixels, COLOUR[..., [1, 0, 2]])
    assert (found.facts["profile"], found.facts["profile_use"]) == ("swapped", "applied")
    plain = decode(stored(COLOUR, "PNG"), ImageLimits())
    assert np.array_equal(plain.pixels, COLOUR)
    assert plain.facts["profile_use"] == ""


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP", "PNG"])
def test_in_every_format_that_holds_one(kind):
    flat = np.full((24, 24, 3), (200, 40, 90), np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = stored(flat, kind, icc_profile=SWAPPED, **options)
    found = decode(data, ImageLimits()).pixels[12, 12].tolist()
    assert found == pytest.approx([40, 200, 90], abs=3)


def test_of_a_turned_image_too():
    turn = Image.Exif()
    turn[0x0112] = 6
    data = stored(COLOUR[:12], "PNG", icc_profile=SWAPPED, exif=turn.tobytes())
    found = decode(data, ImageLimits()).pixels
    assert np.array_equal(found, np.rot90(COLOUR[:12], -1)[..., [1, 0, 2]])


def test_palettes_and_alpha_keep_their_form():
    few = Image.fromarray(COLOUR).quantize(16)
    palette = decode(stored(few, "PNG", icc_profile=SWAPPED), ImageLimits()).pixels
    assert np.array_equal(palette, np.asarray(few.convert("RGB"))[..., [1, 0, 2]])
    opacity = np.where(GRAY > 100, 255, 0).astype(np.uint8)
    both = Image.fromarray(np.dstack([COLOUR, opacity]))
    found = decode(stored(both, "PNG", icc_profile=SWAPPED), ImageLimits())
    assert np.array_equal(found.pixels, COLOUR[..., [1, 0, 2]] * (opacity[..., None] > 0))
    assert 0 < found.facts["transparent"] < 1


def test_gray_stays_gray_and_is_brought_to_the_curve_of_srgb():
    for picture in (Image.fromarray(GRAY), Image.merge("LA", [Image.fromarray(GRAY)] * 2)):
        found = decode(stored(picture, "PNG", icc_profile=gray_profile(1.0)), ImageLimits())
        assert found.pixels.ndim == 2
        assert found.facts["profile_use"] == "applied"
    for same in (swapped_profile(), swapped_profile(again=True)):  # equal colours stay equal
        assert use_of(stored(GRAY, "PNG", icc_profile=same)) == "same"
    linear = decode(stored(GRAY, "PNG", icc_profile=gray_profile(1.0)), ImageLimits()).pixels
    share = GRAY / 255
    curve = np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055)
    assert np.abs(linear - 255 * curve).max() <= 0.51


def test_inks_are_mixed_as_their_profile_says():
    flat = Image.new("CMYK", (24, 24), (255, 0, 0, 0))
    plain = decode(stored(flat, "TIFF"), ImageLimits()).pixels
    assert plain[0, 0].tolist() == [0, 255, 255]
    found = decode(stored(flat, "TIFF", icc_profile=inks()), ImageLimits())
    assert found.facts["profile_use"] == "applied"
    assert found.pixels.ndim == 2  # this cyan is a gray
    assert 120 < found.pixels[0, 0] < 200


def test_pixels_under_srgb_stay_as_they_are_whatever_its_name():
    named = swapped_profile(again=True)
    assert use_of(stored(COLOUR, "PNG", icc_profile=named)) == "same"
    for picture in (COLOUR, np.dstack([COLOUR, GRAY])):
        one = decode(stored(picture, "PNG", icc_profile=named), ImageLimits()).pixels
        assert np.array_equal(one, decode(stored(picture, "PNG"), ImageLimits()).pixels)


@pytest.mark.parametrize(
    ("profile", "use"),
    [
        (b"no profile", "broken"), (SWAPPED[:100], "broken"), (SWAPPED[:300], "broken"),
        (SWAPPED[:36] + b"ACSP" + SWAPPED[40:], "broken"), (bytes(MAX_PROFILE + 1), "broken"),
        (gray_profile(1.8), "unfit"), (inks(), "unfit"),
    ],
    ids=["text", "head", "cut", "unsigned", "large", "gray", "inks"],  # profiles hold their time
)  # fmt: skip
def test_what_cannot_be_used_is_left_aside(profile, use):
    found = decode(stored(COLOUR, "TIFF", icc_profile=profile), ImageLimits())
    assert np.array_equal(found.pixels, COLOUR)
    assert found.facts["profile_use"] == use


def test_sixteen_bits_are_a_sensors_and_stay():
    deep = GRAY.astype(np.uint16) * 257
    found = decode(stored(deep, "PNG", icc_profile=gray_profile(1.0)), ImageLimits())
    assert np.array_equal(found.pixels, deep)
    assert found.facts["profile_use"] == "unfit"


def test_the_sandbox_applies_them_although_it_can_open_no_file_any_more():
    with Sandbox(workers=1) as sandbox:
        found = sandbox.pixels(stored(COLOUR, "PNG", icc_profile=SWAPPED))
        assert np.array_equal(found, COLOUR[..., [1, 0, 2]])
        flat = Image.new("CMYK", (24, 24), (255, 0, 0, 0))
        assert sandbox.pixels(stored(flat, "JPEG", icc_profile=inks())).ndim == 2
        measured = sandbox.measure(stored(GRAY, "PNG", icc_profile=gray_profile(1.0)))
        assert measured.facts["profile_use"] == "applied"


def test_spoilt_profiles_never_lose_an_image():
    rng = np.random.default_rng(1)
    for _ in range(150):
        spoilt = bytearray(SWAPPED)
        for place in rng.integers(0, len(spoilt), rng.integers(1, 12)):
            spoilt[place] = rng.integers(256)
        found = decode(stored(COLOUR, "PNG", icc_profile=bytes(spoilt)), ImageLimits())
        assert found.pixels.shape[:2] == (24, 24)
