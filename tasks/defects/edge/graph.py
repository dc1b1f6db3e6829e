"""A scorer as it stands on the edge: decoded pixels in, scores and the verdict out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tasks.defects.edge.preprocess import prepare
from tasks.defects.judgement import Thresholds
from tasks.defects.scorer import Scorer

LIMITS = ("ok_below", "ng_from")
"""Names of the thresholds, in `Thresholds` and among the constants of the file."""


def float32_up(value: float) -> np.float32:
    """Return the least float32 that is no less than ``value``.

    A float32 score lies below ``value`` exactly when it lies below this one, so that verdicts in
    the file are those of `Thresholds`, which compares in float64.
    """
    with np.errstate(over="ignore", under="ignore"):
        near = np.float32(value)
        above: np.float32 = np.nextafter(near, np.float32(np.inf))
    return above if float(near) < value else near


class EdgeGraph(nn.Module):
    """Preprocessing, scorer and thresholds in one module."""

    ok_below: Tensor
    ng_from: Tensor

    def __init__(self, scorer: Scorer, thresholds: Thresholds) -> None:
        super().__init__()
        self.scorer, self.size = scorer, scorer.size
        for name in LIMITS:
            value = float32_up(getattr(thresholds, name))
            self.register_buffer(name, torch.tensor(float(value), dtype=torch.float32))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Judge one image.

        Args:
            pixels: uint8 [h, w, 3].

        Returns:
            Score float32 [], heat float32 [height / 4, width / 4], probabilities of the kinds
            float32 [kinds], verdict int64 [] as in `tasks.defects.edge.format.VERDICTS`; a score
            that is no number is REVIEW.
        """
        score, heat, kinds = self.scorer(prepare(pixels, self.size))
        score = score[0]
        verdict = torch.where(
            score < self.ok_below, 0, torch.where(score >= self.ng_from, 1, 2)
        ).to(torch.int64)
        return score, heat[0, 0], kinds[0], verdict
