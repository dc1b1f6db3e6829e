"""Learns the evidence, and weighs it on parts that were held out when it was learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from models.defect_net import STRIDE
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import tensor_of
from tasks.defects.detect.evidence import Cells, Evidence, fit_evidence, stacked
from tasks.defects.detect.metrics import auroc
from tasks.defects.detect.pieces import PieceMaker, region
from tasks.defects.detect.scorer import COUNTS, SurfaceScorer, look, statistics
from tasks.defects.detect.synthetic import with_defect
from tasks.defects.detect.weigh import Weights, weigh
from tasks.defects.samples import Mask, Sample, parts_of

PIECES = 8
"""Pieces per image that evidence is learned from, and the most of all pieces."""
MOST_PIECES = 800
MOST_IMAGES = 200
_CELLS = 48
_SEEN = 256
SYNTHETIC_WEIGHT = 0.15
"""Weight of a synthetic defect beside a real one when the evidence is weighed."""


class View(NamedTuple):
    """One image by evidence that was learned without its part.

    Attributes:
        found: float [statistics] before they are standardised.
        cells: float [k, maps] of some cells.
        target: bool [k], whether they touch a defect.
        defective: Whether the image shows one.
        weight: 1, less for a synthetic defect.
    """

    found: Tensor
    cells: Tensor
    target: Tensor
    defective: bool
    weight: float


def folds_of(
    normals: Sequence[Sample], defects: Sequence[Sample], count: int, rng: Generator
) -> list[tuple[list[Sample], list[Sample]]]:
    """Return at most so many groups of normal and defective samples; a part is in one alone."""
    both = normals, defects
    names = [sorted(set(parts_of(each))) for each in both]
    count = min(count, len(names[0]))
    place: dict[str, int] = {}
    for each in names:
        for turn, which in enumerate(rng.permutation(len(each))):
            place.setdefault(each[which], turn % count)

    def of(samples: Sequence[Sample], fold: int) -> list[Sample]:
        return [s for s, p in zip(samples, parts_of(samples), strict=True) if place[p] == fold]

    return [(of(normals, fold), of(defects, fold)) for fold in range(count)]


@torch.no_grad()
def cells_of(
    scorer: SurfaceScorer,
    normals: Sequence[Sample],
    defects: Sequence[Sample],
    config: DetectConfig,
    rng: Generator,
    pieces: int,
) -> Cells:
    """Return cells of random pieces, the same number of each piece and class at most."""
    maker = PieceMaker(normals, [one for one in defects if region(one) is not None], config, rng)
    chosen: list[Cells] = []
    for _ in range(-(-pieces // config.batch)):
        batch = maker.batch()
        features = stacked(look(scorer.net, batch.pixels)).flatten(2).transpose(1, 2)
        for one, target in zip(features, batch.target.flatten(1) > 0, strict=True):
            for defective in (False, True):
                place = torch.nonzero(target == defective)[:, 0].numpy()
                if not len(place):
                    continue
                taken = torch.from_numpy(rng.permutation(place)[:_CELLS])
                count = len(taken)
                chosen.append(
                    Cells(
                        one[taken],
                        torch.full((count,), fill_value=defective),
                        torch.full((count,), 1.0 / count),
                    )
                )
    return joined(chosen)


def joined(cells: Sequence[Cells]) -> Cells:
    """Return all cells as one."""
    return Cells(*(torch.cat(each) for each in zip(*cells, strict=True)))


@torch.no_grad()
def learn(
    scorer: SurfaceScorer,
    normals: Sequence[Sample],
    defects: Sequence[Sample],
    config: DetectConfig,
    rng: Generator,
) -> dict[str, float]:
    """Learn the evidence and set how it is weighed in heat and score.

    Args:
        scorer: Its net stays as it is.
        normals: Of at least two parts.
        defects: Any number.
        config: Folds and sizes.
        rng: Source of all that is random.

    Returns:
        Figures by held-out parts: ``auroc_synthetic``, and ``auroc`` where there are defects.
    """
    folds = folds_of(normals, defects, config.folds, rng)
    total = min(PIECES * (len(normals) + len(defects)), MOST_PIECES)
    cells = [
        cells_of(scorer, good, bad, config, rng, -(-total // len(folds))) for good, bad in folds
    ]
    views: list[View] = []
    for number, (good, bad) in enumerate(folds):
        others = [each for place, each in enumerate(cells) if place != number]
        evidence = Evidence(scorer.shape.net, config.memory, config.projected)
        fit_evidence(evidence, joined(others), config.seed)
        share = -(-MOST_IMAGES // len(folds))
        views += [view(scorer, evidence, one, rng) for one in [*good[:share], *bad[:share]]]
        views += [
            view(scorer, evidence, spoilt(one, good, rng), rng, SYNTHETIC_WEIGHT)
            for one in good[:share]
        ]
    fit_evidence(scorer.evidence, joined(cells), config.seed)
    return set_weights(scorer, views, trained=config.steps > 0)


def spoilt(sample: Sample, donors: Sequence[Sample], rng: Generator) -> Sample:
    """Return a normal image with a synthetic defect somewhere."""
    surface = tensor_of(sample.pixels).permute(1, 2, 0).numpy()
    donor = tensor_of(donors[int(rng.integers(len(donors)))].pixels).permute(1, 2, 0).numpy()
    more = [(0, max(0, a - b)) for a, b in zip(surface.shape, donor.shape, strict=True)]
    donor = np.pad(donor, more, "symmetric")[: surface.shape[0], : surface.shape[1]]
    made, mask = with_defect(surface, donor, rng)
    pixels = np.round(made * 255).astype(np.uint8)
    return Sample(sample.name, pixels, "ng" if mask.any() else "ok", mask=mask, part=sample.part)


def view(
    scorer: SurfaceScorer, evidence: Evidence, sample: Sample, rng: Generator, weight: float = 1.0
) -> View:
    """Look at one image by other evidence than the scorer's own."""
    features = look(scorer.net, tensor_of(sample.pixels)[None])
    maps = torch.cat([scorer.head(features.dense), evidence.raw(features)], dim=1)
    flat = maps[0].flatten(1).t()
    defective = sample.label == "ng"
    where = region(sample)
    target = torch.zeros(len(flat), dtype=torch.bool)
    if where is not None:
        target = touched(where, maps.shape[-2:]).flatten()
    elif defective:  # where the defect is, nobody said: no cell of it is used
        flat, target = flat[:0], target[:0]
    taken = [
        torch.from_numpy(rng.permutation(torch.nonzero(target == side)[:, 0].numpy())[:_SEEN])
        for side in (False, True)
    ]
    place = torch.cat(taken)
    return View(statistics(maps)[0], flat[place], target[place], defective, weight)


def touched(mask: Mask, size: Sequence[int]) -> Tensor:
    """Return bool [h / 4, w / 4], where a cell touches the mask."""
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    cells = functional.max_pool2d(whole, STRIDE, ceil_mode=True)
    return functional.adaptive_max_pool2d(cells, (int(size[0]), int(size[1])))[0, 0] > 0


def set_weights(scorer: SurfaceScorer, views: Sequence[View], *, trained: bool) -> dict[str, float]:
    """Set standardisation, heat and decision of the scorer by held-out views."""
    normal = torch.cat([one.cells for one in views if not one.defective])
    low, middle, high = torch.quantile(
        normal[:: max(1, len(normal) // 100_000)], torch.tensor([0.16, 0.5, 0.84]), dim=0
    )
    spread = ((high - low) / 2).clamp_min(1e-6)
    middle[0], spread[0] = 0, 1  # the net's own logits stay what they are
    scorer.evidence.centre.copy_(middle[1:])
    scorer.evidence.spread.copy_(spread[1:])
    cells = torch.cat([(one.cells - middle) / spread for one in views]).double().numpy()
    target = torch.cat([one.target for one in views]).numpy()
    share = torch.cat(
        [torch.full((len(one.cells),), one.weight / max(1, len(one.cells))) for one in views]
    )
    if target.any():
        _set_heat(scorer, weigh(cells[:, 1:], target, share.double().numpy()), trained=trained)
    times = len(COUNTS)
    found = torch.stack([one.found for one in views]) - middle.repeat_interleave(times)
    values = (found / spread.repeat_interleave(times)).double().numpy()[:, times:]
    defective = np.array([one.defective for one in views])
    weight = np.array([one.weight for one in views])
    figures = {}
    if defective.any():
        weights = weigh(values, defective, weight)
        _set_decision(scorer, weights, trained=trained)
        told = weights.log_odds(values)
        for name, real in (("auroc_synthetic", weight < 1), ("auroc", weight == 1)):
            kept = real & defective | ~defective
            if (real & defective).any():
                figures[name] = auroc(told[kept], defective[kept])
    return figures


def _set_heat(scorer: SurfaceScorer, weights: Weights, *, trained: bool) -> None:
    share = 0.5 if trained else 1.0
    scale = torch.from_numpy(weights.weight / weights.spread).float()
    scorer.mix[0] = 1 - share
    scorer.mix[1:] = share * scale
    bias = weights.bias - float(weights.weight @ (weights.centre / weights.spread))
    scorer.mix_bias.fill_(share * bias)


def _set_decision(scorer: SurfaceScorer, weights: Weights, *, trained: bool) -> None:
    first = len(COUNTS)
    scorer.usual[first:] = torch.from_numpy(weights.centre).float()
    scorer.unusual[first:] = torch.from_numpy(weights.spread).float()
    scorer.decision[first:] = torch.from_numpy(weights.weight).float()
    if trained:
        scorer.decision[1] = 0.5
    scorer.decision_bias.fill_(weights.bias)
