"""Local phase quantisation: signs of the lowest frequencies about each pixel.

Ojansivu and Heikkilä, Blur insensitive texture classification using local phase quantization
(ICISP 2008), without decorrelation, at several window sizes. Phase does not change when a
symmetric blur does, so focus matters little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.prepare import Gray

WINDOWS = (3, 5, 9, 13)
NONE = 1e-3
"""A coefficient up to here has no sign: that of a flat region would be one of rounding."""


def phase(gray: Gray, windows: tuple[int, ...] = WINDOWS) -> NDArray[np.float32]:
    """Return roots of the shares of each code of eight signs, float32 [len(windows) * 256]."""
    from scipy.ndimage import convolve1d

    made = []
    for window in windows:
        half = window // 2
        wave = np.exp(-2j * np.pi * np.arange(-half, half + 1) / window).astype(np.complex64)
        flat = np.ones(window, np.complex64)
        along = {0: convolve1d(gray.astype(np.complex64), flat, 0)}
        along[1] = convolve1d(gray.astype(np.complex64), wave, 0)
        pairs = ((0, wave), (1, flat), (1, wave), (1, wave.conj()))
        code = np.zeros(gray.shape, np.int64)
        for place, (first, second) in enumerate(pairs):
            found = convolve1d(along[first], second, 1)
            code |= (found.real > NONE).astype(np.int64) << (2 * place)
            code |= (found.imag > NONE).astype(np.int64) << (2 * place + 1)
        inner = code[half:-half, half:-half]
        made.append(np.sqrt(np.bincount(inner.ravel(), minlength=256) / inner.size))
    return np.asarray(np.concatenate(made), np.float32)
