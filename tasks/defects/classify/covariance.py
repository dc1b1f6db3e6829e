"""How gray level, slopes and curvatures go together: the logarithm of their covariance matrix.

Tuzel, Porikli and Meer, Region covariance (ECCV 2006); Arsigny et al., Log-Euclidean metrics (2006)
make a straight line of the curved set of such matrices, so that a linear discriminant may be used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.prepare import Gray

WIDTHS = (1, 2, 4)
MARGIN = 4
FLAT = 0.05
"""Variance added to every channel, in squared gray levels: a flat image has a logarithm, too."""


def covariance(gray: Gray) -> NDArray[np.float32]:
    """Return the upper triangle of the logarithm, float32 [325]; off the diagonal times root 2."""
    from scipy.ndimage import gaussian_filter

    channels = [gray]
    for width in WIDTHS:
        smooth = gaussian_filter(gray, width)
        rows, columns = np.gradient(smooth)
        rows_twice, mixed = np.gradient(rows)
        channels += [columns, rows, np.abs(columns), np.abs(rows)]
        channels += [np.gradient(columns, axis=1), rows_twice, mixed, np.hypot(columns, rows)]
    inner = np.stack([each[MARGIN:-MARGIN, MARGIN:-MARGIN].ravel() for each in channels])
    inner = inner.astype(np.float64) - inner.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(inner @ inner.T / inner.shape[1] + FLAT * np.eye(len(inner)))
    logarithm = (vectors * np.log(np.maximum(values, FLAT))) @ vectors.T
    upper = np.triu_indices(len(inner))
    weight = np.where(upper[0] == upper[1], 1.0, np.sqrt(2.0))
    return np.asarray(logarithm[upper] * weight, np.float32)
