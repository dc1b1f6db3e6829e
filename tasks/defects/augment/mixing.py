"""CutMix (Yun et al., ICCV 2019) and MixUp (Zhang et al., ICLR 2018) of torchvision, by a seed."""

from __future__ import annotations

from typing import Literal

import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

Mixing = Literal["cutmix", "mixup"]


def mixed(
    pixels: Tensor,
    kinds: Tensor,
    classes: int,
    how: Mixing,
    rng: Generator,
    *,
    alpha: float = 1.0,
    share: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with its neighbour.

    Args:
        pixels: float [n, c, h, w].
        kinds: int64 [n] in [0, classes).
        classes: Number of types.
        how: ``cutmix`` puts a rectangle of the neighbour into it, ``mixup`` lays it over it.
        rng: Source of all that is random; torch's own is left as it was.
        alpha: Of the Beta distribution of how much is the neighbour's.
        share: Chance that the batch is mixed at all; 0 changes nothing.

    Returns:
        Pixels as given, and the share of each type, float32 [n, classes], which sum to 1.
    """
    told = functional.one_hot(kinds, classes).float()
    if rng.random() >= share:
        return pixels, told
    mix = {"cutmix": v2.CutMix, "mixup": v2.MixUp}[how](alpha=alpha, num_classes=classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        pixels, told = mix(pixels, kinds)
    return pixels, told
