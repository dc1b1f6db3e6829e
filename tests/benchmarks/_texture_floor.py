"""The floor under every learned classifier of defects: plain texture, one linear discriminant.

Local binary patterns of three scales, signs alone (Ojala et al. 2002), and wavelet scattering of
two layers: means of the sizes of Morlet coefficients, and of theirs.
Bruna and Mallat, Invariant scattering convolution networks (IEEE TPAMI 35, 2013), for the mean
over the whole image. Products are taken in the Fourier domain, where subsampling is folding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.descriptors import LONGEST
from tasks.defects.classify.ensemble import Described
from tasks.defects.classify.local_patterns import CODES, RINGS
from tasks.defects.classify.prepare import Gray, prepared
from tasks.defects.samples import Pixels

SIDE, SCALES, ANGLES = 64, 4, 6
BATCH = 16
SCALES_OF_PATTERNS = 3


def floor_features(images: Sequence[Pixels], described: Described) -> NDArray[np.float32]:
    """Return scattering and the signs of the first three rings, float32 [n, 270]."""
    whole = described["local_patterns"].reshape(len(images), len(RINGS), CODES, CODES, 2)
    signs = np.sqrt((whole[:, :SCALES_OF_PATTERNS] ** 2).sum((3, 4))).reshape(len(images), -1)
    return np.concatenate([scattering([prepared(x, LONGEST) for x in images]), signs], axis=1)


def scattering(images: Sequence[Gray]) -> NDArray[np.float32]:
    """Return logs of first and (relative to it) second layer, float32 [n, 24 + 216].

    Args:
        images: float32 [h, w] each, brought to 64 x 64, mean 0 and spread 1 first.
    """
    import torch
    from torch.nn import functional

    made = []
    for start in range(0, len(images), BATCH):
        batch = []
        for gray in images[start : start + BATCH]:
            one = torch.from_numpy((gray - gray.mean()) / (gray.std() + 2))
            batch.append(functional.interpolate(
                one[None, None], size=(SIDE, SIDE), mode="bilinear", antialias=True
            )[0, 0])  # fmt: skip
        made.append(_layers(torch.stack(batch).numpy()))
    return np.log(np.concatenate(made) + 1e-4).astype(np.float32)


def _layers(images: NDArray[np.float32]) -> NDArray[np.float32]:
    spectrum = np.fft.fft2(images)
    bank = _bank()
    first, second = [], []
    for scale in range(SCALES):
        step = 2 ** max(0, scale - 1)
        sizes = np.abs(np.fft.ifft2(_folded(spectrum[:, None] * bank[scale], step)))
        mean = sizes.mean((2, 3))
        first.append(mean)
        again = np.fft.fft2(sizes)
        for coarser in range(scale + 1, SCALES):
            filters = _folded(bank[coarser], step) * step**2
            found = again[:, :, None] * filters
            further = 2 ** max(0, coarser - 1) // step
            deep = np.abs(np.fft.ifft2(_folded(found, further))).mean((3, 4))
            second.append((deep / (mean[:, :, None] + 1e-6)).reshape(len(images), -1))
    return np.concatenate(first + second, axis=1).astype(np.float32)


def _folded(spectrum: NDArray[np.complexfloating], step: int) -> NDArray[np.complexfloating]:
    """Return the spectrum of every ``step``-th sample of the last two axes."""
    if step == 1:
        return spectrum
    side = spectrum.shape[-1] // step
    parts = spectrum.reshape(*spectrum.shape[:-2], step, side, step, side)
    return np.asarray(parts.mean((-4, -2)))


@lru_cache(maxsize=1)
def _bank() -> NDArray[np.float32]:
    """Return the Morlet wavelets' spectra, float32 [scales, angles, side, side]."""
    bank = [[_morlet(scale, np.pi * k / ANGLES) for k in range(ANGLES)] for scale in range(SCALES)]
    return np.array(bank, np.float32)


def _morlet(scale: int, angle: float) -> NDArray[np.float64]:
    width, centre = 0.8 * 2**scale, 0.75 * np.pi / 2**scale
    slant = 4 / ANGLES
    frequency = 2 * np.pi * np.fft.fftfreq(SIDE)

    def bump(at: float) -> NDArray[np.float64]:
        """Sum a Gaussian about ``at`` over the periods next to the first."""
        total = np.zeros((SIDE, SIDE))
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                y = frequency[:, None] + 2 * np.pi * down
                x = frequency[None, :] + 2 * np.pi * right
                along = np.cos(angle) * x + np.sin(angle) * y - at
                across = np.cos(angle) * y - np.sin(angle) * x
                total += np.exp(-0.5 * width**2 * (along**2 + (across / slant) ** 2))
        return total

    wave, middle = bump(centre), bump(0.0)
    return wave - wave[0, 0] / middle[0, 0] * middle
