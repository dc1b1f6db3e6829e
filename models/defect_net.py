"""The small convolutional net of the inspection: features of three scales, and a map of defects.

Plain 3 x 3 convolutions in basic residual blocks (He et al. 2016), because they are what int8
kernels of CPUs run best; a top-down neck (Lin et al. 2017) brings the scales together at a
quarter of the image's size, where a defect of a few pixels is still seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 4
"""Pixels of the image per cell of the dense map."""


@dataclass(frozen=True, slots=True)
class DefectNetShape:
    """Sizes of the net.

    Attributes:
        stem: Channels of the first convolution (stride 2).
        widths: Channels at strides 4, 8 and 16.
        blocks: Residual blocks at each.
        dense: Channels of the dense map at stride 4.
    """

    stem: int = 24
    widths: tuple[int, int, int] = (48, 96, 192)
    blocks: tuple[int, int, int] = (2, 2, 2)
    dense: int = 64

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.stem, self.dense, *self.widths, *self.blocks) < 1:
            raise ValueError(f"every size of a defect net must be at least 1, got {self}")
        if any(channels % 8 for channels in (self.stem, self.dense, *self.widths)):
            raise ValueError(
                f"channels of a defect net must be multiples of 8, got {self}: CPUs compute with "
                "eight at once, and on those without AVX-512 training with others aborts"
            )

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> DefectNetShape:
        """Return the shape of its fields as JSON has them, where tuples are lists.

        Raises:
            TypeError: There are other fields.
            ValueError: A size is too small, or channels are no multiples of 8.
        """
        sizes: dict[str, Any] = {
            name: tuple(size) if isinstance(size, list) else size for name, size in given.items()
        }
        return cls(**sizes)


@dataclass(frozen=True, slots=True)
class Features:
    """What the net sees in a batch of images [n, 3, h, w].

    Attributes:
        scales: Maps at strides 4, 8 and 16: [n, widths[i], h / stride, w / stride].
        dense: All scales together at stride 4: [n, dense, h / 4, w / 4].
    """

    scales: tuple[Tensor, Tensor, Tensor]
    dense: Tensor


class Block(nn.Module):
    """Two 3 x 3 convolutions with a way around them."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outer)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outer)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.around = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, outer, h / stride, w / stride] of [n, inner, h, w]."""
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.around(x))


class DefectNet(nn.Module):
    """Backbone and neck; heads are put on top by those who train them."""

    def __init__(self, shape: DefectNetShape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or DefectNetShape()
        self.stem = nn.Sequential(
            nn.Conv2d(3, shape.stem, 3, 2, 1, bias=False),
            nn.BatchNorm2d(shape.stem),
            nn.ReLU(),
            nn.Conv2d(shape.stem, shape.widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(shape.widths[0]),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        inner = shape.widths[0]
        for place, (width, count) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            first = Block(inner, width, 1 if place == 0 else 2)
            stages.append(nn.Sequential(first, *(Block(width, width, 1) for _ in range(count - 1))))
            inner = width
        self.stages = nn.ModuleList(stages)
        self.sides = nn.ModuleList(nn.Conv2d(width, shape.dense, 1) for width in shape.widths)
        self.smooth = nn.Sequential(nn.Conv2d(shape.dense, shape.dense, 3, 1, 1), nn.ReLU())

    def forward(self, pixels: Tensor) -> Features:
        """Return the features.

        Args:
            pixels: float [n, 3, h, w] in [0, 1]; each image is brought to mean 0 and spread 1 here,
                so that exposure changes little.
        """
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        spread = pixels.std(dim=(1, 2, 3), keepdim=True, correction=0)
        x = self.stem((pixels - mean) / (spread + 0.02))
        scales = []
        for stage in self.stages:
            x = stage(x)
            scales.append(x)
        first, second, third = scales
        return Features((first, second, third), self.neck(first, second, third))

    def neck(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        """Return the dense map [n, dense, h / 4, w / 4] of the three scales."""
        dense: Tensor = self.sides[2](third)
        for scale, side in ((second, self.sides[1]), (first, self.sides[0])):
            dense = side(scale) + functional.interpolate(
                dense, size=scale.shape[-2:], mode="bilinear", align_corners=False
            )
        found: Tensor = self.smooth(dense)
        return found


class ResnetFeatures(DefectNet):
    """ResNet-18 (He et al. 2016) up to its third stage in the form of the small net.

    The dense map holds the three scales beside each other, each smoothed over 3 x 3 cells, as
    PatchCore reads them (Roth et al. 2022): 448 channels, none of which needs training.
    """

    def __init__(self) -> None:
        widths = (64, 128, 256)
        super().__init__(DefectNetShape(stem=64, widths=widths, dense=sum(widths)))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.sides, self.smooth = nn.ModuleList(), nn.Sequential()

    def neck(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        """Return the scales beside each other at stride 4."""
        size = first.shape[-2:]
        brought = [functional.avg_pool2d(scale, 3, 1, 1) for scale in (first, second, third)]
        brought[1:] = [
            functional.interpolate(scale, size=size, mode="bilinear", align_corners=False)
            for scale in brought[1:]
        ]
        return torch.cat(brought, dim=1)


def pooled(features: Features) -> Tensor:
    """Return mean and spread of each channel of each scale, [n, 2 * sum(widths)]."""
    each = []
    for scale in features.scales:
        each += [scale.mean(dim=(2, 3)), scale.std(dim=(2, 3), correction=0)]
    return torch.cat(each, dim=1)
