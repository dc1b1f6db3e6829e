"""Trains net and segmentation head on a user's images, from weights that know surfaces already.

The idea of SegDec-Net (Tabernik et al., J. Intell. Manuf. 2020): pixels and the decision about the
image are learned together. The decision is the mean of the highest cells, so that it needs no
parameters of its own and an image without mask can be learned from (multiple instances).

Spots and areas have a map each. One map for both would have to be high along every edge of the
light, where an area might begin, and a spot of a few cells would drown among those.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import DefectNet
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.pieces import Pieces

LOG = logging.getLogger(__name__)
Listen = Callable[[int, float], None]
HIGHEST = (4, 0.05)
"""Cells, or their share, whose mean decides whether there is a spot, and an area."""
_MOST_CELLS = 4_096
"""Most cells of a share: a twentieth of an image of 1,144 pixels square."""
_RARE, _OVERLAP = 4.0, 0.5
_WARM_UP, _NEVER = 0.15, 20.0
_KEPT = 0.995
"""Share of the running mean of the weights that a step keeps."""


def finetune(
    net: DefectNet,
    head: nn.Conv2d,
    draw: Callable[[], Pieces],
    config: DetectConfig,
    listen: Listen = lambda _step, _loss: None,
) -> float:
    """Train in place; both are in evaluation mode afterwards.

    Args:
        net: Backbone and neck.
        head: From ``net.shape.dense`` channels to the logits of spots and of areas.
        draw: Gives the next batch.
        config: Steps and learning rate.
        listen: Called with each step and its loss.

    Returns:
        Mean loss of the last tenth of the steps, NaN without steps.

    Raises:
        ArithmeticError: The loss is no number; says at which step.
    """
    whole = nn.ModuleList([net, head])
    losses = []
    if config.steps:
        mean_of = copy.deepcopy(whole)
        weights = list(whole.parameters())
        optimizer = torch.optim.AdamW(weights, config.rate, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.rate, config.steps, pct_start=_WARM_UP
        )
        whole.to(memory_format=torch.channels_last)
        whole.train()
        for step in range(config.steps):
            pieces = draw()
            with torch.autocast("cpu", torch.bfloat16, enabled=halves_pay()):
                logits = head(net(pieces.pixels).dense)
            loss = loss_of(logits.float(), pieces)
            if not torch.isfinite(loss):
                raise ArithmeticError(f"the loss is {loss.item()} at step {step}; lower the rate")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            # Early on the mean follows at once, so that a short training is more than its start.
            follow(mean_of, whole, min(_KEPT, step / (step + 10)))
            losses.append(loss.item())
            listen(step, losses[-1])
        whole.load_state_dict(mean_of.state_dict())
        whole.to(memory_format=torch.contiguous_format)
    whole.eval()
    last = losses[-max(1, len(losses) // 10) :]
    mean = sum(last) / len(last) if last else float("nan")
    LOG.info("%d steps of training, loss %.3f", config.steps, mean)
    return mean


def halves_pay() -> bool:
    """Return whether the processor multiplies bfloat16 itself; elsewhere it is slower."""
    told = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(told and told())


@torch.no_grad()
def follow(mean_of: nn.Module, weights: nn.Module, kept: float) -> None:
    """Move a running mean of weights towards them; of the mean so far ``kept`` stays."""
    for one, new in zip(mean_of.parameters(), weights.parameters(), strict=True):
        one.lerp_(new, 1 - kept)
    for kept_one, buffer in zip(mean_of.buffers(), weights.buffers(), strict=True):
        kept_one.copy_(buffer)


def loss_of(logits: Tensor, pieces: Pieces) -> Tensor:
    """Return the losses of both maps: cross-entropy and overlap of the cells, and of the decision.

    Args:
        logits: float [n, 2, h, w], of spots and of areas.
        pieces: What the cells and the pieces are.
    """
    loss = logits.new_zeros(())
    for place, count in enumerate(HIGHEST):
        mine = (pieces.large == bool(place)).float()
        others = pieces.target * (1 - mine)[:, None, None, None]
        told = pieces._replace(target=pieces.target - others, defective=pieces.defective * mine)
        loss = loss + _loss_of_one(logits[:, [place]], told, 1 - others, count)
    return loss


def _loss_of_one(logits: Tensor, pieces: Pieces, counted: Tensor, count: float) -> Tensor:
    """Return the loss of one map; cells of defects of the other map do not count."""
    target, drawn = pieces.target, pieces.drawn
    cells = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cells = ((1 + _RARE * target) * cells * counted).mean(dim=(1, 2, 3))
    share = logits.sigmoid() * counted
    both = (share * target).sum(dim=(1, 2, 3))
    overlap = (2 * both + 1) / ((share + target).sum(dim=(1, 2, 3)) + 1)
    decision = functional.binary_cross_entropy_with_logits(
        highest(logits - _NEVER * (1 - counted), count), pieces.defective
    )
    known = drawn.sum().clamp_min(1)
    # Of a piece without defect the overlap says nothing that cross-entropy does not say better.
    shown = drawn * target.flatten(1).amax(dim=1)
    missed = (shown * (1 - overlap)).sum() / shown.sum().clamp_min(1)
    return (drawn * cells).sum() / known + _OVERLAP * missed + decision


def highest(heat: Tensor, count: float) -> Tensor:
    """Return the mean of the highest cells of each map, [n] of [n, 1, h, w].

    Args:
        heat: The maps.
        count: Number of cells, or below 1 their share, which depends on no image's size.
    """
    flat = heat.flatten(1)
    cells = flat.shape[1]
    if count >= 1:
        return flat.topk(min(int(count), cells), dim=1).values.mean(dim=1)
    # Ranks are compared with the share, since a number of cells that depends on the image's size
    # cannot be exported.
    best = flat.topk(min(_MOST_CELLS, cells), dim=1).values
    kept = torch.arange(best.shape[1], device=heat.device) * round(1 / count) < cells
    return (best * kept).sum(dim=1) / kept.sum()
