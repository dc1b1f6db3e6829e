"""PatchCore (Roth et al., CVPR 2022) on a given backbone, the baseline of the detector.

As in the paper: features of the second and third stage, averaged over 3 x 3 cells, at the size of
the second; a greedy core-set of the patches on a random projection; the distance to the nearest
patch, of an image the largest; heat smoothed by a Gaussian of 4 pixels. Left out is the softmax
over the neighbours' neighbours, which changed no figure of the paper by more than .1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.defect_net import DefectNet, Features
from tasks.defects.detect.memory import core_set, random_projection, squared_distance
from tasks.defects.judgement import Heat

CELL = 8


class PatchCore:
    """A memory of normal patches.

    Args:
        net: The backbone, frozen.
        share: Share of the patches that are kept, as in the paper's small setting.
        seed: Of projection and core-set.
    """

    def __init__(self, net: DefectNet, share: float = 0.01, seed: int = 0) -> None:
        self._net, self._share, self._seed = net.eval(), share, seed
        self._memory = torch.zeros(0)

    @torch.inference_mode()
    def fit(self, images: Sequence[Tensor]) -> PatchCore:
        """Remember normal images, float [3, h, w] each."""
        patches = torch.cat([self._patches(self._net(image[None]))[0] for image in images])
        projected = patches @ random_projection(patches.shape[1], 64, self._seed)
        size = max(1, round(self._share * len(patches)))
        self._memory = patches[core_set(projected, size, self._seed)]
        return self

    @torch.inference_mode()
    def judge(self, image: Tensor) -> tuple[float, Heat]:
        """Return score and heat [h / 8, w / 8] of float [3, h, w]."""
        return self.judge_features(self._net(image[None]))

    @torch.inference_mode()
    def judge_features(self, features: Features) -> tuple[float, Heat]:
        """Return score and heat of one image by its features."""
        from scipy.ndimage import gaussian_filter

        patches, size = self._patches(features)
        apart = squared_distance(patches, self._memory).sqrt().reshape(size).numpy()
        return float(apart.max()), gaussian_filter(apart, 4 / CELL).astype(np.float32)

    @staticmethod
    def _patches(features: Features) -> tuple[Tensor, tuple[int, int]]:
        _, second, third = (functional.avg_pool2d(scale, 3, 1, 1) for scale in features.scales)
        size = (int(second.shape[2]), int(second.shape[3]))
        third = functional.interpolate(third, size=size, mode="bilinear", align_corners=False)
        return torch.cat([second, third], dim=1)[0].flatten(1).t().contiguous(), size
