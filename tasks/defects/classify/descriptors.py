"""The families of descriptors, measured once per image and kept by the caller."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.colour import colour
from tasks.defects.classify.covariance import covariance
from tasks.defects.classify.gray_levels import gray_levels
from tasks.defects.classify.local_patterns import local_patterns
from tasks.defects.classify.phase import phase
from tasks.defects.classify.prepare import Gray, digest_of, prepared
from tasks.defects.classify.ridges import ridges
from tasks.defects.samples import Pixels

LONGEST = 512
"""Pixels of the longer side above which images are brought down."""
TEXTURE = {
    "local_patterns": local_patterns,
    "ridges": ridges,
    "gray_levels": gray_levels,
    "phase": phase,
    "covariance": covariance,
}
FAMILIES = (*TEXTURE, "colour")
Cache = MutableMapping[str, dict[str, NDArray[np.float32]]]
"""Digest of the pixels -> family -> descriptor. A plain dict will do; 14 KiB an image."""


def describe(
    images: Sequence[Pixels], cache: Cache | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return every family's descriptors, float32 [n, d] each.

    Args:
        images: uint8 [h, w] or [h, w, 3] each, of any size.
        cache: Filled with what is measured, and asked before.
    """
    cache = {} if cache is None else cache
    found = []
    for pixels in images:
        digest = digest_of(pixels)
        if digest not in cache:
            cache[digest] = _measured(pixels, prepared(pixels, LONGEST))
        found.append(cache[digest])
    return {name: np.stack([each[name] for each in found]) for name in FAMILIES}


def _measured(pixels: Pixels, gray: Gray) -> dict[str, NDArray[np.float32]]:
    made = {name: measure(gray) for name, measure in TEXTURE.items()}
    return {**made, "colour": colour(pixels)}
