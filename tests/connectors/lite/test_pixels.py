"""Inputs of penstock-lite: the pixels of the house's own reader, and refusals before any work."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from connectors.lite.pixels import read_input
from connectors.lite.png import MARK, InputError, decode_png, unfilter
from tasks.cleaning.images.decode import decode
from tasks.cleaning.images.limits import ImageLimits


def noise(*shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def png(image):
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def made(width, height, depth, kind, rows, *, interlaced=0, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    return (
        MARK + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def house(data):
    """Pixels by the house's reader."""
    return decode(data, ImageLimits()).pixels


def slowly(filters, rows):
    """The specification's own words, pixel by pixel (ISO/IEC 15948, 9.2)."""
    height, width, size = rows.shape
    done = np.zeros((height + 1, width + 1, size), np.int64)
    for y in range(height):
        for x in range(width):
            for c in range(size):
                a, b, d = done[y + 1, x, c], done[y, x + 1, c], done[y, x, c]
                p = a + b - d
                near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - d), 2, d))[2]
                guess = [0, a, b, (a + b) // 2, near][filters[y]]
                done[y + 1, x + 1, c] = (int(rows[y, x, c]) + guess) % 256
    return done[1:, 1:]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(0, 99)
)
def test_every_filter_is_undone_as_the_specification_says(height, width, size, seed):
    rng = np.random.default_rng(seed)
    filters = rng.integers(0, 5, height, dtype=np.uint8)
    rows = rng.integers(0, 256, (height, width, size), dtype=np.uint8)
    assert np.array_equal(unfilter(filters, rows), slowly(filters, rows))


def smooth(*shape):
    """An image for which Pillow picks filters of all kinds."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    wave = 127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)
    plane = wave if len(shape) == 2 else np.stack([wave + 9 * c for c in range(shape[2])], axis=2)
    return (plane + noise(*shape) % 8).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("pixels", [smooth(61, 83), smooth(60, 33, 3), noise(9, 8, 3)])
def test_pngs_are_read_as_by_the_house(pixels):
    data = png(Image.fromarray(pixels))
    found = decode_png(data)
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)
    assert np.array_equal(found, house(data))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_black_as_by_the_house(mode):
    image = Image.fromarray(noise(23, 31, 4)).convert(mode)
    data = png(image)
    assert np.array_equal(decode_png(data), house(data))


def test_deep_gray_keeps_its_bits_and_deep_colour_the_upper_eight():
    gray = noise(12, 17, dtype=np.uint16)
    data = png(Image.fromarray(gray))
    assert decode_png(data).dtype == np.uint16
    assert np.array_equal(decode_png(data), gray)
    assert np.array_equal(house(data), gray)
    colour = noise(9, 8, 3, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    data = made(8, 9, 16, 2, rows)
    assert np.array_equal(decode_png(data), house(data))
    assert np.array_equal(decode_png(data), colour >> 8)


def test_netpbm_is_read_as_by_the_house(tmp_path):
    for name, pixels in (("a.pgm", noise(7, 9)), ("b.ppm", noise(7, 9, 3))):
        Image.fromarray(pixels).save(tmp_path / name)
        assert np.array_equal(read_input(tmp_path / name), pixels)
    deep = noise(7, 9, dtype=np.uint16)
    (tmp_path / "c.pgm").write_bytes(
        b"P5 # by hand\n# again\n9 7\n65535\n" + deep.astype(">u2").tobytes()
    )
    assert read_input(tmp_path / "c.pgm").dtype == np.uint16
    assert np.array_equal(read_input(tmp_path / "c.pgm"), deep)


def test_arrays_are_read_whole(tmp_path):
    for array in (noise(3, 4, 3), np.ones((2, 3), np.float32, order="F"), np.float64(3.5)):
        np.save(tmp_path / "a.npy", array)
        found = read_input(tmp_path / "a.npy")
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


def huge_array():
    held = io.BytesIO()
    np.save(held, np.zeros((2, 3), np.float32))
    return held.getvalue().replace(b"(2, 3), }      ", b"(200000000, 3)}")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.npy", b"", "no array file"),
        ("a.npy", b"\x93NUMPY\x07\x00" + bytes(100), "no array file"),
        ("a.npy", huge_array(), "copy it anew"),
        ("a.png", b"GIF89a", "no PNG"),
        ("a.png", MARK, "ends early"),
        ("a.png", made(9, 9, 8, 0, bytes(90))[:-20], "ends early"),
        ("a.png", made(9, 9, 8, 0, bytes(90)).replace(b"IDAT", b"IDAS"), "checksum"),
        ("a.png", made(9, 9, 8, 0, bytes(89)), "rows are missing"),
        ("a.png", made(9, 9, 8, 0, b"\x05" + bytes(89)), "unknown filter"),
        ("a.png", made(9, 9, 8, 3, bytes(90)), "palette"),
        ("a.png", made(9, 9, 8, 0, bytes(90), interlaced=1), "interlaced"),
        ("a.png", made(9, 9, 8, 0, bytes(90), extra=chunk(b"tRNS", b"\0\0")), "transparent"),
        ("a.png", made(9, 9, 8, 0, bytes(90), extra=chunk(b"iCCP", b"x")), "colour profile"),
        ("a.png", made(1 << 30, 1 << 30, 8, 0, b""), "at most"),
        ("a.png", made(0, 9, 8, 0, b""), "at most"),
        ("a.png", MARK + chunk(b"IEND", b""), "no header"),
        ("a.pgm", b"P2\n2 2\n255\n1 2 3 4", "no binary"),
        ("a.pgm", b"P5\n9 9\n255\nabc", "81 bytes of pixels"),
        ("a.pgm", b"P5\n9 9\n4095\n" + bytes(200), "highest value 4095"),
        ("a.ppm", b"P6\n99999 99999\n255\n", "at most"),
        ("a.jpg", b"", "files ending in"),
        ("none.png", None, "no such file"),
    ],
)
def test_what_is_not_read_is_told_with_its_name(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*{told}"):
        read_input(tmp_path / name)


def test_objects_in_arrays_are_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array(["text"]))
    with pytest.raises(InputError, match="numbers are read"):
        read_input(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="numbers are read"):
        read_input(tmp_path / "a.npy")


def test_a_file_larger_than_allowed_is_not_opened(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        file.truncate(600 * 2**20)  # holds nothing: no disk is used
    with pytest.raises(InputError, match="at most"):
        read_input(tmp_path / "a.npy")


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=120), st.integers(0, 200))
def test_spoilt_pngs_are_refused_or_read_never_crashed_on(more, at):
    data = bytearray(made(9, 9, 8, 0, bytes(90)))
    data[at : at + len(more)] = more
    try:
        found = decode_png(bytes(data))
    except InputError:
        return
    assert found.ndim in {2, 3}
