"""Image files that a stranger might send: by hand, and good ones with their bytes turned over.

Every entry is a file name, its bytes, and the rule that must refuse it; "" where it must decode,
`EITHER` where both are right. None of it comes from outside.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

EITHER = "either"
BROKEN = "broken"


class HostileImage(NamedTuple):
    """A file and the rule that must refuse it."""

    name: str
    content: bytes
    rule: str = EITHER


def picture(rng: np.random.Generator, side: int = 64) -> np.ndarray[Any, Any]:
    """Return gray noise on a slope, uint8 [side, side]."""
    slope = np.linspace(60, 180, side)[:, None] + np.linspace(0, 30, side)
    return np.clip(slope + rng.normal(0, 8, (side, side)), 0, 255).astype(np.uint8)


def stored(image: Any, kind: str, **options: Any) -> bytes:
    """Return an image or an array as the bytes of a file."""
    held = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(held, kind, **options)
    return held.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, data: bytes, *extra: bytes, depth: int = 8, kind: int = 0
) -> bytes:
    """Return a PNG of any header, right or wrong, around compressed data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr") -> bytes:
    """Return a colour profile (ICC.1:2004), right or wrong, named "made"."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63_190, 65_536, 54_061)
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0none\0", b"wtpt": white} | tags
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x04200000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63_190, 65_536, 54_061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def gray_profile(gamma: float) -> bytes:
    """Return a profile of gray pixels with an exponent."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))
    return icc(b"GRAY", b"XYZ ", {b"kTRC": curve})


def swapped_profile(*, again: bool = False) -> bytes:
    """Return sRGB as a profile with red and green swapped; swapped again it is sRGB renamed."""
    from PIL import ImageCms

    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, green = made.index(b"rXYZ"), made.index(b"gXYZ")
    named = bytearray(made.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))
    named = named.replace(
        "swap built-in".encode("utf-16-be"), "swapped\0\0\0\0\0\0".encode("utf-16-be")
    )
    if not again:
        named[red : red + 4], named[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(named)


def by_hand(seed: int = 1) -> Iterator[HostileImage]:
    """Yield one file for every trouble that is known by name."""
    rng = np.random.default_rng(seed)
    gray = picture(rng)
    rgb = np.stack([gray, gray[::-1], gray.T], 2)
    yield from _odd_but_good(gray, rgb)
    yield from _no_images(rng, gray)
    yield from _lying_headers(gray, rgb)
    yield from _cut(gray, rgb)


def _odd_but_good(gray: Any, rgb: Any) -> Iterator[HostileImage]:
    colour = Image.fromarray(rgb)
    for kind in ("PNG", "BMP", "TIFF", "WEBP", "JPEG"):
        yield HostileImage(
            f"good.{kind.lower()}", stored(gray if kind != "WEBP" else rgb, kind), ""
        )
    yield HostileImage("cmyk.jpg", stored(colour.convert("CMYK"), "JPEG"), "")
    yield HostileImage("cmyk.tif", stored(colour.convert("CMYK"), "TIFF"), "")
    yield HostileImage("ycbcr.tif", stored(colour.convert("YCbCr"), "TIFF"), "")
    yield HostileImage("lab.tif", stored(colour.convert("LAB"), "TIFF"), EITHER)
    yield HostileImage("palette.png", stored(colour.convert("P"), "PNG"), "")
    palette = colour.convert("P")
    yield HostileImage("palette-clear.png", stored(palette, "PNG", transparency=3), "")
    yield HostileImage("one-bit.png", stored(colour.convert("1"), "PNG"), "")
    yield HostileImage("one-bit.tif", stored(colour.convert("1"), "TIFF", compression="group4"), "")
    yield HostileImage("alpha.png", stored(colour.convert("RGBA"), "PNG"), "")
    clear = colour.convert("RGBA")
    clear.putalpha(0)
    yield HostileImage("clear.png", stored(clear, "PNG"), "")
    yield HostileImage("gray-alpha.png", stored(Image.fromarray(gray).convert("LA"), "PNG"), "")
    yield HostileImage("gray-key.png", stored(Image.fromarray(gray), "PNG", transparency=90), "")
    deep = gray.astype(np.uint16) * 257
    yield HostileImage("deep.png", stored(deep, "PNG"), "")
    yield HostileImage("deep.tif", stored(deep, "TIFF"), "")
    yield HostileImage("int.tif", stored(gray.astype(np.int32), "TIFF"), "")
    yield HostileImage("int-huge.tif", stored(gray.astype(np.int32) << 20, "TIFF"), "unknown-scale")
    yield HostileImage("int-below.tif", stored(-gray.astype(np.int32), "TIFF"), "unknown-scale")
    share = gray.astype(np.float32) / 255
    yield HostileImage("float.tif", stored(share, "TIFF"), "")
    yield HostileImage("float-high.tif", stored(share * 1e6, "TIFF"), "unknown-scale")
    share = share.copy()
    share[3, 3] = np.nan
    yield HostileImage("float-nan.tif", stored(share, "TIFF"), "unknown-scale")
    for orientation in range(10):
        made = Image.Exif()
        made[0x0112] = orientation
        content = stored(rgb[:, :40], "JPEG", exif=made)
        yield HostileImage(f"turned-{orientation}.jpg", content, "")
    yield HostileImage("progressive.jpg", stored(colour, "JPEG", progressive=True), "")
    yield HostileImage("junk-behind.png", stored(gray, "PNG") + b"<?php" * 500, "")
    yield HostileImage(
        "exif-noise.jpg", stored(colour, "JPEG", exif=b"Exif\0\0" + b"\xff" * 99), ""
    )
    made = Image.Exif()
    made[0x010F] = "M" * 20_000 + "\n\x1b[31m"
    yield HostileImage("exif-long.jpg", stored(colour, "JPEG", exif=made), "")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield HostileImage("profile.jpg", stored(colour, "JPEG", icc_profile=profile), "")
    yield HostileImage("profile-noise.png", stored(colour, "PNG", icc_profile=b"\0" * 500), "")
    yield HostileImage("thin.png", stored(np.zeros((8, 4_000), np.uint8), "PNG"), "")
    yield HostileImage("black.png", stored(np.zeros((64, 64), np.uint8), "PNG"), "")
    yield HostileImage("wrong-name.png", stored(colour, "JPEG"), "")


def _no_images(rng: np.random.Generator, gray: Any) -> Iterator[HostileImage]:
    still = Image.fromarray(gray)
    two = {"save_all": True, "append_images": [Image.fromarray(gray[::-1].copy())]}
    yield HostileImage("empty.png", b"", "empty")
    yield HostileImage("one-byte.png", b"\x89", "wrong-format")
    yield HostileImage("blank.jpg", b"\0" * 5_000, "wrong-format")
    yield HostileImage("noise.jpg", rng.bytes(5_000), "wrong-format")
    yield HostileImage("text.png", b"hello\n" * 99, "wrong-format")
    yield HostileImage("page.jpg", b"<html><script>alert(1)</script>" * 9, "wrong-format")
    yield HostileImage("vector.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "wrong-format")
    yield HostileImage("script.png", b"#!/bin/sh\nexit 1\n", "wrong-format")
    yield HostileImage("still.gif", stored(still, "GIF"), "wrong-format")
    yield HostileImage("named.png", stored(still, "GIF"), "wrong-format")
    yield HostileImage("post.png", stored(still, "EPS"), "wrong-format")
    yield HostileImage("page.png", stored(still, "PDF"), "wrong-format")
    yield HostileImage("icon.png", stored(still, "ICO"), "wrong-format")
    yield HostileImage("packed.png", gzip.compress(stored(still, "PNG")), "wrong-format")
    yield HostileImage("jp2.png", stored(still, "JPEG2000"), "wrong-format")
    yield HostileImage("moving.webp", stored(still.convert("RGB"), "WEBP", **two), "many-frames")
    yield HostileImage("moving.png", stored(still, "PNG", **two), "many-frames")
    yield HostileImage("pages.tif", stored(still, "TIFF", **two), "many-frames")
    yield HostileImage("pixel.png", stored(np.zeros((1, 1), np.uint8), "PNG"), "too-small")


def _lying_headers(gray: Any, rgb: Any) -> Iterator[HostileImage]:
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in gray))
    good = png(64, 64, rows)
    yield HostileImage("made.png", good, "")
    yield HostileImage("giant.png", png(2**31 - 1, 2**31 - 1, rows), "too-many-pixels")
    yield HostileImage("bomb.png", png(8_000, 8_000, zlib.compress(bytes(64_008_000), 1)),
                       "too-many-pixels")  # fmt: skip
    yield HostileImage("long.png", png(100_000, 1, rows), "too-many-pixels")
    yield HostileImage("no-width.png", png(0, 64, rows))
    yield HostileImage("taller.png", png(64, 640, rows), BROKEN)
    yield HostileImage("depth.png", png(64, 64, rows, depth=7))
    yield HostileImage("kind.png", png(64, 64, rows, kind=5))
    yield HostileImage("no-palette.png", png(64, 64, rows, kind=3))
    yield HostileImage("no-data.png", png(64, 64, b""), BROKEN)
    yield HostileImage("no-stream.png", png(64, 64, b"x" * 500), BROKEN)
    bad = bytearray(good)
    bad[len(good) - 20] ^= 255
    yield HostileImage("checksum.png", bytes(bad), BROKEN)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20 << 20)))
    yield HostileImage("text-bomb.png", png(64, 64, rows, text))
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(20 << 20)))
    yield HostileImage("profile-bomb.png", png(64, 64, rows, profile))
    yield HostileImage("chunks.png", png(64, 64, rows, *[chunk(b"tEXt", b"a\0b")] * 50_000))
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><x>&a;</x>" * 9)
    yield HostileImage("entities.png", stored(gray, "PNG", pnginfo=info), "")
    jpeg = bytearray(stored(rgb, "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    yield HostileImage("giant.jpg", bytes(jpeg), "too-many-pixels")
    bmp = bytearray(stored(gray, "BMP"))
    bmp[18:26] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    yield HostileImage("giant.bmp", bytes(bmp), "too-many-pixels")
    bmp[18:26] = struct.pack("<ii", -64, -64)
    yield HostileImage("below.bmp", bytes(bmp))
    tiff = stored(gray, "TIFF")
    yield HostileImage("circle.tif", tiff[:4] + struct.pack("<I", 4) + tiff[8:])
    yield HostileImage("nowhere.tif", tiff[:4] + struct.pack("<I", 2**32 - 2) + tiff[8:])
    many = struct.pack("<H", 65_535) + b"\0\1\4\0\xff\xff\xff\xff\0\0\0\0" * 65_535
    yield HostileImage("entries.tif", b"II*\0" + struct.pack("<I", 8) + many)
    yield HostileImage("pages-loop.tif", _loop(tiff), EITHER)
    webp = bytearray(stored(rgb, "WEBP", lossless=True))
    webp[4:8] = b"\xff\xff\xff\x7f"
    yield HostileImage("longer.webp", bytes(webp))


def _loop(tiff: bytes) -> bytes:
    """Return a TIFF whose only page is followed by itself."""
    at = struct.unpack("<I", tiff[4:8])[0]
    entries = struct.unpack("<H", tiff[at : at + 2])[0]
    behind = at + 2 + 12 * entries
    return tiff[:behind] + struct.pack("<I", at) + tiff[behind + 4 :]


def _cut(gray: Any, rgb: Any) -> Iterator[HostileImage]:
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        whole = stored(rgb, kind)
        for share in (0.02, 0.5, 0.95):
            rule = EITHER if share < 0.1 else BROKEN
            rule = EITHER if kind == "WEBP" else rule
            yield HostileImage(
                f"cut-{share}.{kind.lower()}", whole[: int(share * len(whole))], rule
            )


def turned_over(seed: int, number: int) -> Iterator[HostileImage]:
    """Yield good files with one to four faults: bits, cuts, doubled stretches, noise."""
    rng = np.random.default_rng(seed)
    kinds = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
    for place in range(number):
        kind = kinds[place % len(kinds)]
        gray = picture(rng, 48)
        data = bytearray(stored(np.stack([gray, gray.T, gray[::-1]], 2), kind))
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(len(data)))
            what = rng.integers(4)
            if what == 0:
                data[at] ^= 1 << int(rng.integers(8))
            elif what == 1:
                del data[at : at + int(rng.integers(1, 200))]
            elif what == 2:
                data[at:at] = data[at : at + 100]
            else:
                data[at : at + 20] = rng.bytes(20)
            data = data or bytearray(b"x")
        yield HostileImage(f"turned-over-{place}.{kind.lower()}", bytes(data))
