"""Heads that teach the net, and what their answers cost; they are thrown away after training.

Masks: binary cross-entropy and Dice (Milletari et al. 2016). Surfaces: the normalised temperature-
scaled cross-entropy of two renderings (SimCLR, Chen et al. 2020), with siblings as near negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import DefectNet, pooled
from tasks.defects.pretrain.images import FAMILIES, Drawn
from tasks.defects.pretrain.recipe import PretrainConfig
from tasks.defects.textures.defects import DEFECTS

MARKED = 0.12
"""Share of a cell that must be defective for it to count as such."""


class Pretrained(nn.Module):
    """The net with the heads that train it."""

    def __init__(self, net: DefectNet | None = None) -> None:
        super().__init__()
        self.net = net or DefectNet()
        dense, wide = self.net.shape.dense, 2 * sum(self.net.shape.widths)
        self.mask = nn.Conv2d(dense, 1, 1)
        nn.init.constant_(self.mask.bias, -3.0)  # type: ignore[arg-type]  # it has one
        self.kind_there = nn.Linear(dense, len(DEFECTS))
        self.norm = nn.BatchNorm1d(wide)
        self.kind = nn.Linear(wide, len(DEFECTS) + 1)
        self.family = nn.Linear(wide, len(FAMILIES))
        self.project = nn.Sequential(nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, 96))

    @classmethod
    def fresh(cls, seed: int) -> Pretrained:
        """Return one with the first weights of a seed."""
        torch.manual_seed(seed)
        return cls()

    def forward(self, pixels: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Return each head's answer.

        Args:
            pixels: float [n, 3, h, w] in [0, 1].
            masks: float [n, 1, h / 4, w / 4], the true masks, under which types are read.
        """
        features = self.net(pixels)
        wide = self.norm(pooled(features))
        there = (features.dense * masks).sum((2, 3)) / (masks.sum((2, 3)) + 1e-3)
        return {
            "mask": self.mask(features.dense).float(),
            "kind_there": self.kind_there(there).float(),
            "kind": self.kind(wide).float(),
            "family": self.family(wide).float(),
            "instance": functional.normalize(self.project(wide).float(), dim=1),
        }


class PretrainLoss:
    """Sum of the heads' losses over a batch; keeps each one's last mean for the log."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        self.last: dict[str, float] = {}

    def __call__(self, model: nn.Module, batch: Drawn) -> tuple[Tensor, int]:
        """Return the summed loss and the number of images."""
        kinds = torch.from_numpy(batch.kinds)
        masks = torch.from_numpy(batch.masks).unsqueeze(1).float() / 255
        found = model(to_input(batch), masks)
        config = self.config
        parts = {
            "mask": config.mask * mask_loss(found["mask"], (masks > MARKED).float()),
            "kind": config.kind * functional.cross_entropy(found["kind"], kinds),
            "kind_there": config.kind * _kind_there(found["kind_there"], kinds, masks),
            "family": config.family
            * functional.cross_entropy(found["family"], torch.from_numpy(batch.families)),
            "instance": config.instance
            * instance_loss(
                found["instance"], torch.from_numpy(batch.instances), config.temperature
            ),
        }
        self.last = {name: float(part.detach()) for name, part in parts.items()}
        count = len(kinds)
        return torch.stack(list(parts.values())).sum() * count, count


def to_input(batch: Drawn) -> Tensor:
    """Return float [n, 3, h, w] in [0, 1], channels last, as the convolutions like it best."""
    gray = torch.from_numpy(batch.pixels).float() / 255
    tinted = gray.unsqueeze(3) * torch.from_numpy(batch.tints)[:, None, None, :]
    return tinted.permute(0, 3, 1, 2)


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return binary cross-entropy with Dice over the images that have a defect.

    Args:
        logits: float [n, 1, h, w].
        masks: float [n, 1, h, w], 0 or 1.
    """
    entropy = functional.binary_cross_entropy_with_logits(
        logits, masks, pos_weight=logits.new_tensor(3.0)
    )
    chance, has = logits.sigmoid(), masks.amax((1, 2, 3))
    both = 2 * (chance * masks).sum((1, 2, 3)) + 1
    each = chance.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1
    dice = ((1 - both / each) * has).sum() / has.sum().clamp(min=1)
    return 2 * entropy + dice


def instance_loss(points: Tensor, instances: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of finding each image's other rendering among all images.

    Args:
        points: float [n, d] of length 1.
        instances: int64 [n], equal for two images of one surface.
        temperature: By which likeness is divided.
    """
    likeness = points @ points.T / temperature
    itself = torch.eye(len(points), dtype=torch.bool)
    likeness = likeness.masked_fill(itself, float("-inf"))
    positive = (instances[:, None] == instances[None, :]) & ~itself
    each = likeness.log_softmax(1).masked_fill(~positive, 0).sum(1) / positive.sum(1)
    return -each.mean()


def _kind_there(logits: Tensor, kinds: Tensor, masks: Tensor) -> Tensor:
    defective = (kinds > 0) & (masks.amax((1, 2, 3)) > MARKED)
    if not bool(defective.any()):
        return logits.sum() * 0
    return functional.cross_entropy(logits[defective], kinds[defective] - 1)
