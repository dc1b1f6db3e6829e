"""What the features of one cell say about a defect there: three maps beside the net's own.

All that is learned here is linear in the features or a distance by one matrix product, so that the
whole runs as a few small convolutions wherever the net runs.

- ``fisher``: direction that parts defective cells from normal ones best (linear discriminant with
  shrinkage); defective ones are of the labels and synthetic.
- ``memory``: distance to the nearest remembered normal patch (PatchCore).
- ``distance``: Mahalanobis distance of the dense map with shrinkage (PaDiM, Defard et al. 2021,
  without its places, since parts lie anywhere).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import DefectNetShape, Features
from tasks.defects.detect.memory import core_set, random_projection, squared_distance

MAPS = ("fisher", "memory", "distance")
_TINY = 1e-6


class Cells(NamedTuple):
    """Cells of many pieces.

    Attributes:
        features: float [n, channels] as `stacked` gives them.
        defective: bool [n].
        weight: float [n]: cells of one piece share a weight of 1 per class.
    """

    features: Tensor
    defective: Tensor
    weight: Tensor


def stacked(features: Features) -> Tensor:
    """Return all maps at the size of the dense one, [n, dense + sum(widths), h, w]."""
    size = features.dense.shape[-2:]
    return torch.cat([features.dense, *(_enlarged(scale, size) for scale in features.scales)], 1)


class Evidence(nn.Module):
    """Maps of evidence, each about 0 with spread 1 on normal surface."""

    def __init__(self, shape: DefectNetShape, memory: int, projected: int) -> None:
        super().__init__()
        self.projected = projected
        widths = (shape.dense, *shape.widths)
        # Without bias: the mean is taken off once, after they are summed.
        self.reduce = nn.ModuleList(
            nn.Conv2d(width, projected + 1, 1, bias=False) for width in widths
        )
        self.reduced_mean = nn.Parameter(torch.zeros(projected + 1), requires_grad=False)
        self.white = nn.Conv2d(shape.dense, shape.dense, 1, bias=False)
        self.dense_mean = nn.Parameter(torch.zeros(shape.dense), requires_grad=False)
        self.remembered = nn.Parameter(torch.zeros(memory, projected), requires_grad=False)
        self.centre = nn.Parameter(torch.zeros(len(MAPS)), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(len(MAPS)), requires_grad=False)

    def forward(self, features: Features) -> Tensor:
        """Return float [n, len(MAPS), h / 4, w / 4]."""
        raw = self.raw(features)
        return (raw - self.centre[:, None, None]) / self.spread[:, None, None]

    def raw(self, features: Features) -> Tensor:
        """Return the maps before they are brought to one spread."""
        dense, size = features.dense, features.dense.shape[-2:]
        reduced = self.reduced(features)
        patches = reduced[:, :-1].flatten(2).transpose(1, 2)
        near = squared_distance(patches, self.remembered).clamp_min(_TINY).sqrt()
        far = self.whitened(dense).square().mean(dim=1, keepdim=True).clamp_min(_TINY).sqrt()
        near = near.reshape(len(dense), 1, size[0], size[1])
        return torch.cat([reduced[:, -1:], near, far], dim=1)

    def reduced(self, features: Features) -> Tensor:
        """Return the projected patches, and the ``fisher`` map behind them."""
        maps, size = (features.dense, *features.scales), features.dense.shape[-2:]
        start = -self.reduced_mean[:, None, None]
        layers = zip(self.reduce, maps, strict=True)
        return sum((_enlarged(layer(scale), size) for layer, scale in layers), start)

    def whitened(self, dense: Tensor) -> Tensor:
        """Return the dense map with the covariance of normal surface taken out of it."""
        white: Tensor = self.white(dense - self.dense_mean[:, None, None])
        return white


@torch.no_grad()
def fit_evidence(evidence: Evidence, cells: Cells, seed: int) -> None:
    """Set all weights from cells of normal and of defective surface.

    Args:
        evidence: To be set.
        cells: At least two normal ones.
        seed: Of projection and core-set.
    """
    normal = ~cells.defective
    mean, covariance = _moments(cells.features[normal], cells.weight[normal])
    scale = covariance.diagonal().clamp_min(_TINY).sqrt()
    direction = torch.zeros_like(mean)
    if cells.defective.any():
        moved, _ = _moments(cells.features[cells.defective], cells.weight[cells.defective])
        direction = torch.linalg.solve(_shrunk(covariance), moved - mean)
    project = random_projection(len(mean), evidence.projected, seed) / scale[:, None]
    weight = torch.cat([project.t(), direction[None]])
    start = 0
    for layer in evidence.reduce.parameters():
        stop = start + layer.shape[1]
        layer.copy_(weight[:, start:stop, None, None])
        start = stop
    evidence.reduced_mean.copy_(weight @ mean)
    dense = evidence.white.in_channels
    values, vectors = torch.linalg.eigh(_shrunk(covariance[:dense, :dense]))
    white = (vectors / values.clamp_min(_TINY).sqrt()).t()
    evidence.white.weight.copy_(white[:, :, None, None])
    evidence.dense_mean.copy_(mean[:dense])
    patches = (cells.features[normal] - mean) @ project
    chosen = patches[core_set(patches, len(evidence.remembered), seed)]
    more = -(-len(evidence.remembered) // len(chosen))
    evidence.remembered.copy_(chosen.repeat(more, 1)[: len(evidence.remembered)])


def _moments(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    share = weight / weight.sum()
    mean = share @ features
    apart = features - mean
    return mean, (apart * share[:, None]).t() @ apart


def _shrunk(covariance: Tensor, share: float = 0.1) -> Tensor:
    """Return it moved towards its diagonal, which keeps every channel's own spread."""
    diagonal = covariance.diagonal()
    floor = diagonal.mean() * 1e-3 + _TINY
    return (1 - share) * covariance + torch.diag(share * diagonal + floor)


def _enlarged(scale: Tensor, size: torch.Size) -> Tensor:
    if scale.shape[-2:] == size:
        return scale
    return functional.interpolate(scale, size=size, mode="bilinear", align_corners=False)
