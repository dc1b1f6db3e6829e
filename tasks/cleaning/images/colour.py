"""Colours by an embedded profile (ICC.1), brought to sRGB; runs in the sandbox only.

Relative colorimetric with black point compensation, as cameras' programs do. A profile that moves
no colour by more than two levels is sRGB by whatever name, and the pixels stay as they are: files
with and without it are then equal. One that cannot be used is left aside, and that is told.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Use = Literal["", "same", "applied", "broken", "unfit"]
"""Of a profile: there is none; it is sRGB; it was applied; it is no profile; it is of another kind
of pixels, or of 16-bit ones, whose values are a sensor's."""
MAX_PROFILE = 8 << 20
"""Bytes of a profile; those of printing presses have two million."""
SAME = 2
"""Levels that sRGB by another name is off by roundings of its maker."""
SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""Pillow's mode -> colour space of a profile."""


def to_srgb(image: Any) -> tuple[Any, Use]:
    """Return an image in sRGB, and what became of its profile.

    Args:
        image: Of Pillow, loaded. L stays L, also under a profile of RGB, which it passes as equal
            red, green and blue; RGB and CMYK become RGB; alpha is kept. A palette is resolved only
            where a profile is applied.
    """
    data = image.info.get("icc_profile")
    if not data:
        return image, ""
    colour, alpha = _parted(image)
    try:
        made = _applied(data, colour)
    except _UnfitError:
        return image, "unfit"
    except (OSError, ValueError, TypeError):
        return image, "broken"
    if made is None:
        return image, "same"
    if alpha is not None:
        made.putalpha(alpha)
    return made, "applied"


class _UnfitError(Exception):
    """A profile of another kind of pixels."""


def _applied(data: Any, colour: Any) -> Any:
    """Return colours brought to sRGB, None where they are.

    Raises:
        OSError, ValueError, TypeError: When it is no whole profile.
        _UnfitError: When it is one of other pixels.
    """
    from PIL import Image, ImageCms

    mode = colour.mode
    if mode not in SPACES:
        raise _UnfitError
    if not isinstance(data, bytes) or len(data) > MAX_PROFILE:
        raise ValueError("no profile, or one of too many bytes")
    given = ImageCms.ImageCmsProfile(io.BytesIO(data))
    space = given.profile.xcolor_space.strip()
    if space != SPACES[mode] and not (mode == "L" and space == "RGB"):
        raise _UnfitError
    # Without its shortcuts, which are off by ten levels in the dark; of gray there are 256 only.
    exact = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
    try:
        transform = ImageCms.buildTransform(
            given,
            ImageCms.createProfile("sRGB"),
            "L" if space == "GRAY" else space,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION | exact,
        )
    except ImageCms.PyCMSError as error:
        raise ValueError(str(error)) from error
    if mode == "CMYK":
        return ImageCms.applyTransform(colour, transform)
    every = _grays() if mode == "L" else _grid()
    asked = Image.fromarray(every[..., 0] if space == "GRAY" else every)
    made = np.asarray(ImageCms.applyTransform(asked, transform))
    if np.abs(made.astype(np.int16) - every).max() <= SAME:
        return None
    if mode == "L":
        return colour.point(made[0, :, 1].tolist())
    return ImageCms.applyTransform(colour, transform)


def _grays() -> NDArray[np.uint8]:
    """Return every gray, uint8 [1, 256, 3]."""
    return np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)


def _grid() -> NDArray[np.uint8]:
    """Return a grid of colours, uint8 [18, 324, 3]."""
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    return np.asarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3))


def _parted(image: Any) -> tuple[Any, Any]:
    """Return the colours of an image, and its alpha or None."""
    if image.mode == "1":
        return image.convert("L"), None
    transparent = "transparency" in image.info
    if image.mode in {"LA", "La"} or (image.mode == "L" and transparent):
        both = image.convert("LA")
        return both.getchannel("L"), both.getchannel("A")
    if image.mode in {"PA", "RGBA", "RGBa"} or (image.mode in {"P", "RGB"} and transparent):
        both = image.convert("RGBA")
        return both.convert("RGB"), both.getchannel("A")
    return (image.convert("RGB"), None) if image.mode == "P" else (image, None)
