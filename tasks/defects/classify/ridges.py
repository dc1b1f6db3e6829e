"""Lines, bright and dark ones apart: second derivatives across long, narrow windows.

A scratch one pixel wide hardly shows in histograms of small neighbourhoods, but sums along it stand
out (steerable ridge filters of high aspect; Jacob and Unser, IEEE TPAMI 26, 2004).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.prepare import Gray

WIDTHS = (1.0, 2.0, 4.0)
LONG = 32.0
"""Length of the long windows, in pixels (standard deviation); the short ones are 4 widths long."""
ANGLES = 8
SHARES = (0.5, 0.9, 0.99, 0.999, 1.0)
MARGIN = 6


def ridges(gray: Gray) -> NDArray[np.float32]:
    """Return strengths of lines, float32 [234].

    For each of six windows: logs of the percentiles of the strongest bright and the strongest dark
    line through each pixel, their difference, and for each angle log of the spread, skewness and
    log of the kurtosis.

    Args:
        gray: float32 [h, w]; mean and contrast do not count.
    """
    spectrum = np.fft.rfft2((gray - gray.mean()) / (gray.std() + 2))
    row: list[NDArray[np.floating[Any]]] = []
    for bank in _banks(gray.shape[0], gray.shape[1]):
        found = np.fft.irfft2(spectrum * bank, s=gray.shape)
        found = found[:, MARGIN:-MARGIN, MARGIN:-MARGIN].reshape(ANGLES, -1)
        spread = found.std(1)
        unit = found / (spread[:, None] + 1e-4)
        square = unit * unit
        skew, kurtosis = (square * unit).mean(1), (square * square).mean(1)
        bright = np.log(np.maximum(_ranked(found.max(0)), 1e-4))
        dark = np.log(np.maximum(_ranked(-found.min(0)), 1e-4))
        row += [bright, dark, bright - dark]
        row += [np.log(spread + 1e-4), np.cbrt(skew), np.log(kurtosis + 1e-3)]
    return np.asarray(np.concatenate(row), np.float32)


def _ranked(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    places = [int(share * (len(values) - 1)) for share in SHARES]
    return np.asarray(np.partition(values, places)[places])


@lru_cache(maxsize=4)
def _banks(height: int, width: int) -> tuple[NDArray[np.float32], ...]:
    """Return the spectra of the filters of each window, float32 [8, h, w / 2 + 1] each."""
    y = 2 * np.pi * np.fft.fftfreq(height)[:, None]
    x = 2 * np.pi * np.fft.rfftfreq(width)[None, :]
    banks = []
    for narrow in WIDTHS:
        for length in (4 * narrow, LONG):
            filters = []
            for angle in np.pi * np.arange(ANGLES) / ANGLES:
                across = narrow * (np.cos(angle) * x + np.sin(angle) * y)
                along = length * (np.cos(angle) * y - np.sin(angle) * x)
                filters.append(across**2 * np.exp(-0.5 * (across**2 + along**2)))
            banks.append(np.array(filters, np.float32))
    return tuple(banks)
