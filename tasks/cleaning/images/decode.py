"""Bytes of a file to pixels in one known form; runs in the sandbox only.

Whatever Pillow makes of a file, three forms leave this module: gray in 8 or 16 bits, and RGB in 8
bits, colours by sRGB. The same picture stored as palette, gray or RGB gives the same pixels.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tasks.cleaning.images.colour import to_srgb
from tasks.cleaning.images.limits import ImageLimits

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


class ImageRefusedError(ValueError):
    """An image that cannot be used.

    Attributes:
        rule: Stable id of the reason, for example ``"broken"``.
        observed: What was found.
        expected: What a good file would have had.
    """

    def __init__(self, rule: str, observed: str, expected: str) -> None:
        super().__init__(f"{rule}: {observed}")
        self.rule, self.observed, self.expected = rule, observed, expected


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image in one of the three forms.

    Attributes:
        pixels: uint8 [height, width], uint16 [height, width] or uint8 [height, width, 3] (RGB),
            upright by EXIF.
        facts: JSON facts of the file: format, mode, orientation, transparent share, make, model,
            colour profile and its use (`tasks.cleaning.images.colour.Use`), JPEG quantisation
            tables.
    """

    pixels: Pixels
    facts: dict[str, Any]


def decode(data: bytes, limits: ImageLimits) -> DecodedImage:
    """Decode the bytes of a file.

    Raises:
        ImageRefusedError: For anything but a whole still image within the limits.
        MemoryError: Where the process may take no more.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageRefusedError("empty", "0 bytes", "a file with content")
    if len(data) > limits.max_bytes:
        raise ImageRefusedError("too-large", f"{len(data):,} bytes", f"≤ {limits.max_bytes:,}")
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decode(data, limits)
        except ImageRefusedError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_many(str(error), limits) from error
        except UnidentifiedImageError as error:
            raise ImageRefusedError(
                "wrong-format", _kind_of(data), f"a whole file of {', '.join(limits.formats)}"
            ) from error
        except MemoryError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"[:300]
            raise ImageRefusedError("broken", what, "a whole file that decodes") from error


def _decode(data: bytes, limits: ImageLimits) -> DecodedImage:
    from PIL import Image, ImageOps

    def opened() -> Image.Image:
        return Image.open(io.BytesIO(data), formats=list(limits.formats))

    image = opened()
    _check_size(image.width, image.height, limits)
    if getattr(image, "n_frames", 1) > 1:
        frames = getattr(image, "n_frames", 1)
        raise ImageRefusedError("many-frames", f"{frames} frames", "one still image")
    if image.format == "PNG":
        image.verify()  # checks of all chunks, which decoding alone leaves out
        _check_rows(data)
        image = opened()
    facts = _facts(image)
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    facts["orientation"] = orientation if orientation in range(1, 9) else 1
    upright = ImageOps.exif_transpose(image)
    upright, facts["profile_use"] = to_srgb(upright)
    pixels, transparent = _pixels(upright)
    facts["transparent"] = transparent
    facts["bits"] = 8 * pixels.itemsize
    return DecodedImage(cast("Pixels", np.ascontiguousarray(pixels)), facts)


def _check_rows(data: bytes) -> None:
    """Refuse a PNG with fewer rows than its header says: Pillow would leave the others black.

    Interlaced ones are left to Pillow, which refuses most of them.
    """
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if interlaced:
        return
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    missing = height * (1 + (width * bits + 7) // 8)
    unpack, at = zlib.decompressobj(), 8
    while missing > 0 and at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name == b"IDAT":
            packed = data[at + 8 : at + 8 + length]
            while missing > 0 and packed:
                missing -= len(unpack.decompress(packed, min(missing, 1 << 20)))
                packed = unpack.unconsumed_tail
        at += 12 + length
    if missing > 0:
        raise ImageRefusedError("broken", "rows are missing", "a whole file that decodes")


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise _too_many(f"{width:,} x {height:,} pixels", limits)
    if min(width, height) < limits.min_side:
        raise ImageRefusedError(
            "too-small", f"{width} x {height} pixels", f"≥ {limits.min_side} on both sides"
        )


def _too_many(observed: str, limits: ImageLimits) -> ImageRefusedError:
    return ImageRefusedError(
        "too-many-pixels",
        observed[:300],
        f"≤ {limits.max_pixels:,} pixels, ≤ {limits.max_side:,} on a side",
    )


def _facts(image: Any) -> dict[str, Any]:
    tables = getattr(image, "quantization", None) or {}
    exif = image.getexif()
    return {
        "format": str(image.format),
        "mode": str(image.mode),
        "make": _short(exif.get(0x010F)),
        "model": _short(exif.get(0x0110)),
        "profile": _profile(image.info.get("icc_profile")),
        "tables": [[int(v) for v in tables[k]][:64] for k in sorted(tables)][:4],
    }


def _profile(data: object) -> str:
    """Return the name of a colour profile (ICC.1, tag ``desc``), "unnamed", or "" without one."""
    if not isinstance(data, bytes) or not data:
        return ""
    for at in range(132, min(len(data), 132 + 12 * 100) - 11, 12):
        name, start, size = struct.unpack(">4sII", data[at : at + 12])
        if name != b"desc":
            continue
        held = data[start : start + min(size, 1_024)]
        if held[:4] == b"mluc" and len(held) >= 28:  # the first language
            length, offset = struct.unpack(">II", held[20:28])
            # With its mark utf-16 is built in; utf-16-be would be a module, out of reach here.
            text = (b"\xfe\xff" + held[offset : offset + min(length, 256)]).decode(
                "utf-16", "replace"
            )
        else:
            text = held[12:].partition(b"\0")[0].decode("latin-1")
        return _short(text) or "unnamed"
    return "unnamed"


def _short(value: object) -> str:
    """Return a text of EXIF, printable and of bounded length."""
    text = "" if value is None else str(value)
    return "".join(c for c in text if c.isprintable())[:64].strip()


def _pixels(image: Any) -> tuple[Pixels, float]:
    """Return pixels in one of the three forms, and the share that was transparent."""
    mode = image.mode
    if mode in {"I", "F"} or mode.startswith("I;16"):
        return _deep(np.asarray(image)), 0.0
    if mode in {"1", "L"} and "transparency" not in image.info:
        return np.asarray(image.convert("L")), 0.0
    alpha = mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    if not alpha:
        return _without_colour(np.asarray(image.convert("RGB"))), 0.0
    pixels = np.asarray(image.convert("RGBA"))
    opacity = pixels[..., 3:]
    transparent = float((opacity < 255).mean())
    colour = pixels[..., :3]
    if transparent:  # seen before black, which is what a camera without light would see
        colour = (colour.astype(np.uint16) * opacity // 255).astype(np.uint8)
    return _without_colour(colour), transparent


def _without_colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return gray stored as RGB as gray."""
    red = pixels[..., 0]
    gray = bool((red == pixels[..., 1]).all() and (red == pixels[..., 2]).all())
    return red if gray else pixels


def _deep(values: NDArray[Any]) -> Pixels:
    """Return 16-bit, 32-bit and float images as 16 bits where their scale is known.

    Floats within 0 to 1 are taken as shares of white; 32-bit integers must fit into 16 bits.
    """
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)) or low < 0:
        raise ImageRefusedError("unknown-scale", f"values from {low} to {high}", "0 or more")
    if values.dtype.kind == "f":
        if high > 1.0:
            raise ImageRefusedError("unknown-scale", f"floats up to {high:g}", "floats of 0 to 1")
        return cast("Pixels", np.rint(values * 65_535).astype(np.uint16))
    if high > 65_535:
        raise ImageRefusedError("unknown-scale", f"integers up to {high:.0f}", "≤ 65,535")
    return cast("Pixels", values.astype(np.uint16))


def _kind_of(data: bytes) -> str:
    """Say what a file begins like."""
    known = {
        b"GIF8": "GIF",
        b"%PDF": "PDF",
        b"PK\x03\x04": "ZIP",
        b"\x89PNG": "PNG, damaged or not allowed",
        b"\xff\xd8": "JPEG, damaged or not allowed",
        b"BM": "BMP, damaged or not allowed",
        b"II*\x00": "TIFF, damaged or not allowed",
        b"MM\x00*": "TIFF, damaged or not allowed",
        b"RIFF": "RIFF (WebP), damaged or not allowed",
    }
    for start, name in known.items():
        if data.startswith(start):
            return name
    return f"bytes {data[:8].hex(' ')}"
