"""What each segment of an image added to its score, and the map of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.explain.image.fills import Fill, Image
from tasks.explain.image.segments import Labels

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ImageExplanation:
    """Shapley values of the segments of one image, by one or several layouts of segments.

    Attributes:
        image: What is explained, float32 ``[C, H, W]``.
        layouts: Segment of each pixel in each layout, ``[H, W]`` each.
        values: Of the segments of each layout ``[P]``, in units of the score; base plus the sum of
            any layout is the score.
        errors: Standard error of each by the draw of coalitions ``[P]``; 0 where exact.
        base: Mean score of the filled images, in which every segment is absent.
        score: Of the image.
        gap: Largest ``|base + sum of values - score|`` of a layout.
        method: Whether all coalitions were counted or, in some layout, drawn.
        evaluations: Images scored.
        fills: What stood in for absent segments; values are means over them.
        seed: Of the draw.
    """

    image: Image
    layouts: tuple[Labels, ...]
    values: tuple[Float, ...]
    errors: tuple[Float, ...]
    base: float
    score: float
    gap: float
    method: Literal["exact", "sampled"]
    evaluations: int
    fills: tuple[Fill, ...]
    seed: int

    @property
    def map(self) -> Float:
        """Score per pixel ``[H, W]``: adds up to ``score - base``."""
        return sum_of_layouts(self.layouts, self.values) / len(self.layouts)

    @property
    def error_map(self) -> Float:
        """Standard error of `map` at each pixel ``[H, W]``: layouts are drawn independently."""
        squares = tuple(error**2 for error in self.errors)
        total = sum_of_layouts(self.layouts, squares, power=2)
        return np.asarray(np.sqrt(total) / len(self.layouts))

    def smooth_map(self, sigma: float) -> Float:
        """Return `map` spread by a Gaussian of ``sigma`` pixels; it adds up to the same.

        Smooth maps rank the pixels within a segment by what lies beside it.
        """
        from scipy.ndimage import gaussian_filter

        return np.asarray(gaussian_filter(self.map, sigma, mode="reflect"))

    def to_shap(self) -> Any:
        """Return a ``shap.Explanation`` of one image, ``[1, H, W, C]``, for ``shap.image_plot``.

        shap adds up the channels of a pixel: each has an equal part of its value.
        """
        import shap

        channels = len(self.image)
        parts = np.repeat(self.map[None, :, :, None], channels, axis=3) / channels
        data = np.moveaxis(self.image, 0, -1)[None]
        return shap.Explanation(parts, base_values=np.array([self.base]), data=data)


def sum_of_layouts(layouts: tuple[Labels, ...], values: tuple[Float, ...], power: int = 1) -> Float:
    """Return ``[H, W]``: of each layout the value of a pixel's segment over its size to a power."""
    total = np.zeros(layouts[0].shape)
    for labels, each in zip(layouts, values, strict=True):
        size = np.bincount(labels.ravel(), minlength=len(each)).astype(np.float64)
        total += (each / size**power)[labels]
    return total
