"""Trains net and segmentation head on a user's images, from weights that know surfaces already.

The idea of SegDec-Net (Tabernik et al., J. Intell. Manuf. 2020): pixels and the decision about the
image are learned together. The decision is the mean of the highest cells, so that it needs no
parameters of its own and an image without mask can be learned from (multiple instances).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import DefectNet
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.pieces import Pieces

LOG = logging.getLogger(__name__)
HIGHEST = 16
"""Cells whose mean decides about a piece."""
_RARE = 4.0
_WARM_UP = 0.15


def finetune(
    net: DefectNet, head: nn.Conv2d, draw: Callable[[], Pieces], config: DetectConfig
) -> float:
    """Train in place; both are in evaluation mode afterwards.

    Args:
        net: Backbone and neck.
        head: From ``net.shape.dense`` channels to one logit per cell.
        draw: Gives the next batch.
        config: Steps and learning rate.

    Returns:
        Mean loss of the last tenth of the steps, NaN without steps.

    Raises:
        ArithmeticError: The loss is no number; says at which step.
    """
    weights = [*net.parameters(), *head.parameters()]
    losses = []
    if config.steps:
        optimizer = torch.optim.AdamW(weights, config.rate, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.rate, config.steps, pct_start=_WARM_UP
        )
        net.train()
        for step in range(config.steps):
            pieces = draw()
            loss = loss_of(head(net(pieces.pixels).dense), pieces)
            if not torch.isfinite(loss):
                raise ArithmeticError(f"the loss is {loss.item()} at step {step}; lower the rate")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    net.eval()
    head.eval()
    last = losses[-max(1, len(losses) // 10) :]
    mean = sum(last) / len(last) if last else float("nan")
    LOG.info("%d steps of training, loss %.3f", config.steps, mean)
    return mean


def loss_of(logits: Tensor, pieces: Pieces) -> Tensor:
    """Return cross-entropy and overlap of the cells, and cross-entropy of the decision.

    Args:
        logits: float [n, 1, h, w].
        pieces: What the cells and the pieces are.
    """
    target, drawn = pieces.target, pieces.drawn
    cells = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cells = ((1 + _RARE * target) * cells).mean(dim=(1, 2, 3))
    share = logits.sigmoid()
    both = (share * target).sum(dim=(1, 2, 3))
    overlap = (2 * both + 1) / ((share + target).sum(dim=(1, 2, 3)) + 1)
    decision = functional.binary_cross_entropy_with_logits(
        highest(logits, HIGHEST), pieces.defective
    )
    known = drawn.sum().clamp_min(1)
    # Of a piece without defect the overlap says nothing that cross-entropy does not say better.
    shown = drawn * target.flatten(1).amax(dim=1)
    missed = (shown * (1 - overlap)).sum() / shown.sum().clamp_min(1)
    return (drawn * cells).sum() / known + 0.5 * missed + 0.3 * decision


def highest(heat: Tensor, count: int) -> Tensor:
    """Return the mean of the highest cells of each map, [n] of [n, 1, h, w]."""
    flat = heat.flatten(1)
    return flat.topk(min(count, flat.shape[1]), dim=1).values.mean(dim=1)
