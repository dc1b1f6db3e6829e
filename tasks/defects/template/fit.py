"""Makes a golden sample of one or a few good images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from tasks.defects.detect.config import DetectError
from tasks.defects.detect.detector import check_pixels
from tasks.defects.samples import Pixels
from tasks.defects.template.align import Field, aligned, inside, laid
from tasks.defects.template.config import AlignError, TemplateConfig
from tasks.defects.template.detector import TemplateDetector, planes_of
from tasks.defects.template.difference import Planes, beyond, ink_of, relit

_BELIEVED = 4
"""Images that the common spread counts as, beside those that a pixel's own is seen in."""
_LEAST_SPREAD = 1.0 / 255
_SLOPE = 0.15
"""Share of the slope of the brightness that counts as spread: edges are never quite still."""
_FLAT = 2.0 / 255


def fit_template(
    goldens: Sequence[Pixels], config: TemplateConfig | None = None
) -> TemplateDetector:
    """Make a golden sample.

    Args:
        goldens: Good images, uint8 [h, w] or [h, w, 3] each; the first says where the print lies.
            One will do; with five or more the tolerance of each pixel becomes its own.
        config: Settings.

    Raises:
        AlignError: A golden image that cannot be laid on the first.
        DetectError: No image, or one without any print.
    """
    config = config or TemplateConfig()
    if not goldens:
        raise DetectError("no golden image; give at least one good image of the product")
    for place, pixels in enumerate(goldens):
        check_pixels(pixels, f"golden image {place}")
    count = 3 if all(pixels.ndim == 3 for pixels in goldens) else 1
    each = [planes_of(pixels, count) for pixels in goldens]
    first = each[0]
    gray = first.mean(axis=2)
    if float(ndimage.gaussian_filter(gray, 1).std()) < _FLAT:
        raise DetectError("golden image 0 shows no print: it is of one brightness; give another")
    stack = [first] + [_laid_on(one, first, config, k) for k, one in enumerate(each[1:], 1)]
    wide = config.light * max(gray.shape) / 2
    lit = [first] + [_evened(one, first, wide) for one in stack[1:]]
    golden = np.nanmean(np.stack(lit), axis=0).astype(np.float32)
    ink, polarity = ink_of(golden.mean(axis=2))
    return TemplateDetector(
        golden,
        _spread(stack, golden, wide, config),
        ink,
        polarity,
        config,
        {"goldens": len(goldens), "size": list(golden.shape[:2])},
    )


def _laid_on(planes: Planes, first: Planes, config: TemplateConfig, place: int) -> Planes:
    found = aligned(planes.mean(axis=2), first.mean(axis=2), config)
    if found.alike < config.alike or not inside(found.pose, config, first.shape):
        raise AlignError(
            f"golden image {place} cannot be laid on the first: the details agree by "
            f"{found.alike:.2f}, at least {config.alike} is wanted; give images of one product"
        )
    shape = first.shape[:2]
    return np.stack([laid(planes[..., c], found.pose, shape) for c in range(first.shape[2])], 2)


def _evened(planes: Planes, first: Planes, wide: float) -> Planes:
    """Return an image under the first one's light."""
    found = planes.copy()
    for c in range(first.shape[2]):
        as_lit = relit(first[..., c], planes[..., c], wide)
        # What relit adds to the first is taken off the image, gain first.
        gain = float(np.std(as_lit)) / max(float(np.std(first[..., c])), 1e-6)
        found[..., c] = first[..., c] + (planes[..., c] - as_lit) / max(gain, 0.1)
    return found


def _spread(stack: Sequence[Planes], golden: Planes, wide: float, config: TemplateConfig) -> Planes:
    """Return the spread of good images: of each pixel where many are known, else the common one."""
    found = np.empty(golden.shape, dtype=np.float32)
    for c in range(golden.shape[2]):
        levels = golden[..., c]
        common = max(_LEAST_SPREAD, _noise(stack[0][..., c]))
        squares = np.full(levels.shape, _BELIEVED * common**2, dtype=np.float32)
        seen = np.full(levels.shape, float(_BELIEVED), dtype=np.float32)
        for one in stack if len(stack) > 1 else ():
            own = one[..., c]
            apart = beyond(own, relit(levels, own, wide), config.edge)
            known = np.isfinite(apart)
            # The mean holds its own share of each image, which hides as much of the difference.
            shown = np.nan_to_num(apart) ** 2 * len(stack) / (len(stack) - 1)
            squares += ndimage.gaussian_filter(shown.astype(np.float32), 1.0)
            seen += known
        slope = ndimage.gaussian_gradient_magnitude(levels, 1.0)
        found[..., c] = np.sqrt(squares / seen + (_SLOPE * slope) ** 2)
    return found


def _noise(levels: Field) -> float:
    """Return the spread of the noise (Immerkaer 1996), by the median so that print drops out."""
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    return float(np.median(np.abs(ndimage.convolve(levels, mask))) / 0.6745 / 6)
