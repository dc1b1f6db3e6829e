"""Trains net and segmentation head on a user's images, from weights that know surfaces already.

The idea of SegDec-Net (Tabernik et al., J. Intell. Manuf. 2020): pixels and the decision about the
image are learned together. The decision is the mean of the highest cells, so that it needs no
parameters of its own and an image without mask can be learned from (multiple instances).

Spots and areas have a map each. One map for both would have to be high along every edge of the
light, where an area might begin, and a spot of a few cells would drown among those.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import DefectNet
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.pieces import Pieces
from tasks.defects.short_training import Listen, ShortTraining, narrow, train_briefly

HIGHEST = (4, 0.05)
"""Cells, or their share, whose mean decides whether there is a spot, and an area."""
_RARE, _OVERLAP = 4.0, 0.5
_NEVER = 20.0
_CLIP, _KEPT = 1.0, 0.995


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

    def draw_loss() -> Tensor:
        pieces = draw()
        with narrow():
            logits = head(net(pieces.pixels).dense)
        return loss_of(logits.float(), pieces)

    training = ShortTraining(steps=config.steps, rate=config.rate, clip=_CLIP, kept=_KEPT)
    return train_briefly(nn.ModuleList([net, head]), draw_loss, training, listen)


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
        count: Number of cells, or below 1 their share, one of so many; rounded up.
    """
    flat = heat.flatten(1)
    return flat.topk(highest_count(count, flat.shape[1]), dim=1).values.mean(dim=1)


def highest_count(count: float, cells: int) -> int:
    """Return how many of so many cells `highest` takes the mean of."""
    some = int(count)
    if count < 1:
        # Not `ceil`, which torch.export cannot write into a file.
        every = round(1 / count)
        some = (cells + every - 1) // every
    return min(some, cells)
