"""The sandboxed process: reads the bytes of images from its standard input, answers on its output.

``python -m tasks.cleaning.images.worker LIMITS`` with the limits as JSON. A request says what is
wanted: ``measure`` (numbers and the small image), ``faults`` (those, and of the image spoilt),
``pixels`` (all of them) or ``thumbnail`` (PNG).
It ends with its parent: at the end of its input, at a broken pipe, or by the timer of the image
that it works on.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import numpy as np

from tasks.cleaning.images import confine, wire
from tasks.cleaning.images.decode import DecodedImage, ImageRefusedError, decode
from tasks.cleaning.images.features import facts_of, gray_of, measure, measure_spoilt
from tasks.cleaning.images.limits import ImageLimits

OUT_OF_MEMORY = 77
"""Exit code; the parent takes a fresh worker."""
THUMBNAIL = 160


def answer(
    request: dict[str, Any], data: bytes, limits: ImageLimits
) -> tuple[dict[str, Any], bytes]:
    """Return what is asked for, as JSON and a body."""
    try:
        image = decode(data, limits)
    except ImageRefusedError as error:
        return {
            "refused": error.rule,
            "observed": error.observed.encode("utf-8", "replace").decode(),
            "expected": error.expected,
        }, b""
    facts = facts_of(image)
    if request.get("want") == "pixels":
        return {"facts": facts, "dtype": image.pixels.dtype.str}, image.pixels.tobytes()
    if request.get("want") == "thumbnail":
        return {"facts": facts}, _thumbnail(image)
    numbers, little = measure(image)
    said: dict[str, Any] = {"facts": facts, "features": numbers}
    if request.get("want") == "faults":
        said["faults"] = measure_spoilt(image)
    return said, little.tobytes()


def _thumbnail(image: DecodedImage) -> bytes:
    """Return the image as PNG of at most 160 pixels a side, without anything of the file in it."""
    from PIL import Image

    deep = image.pixels.dtype == np.uint16
    pixels = (gray_of(image.pixels) >> 8).astype(np.uint8) if deep else image.pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    held = io.BytesIO()
    picture.save(held, "PNG")
    return held.getvalue()


def warm_up(limits: ImageLimits) -> None:
    """Import and run what decoding needs: afterwards no file can be opened any more."""
    from PIL import Image, ImageCms

    # Pillow finds and imports a format's code when it is first used.
    Image.preinit()
    Image.init()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode in ("RGB", "RGBA", "L"):
        pattern = np.arange(64 * 64 * 4, dtype=np.uint8).reshape(64, 64, 4)
        picture = Image.fromarray(pattern, "RGBA").convert(mode)
        for name in limits.formats:
            held = io.BytesIO()
            options = {"exif": _exif(), "icc_profile": profile} if name != "BMP" else {}
            picture.convert("RGB" if name == "JPEG" else mode).save(held, name, **options)
            for want in ("faults", "thumbnail"):
                answer({"want": want}, held.getvalue(), limits)


def _exif() -> Any:
    from PIL import Image

    made = Image.Exif()
    made[0x010F], made[0x0112] = "maker", 6
    return made


def main() -> None:
    """Answer requests until the input ends."""
    limits = json.loads(sys.argv[1])
    limits = ImageLimits(**{**limits, "formats": tuple(limits["formats"])})
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    warm_up(limits)
    confine.limit_process(limits)
    wire.send(sink, {"ready": True, "filtered": confine.forbid_system_calls()})
    try:
        while True:
            asked = wire.receive(source, limits.max_bytes)
            if asked is None:
                confine.leave(0)
                return
            confine.limit_image(limits)
            wire.send(sink, *answer(*asked, limits))
            confine.rest()
    except MemoryError:
        confine.leave(OUT_OF_MEMORY)
    except (BrokenPipeError, wire.WireError):
        confine.leave(1)


if __name__ == "__main__":
    main()
