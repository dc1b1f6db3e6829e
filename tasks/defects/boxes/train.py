"""Trains the scorer of boxes, from weights that know surfaces already."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tasks.defects.boxes.config import BoxConfig
from tasks.defects.boxes.pieces import BoxPieces
from tasks.defects.boxes.scorer import CELL, BoxScorer
from tasks.defects.short_training import ShortTraining, narrow, train_briefly

_MIDDLE = 0.5
"""Share of a box's sides, around its middle, whose cells propose it."""
_REACH = 0.75
"""Cells on each side of the middle that do so in a box that is smaller than they are."""
_PLACES = 2.0
"""Weight of the places beside the types."""
_CLIP, _KEPT = 5.0, 0.99


def train(scorer: BoxScorer, draw: Callable[[], BoxPieces], config: BoxConfig) -> float:
    """Train in place; the scorer is in evaluation mode afterwards.

    Args:
        scorer: What is trained.
        draw: Gives the next batch.
        config: Steps and learning rate.

    Returns:
        Mean loss of the last tenth of the steps.

    Raises:
        ArithmeticError: The loss is no number; says at which step.
    """

    def draw_loss() -> Tensor:
        pieces = draw()
        with narrow():
            types, places = scorer.maps(pieces.pixels)
        return loss_of(scorer, types.float(), places.float(), pieces)

    training = ShortTraining(steps=config.steps, rate=config.rate, clip=_CLIP, kept=_KEPT)
    return train_briefly(scorer, draw_loss, training)


def loss_of(scorer: BoxScorer, types: Tensor, places: Tensor, pieces: BoxPieces) -> Tensor:
    """Return quality focal loss of the types and generalised IoU loss of the places.

    A cell's target for the type of its box is the intersection over union that its own box reaches
    (Li et al., Generalized Focal Loss, 2020), so that the score tells the quality, too.

    Args:
        scorer: Whose maps they are.
        types: float [n, kinds, h, w], log-odds.
        places: float [n, 4, h, w].
        pieces: What there is to be found.
    """
    edges = scorer.edges_of(places)
    logits = types.flatten(2).transpose(1, 2)
    target = torch.zeros_like(logits)
    apart = types.new_zeros(())
    count = 0
    for place, (true, kinds) in enumerate(zip(pieces.edges, pieces.kinds, strict=True)):
        cells, box = assigned(true, types.shape[-2], types.shape[-1])
        if not len(cells):
            continue
        overlap, general = generalised_iou(edges[place, cells], true[box])
        target[place, cells, kinds[box]] = overlap.detach()
        apart = apart + (1 - general).sum()
        count += len(cells)
    share = logits.sigmoid()
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (share - target).square() * each
    return (focal.sum() + _PLACES * apart) / max(1, count)


def assigned(edges: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return the cells that shall propose a box, and which; of several the smallest.

    Args:
        edges: float [m, 4] of the labelled boxes, in pixels.
        rows: Of cells.
        columns: Of cells.

    Returns:
        int64 [k] of cells, row by row, and int64 [k] of boxes.
    """
    y = (torch.arange(rows) + 0.5).repeat_interleave(columns) * CELL
    x = (torch.arange(columns) + 0.5).repeat(rows) * CELL
    middle, sides = (edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]
    reach = (sides * _MIDDLE / 2).clamp_min(_REACH * CELL)
    near = (x[:, None] - middle[None, :, 0]).abs() <= reach[None, :, 0]
    near &= (y[:, None] - middle[None, :, 1]).abs() <= reach[None, :, 1]
    area = torch.where(near, sides.prod(dim=1)[None], torch.inf)
    cells = torch.nonzero(near.any(dim=1))[:, 0]
    return cells, area[cells].argmin(dim=1) if len(cells) else cells


def generalised_iou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return intersection over union of pairs of boxes, and its generalised form, both [n].

    The latter (Rezatofighi et al., CVPR 2019) also falls the farther apart two boxes are.
    """
    larger, smaller = torch.maximum(first, second), torch.minimum(first, second)
    both = (smaller[:, 2:] - larger[:, :2]).clamp_min(0).prod(dim=1)
    around = (larger[:, 2:] - smaller[:, :2]).prod(dim=1).clamp_min(1e-6)
    areas = [(one[:, 2:] - one[:, :2]).prod(dim=1) for one in (first, second)]
    whole = (areas[0] + areas[1] - both).clamp_min(1e-6)
    overlap = both / whole
    return overlap, overlap - (around - whole) / around
