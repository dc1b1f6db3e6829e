"""The net that proposes boxes: one scale, no anchors, free of data-dependent control flow.

Each cell of a map at stride 8 gives a score per type, the middle of a box relative to its own and
the logarithms of the box's sides (CenterNet: Zhou et al. 2019; FCOS: Tian et al. 2019). One scale
is enough where images are brought to one size, and a few boxes train it better than several. The
score is that of type and quality together (Li et al., Generalized Focal Loss, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import DefectNet, DefectNetShape

CELL = 8
"""Pixels per cell of the map that boxes come from."""
RARE = -4.0
"""Log-odds that an untrained cell gives a type; the loss would else be one of background alone."""
_LARGEST = 4.0
"""Largest logarithm of a side's ratio to the usual one."""


class Proposals(NamedTuple):
    """Boxes of a batch of n images, the best k of each.

    Attributes:
        edges: float [n, k, 4]: left, top, right, bottom in pixels of the input.
        score: float [n, k] in [0, 1], best first.
        kind: int64 [n, k], place of the type in `BoxShape.kinds`.
    """

    edges: Tensor
    score: Tensor
    kind: Tensor


@dataclass(frozen=True, slots=True)
class BoxShape:
    """Sizes of the scorer.

    Attributes:
        net: Of backbone and neck.
        kinds: Names of the types.
        width: Channels of the head.
        layers: Its 3 x 3 convolutions.
        most: Boxes proposed per image.
    """

    net: DefectNetShape = field(default_factory=DefectNetShape)
    kinds: tuple[str, ...] = ("",)
    width: int = 96
    layers: int = 3
    most: int = 200

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.width, self.layers, self.most, len(self.kinds)) < 1:
            raise ValueError("width, layers, most and the number of kinds must be at least 1")


class BoxScorer(nn.Module):
    """Net and head.

    Attributes:
        shape: Sizes.
        usual: float [2], usual width and height of a box in pixels, a buffer.
    """

    usual: Tensor

    def __init__(self, shape: BoxShape) -> None:
        super().__init__()
        self.shape = shape
        self.net = DefectNet(shape.net)
        inner = shape.net.dense + sum(shape.net.widths[1:])
        layers: list[nn.Module] = [nn.Conv2d(inner, shape.width, 1, bias=False)]
        for _ in range(shape.layers):
            layers += [nn.BatchNorm2d(shape.width), nn.ReLU()]
            layers.append(nn.Conv2d(shape.width, shape.width, 3, 1, 1, bias=False))
        layers += [nn.BatchNorm2d(shape.width), nn.ReLU()]
        self.tower = nn.Sequential(*layers)
        self.types = nn.Conv2d(shape.width, len(shape.kinds), 1)
        self.places = nn.Conv2d(shape.width, 4, 1)
        nn.init.constant_(self.types.bias, RARE)  # type: ignore[arg-type]
        nn.init.zeros_(self.places.weight)
        nn.init.zeros_(self.places.bias)  # type: ignore[arg-type]
        self.register_buffer("usual", torch.full((2,), 32.0))

    def maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each cell says.

        Args:
            pixels: float [n, 3, h, w] in [0, 1], sides multiples of `CELL`.

        Returns:
            Log-odds of the types, [n, kinds, h / 8, w / 8], and raw places, [n, 4, h / 8, w / 8].
        """
        found = self.net(pixels)
        second, third = found.scales[1:]
        size = second.shape[-2:]
        third = functional.interpolate(third, size=size, mode="bilinear", align_corners=False)
        dense = functional.adaptive_avg_pool2d(found.dense, size)
        shared = self.tower(torch.cat((dense, second, third), dim=1))
        return self.types(shared), self.places(shared)

    def edges_of(self, places: Tensor) -> Tensor:
        """Return boxes [n, cells, 4] (left, top, right, bottom in pixels) of raw places."""
        rows, columns = places.shape[-2:]
        y = (torch.arange(rows, device=places.device, dtype=places.dtype) + 0.5) * CELL
        x = (torch.arange(columns, device=places.device, dtype=places.dtype) + 0.5) * CELL
        middle_x = x[None, None, :] + places[:, 0] * self.usual[0] / 2
        middle_y = y[None, :, None] + places[:, 1] * self.usual[1] / 2
        half_w = places[:, 2].clamp(-_LARGEST, _LARGEST).exp() * self.usual[0] / 2
        half_h = places[:, 3].clamp(-_LARGEST, _LARGEST).exp() * self.usual[1] / 2
        each = (middle_x - half_w, middle_y - half_h, middle_x + half_w, middle_y + half_h)
        return torch.stack(each, dim=-1).flatten(1, 2)

    def forward(self, pixels: Tensor) -> Proposals:
        """Propose boxes in float [n, 3, h, w] in [0, 1], sides multiples of 8."""
        types, places = self.maps(pixels)
        edges = self.edges_of(places.float())
        score = types.float().sigmoid().flatten(2).transpose(1, 2).flatten(1)
        kinds = len(self.shape.kinds)
        best = score.topk(min(self.shape.most, int(score.shape[1])), dim=1)
        cell = torch.div(best.indices, kinds, rounding_mode="floor")
        chosen = edges.gather(1, cell[..., None].expand(-1, -1, 4))
        return Proposals(chosen, best.values, best.indices - cell * kinds)
