"""Learns the evidence, and weighs it on parts that were held out when it was learned."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from models.defect_net import STRIDE
from tasks.defects.detect.config import DetectConfig
from tasks.defects.detect.detector import tensor_of
from tasks.defects.detect.evidence import MAPS, Cells, fit_evidence, stacked
from tasks.defects.detect.finetune import HIGHEST, finetune
from tasks.defects.detect.metrics import auroc, resized
from tasks.defects.detect.pieces import PieceMaker, region
from tasks.defects.detect.scorer import STATISTICS, TRAINED, SurfaceScorer, statistics
from tasks.defects.detect.synthetic import with_defect
from tasks.defects.detect.weigh import Weights, weigh
from tasks.defects.samples import Mask, Sample, parts_of
from tasks.defects.short_training import Listen

PIECES, MOST_PIECES = 5, 600
"""Pieces per image that evidence is learned from, and the most of all pieces."""
MOST_IMAGES = 200
"""Normal and defective images each that the evidence is weighed by."""
_CELLS = 48
_SEEN = 256
_QUANTILE_CELLS, _MOST_CELLS = 1_000, 100_000
_DECIDING = tuple(
    STATISTICS.index(f"{name}_{count}") for name, count in zip(TRAINED, HIGHEST, strict=True)
)
_LEAST_SLOPE, _LEAST_SPREAD = 0.2, 0.1
SYNTHETIC_WEIGHT = 0.15
"""Weight of a synthetic defect beside a real one when the evidence is weighed."""


class View(NamedTuple):
    """One image by evidence that was learned without its part.

    Attributes:
        found: float [statistics], by their middle and spread on normal images for a trained net.
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


def train(
    scorer: SurfaceScorer,
    normals: Sequence[Sample],
    defects: Sequence[Sample],
    config: DetectConfig,
    rng: Generator,
    listen: Listen = lambda _step, _loss: None,
) -> float:
    """Train net and head; return the loss, NaN without steps."""
    scorer.eval()
    if not config.steps:
        return float("nan")
    undrawn = [sample for sample in defects if region(sample) is None]
    hints = strangest(scorer, undrawn, normals, config, rng) if undrawn else {}
    maker = PieceMaker(normals, defects, config, rng, hints)
    return finetune(scorer.net, scorer.head, maker.batch, config, listen)


@torch.no_grad()
def strangest(
    scorer: SurfaceScorer,
    samples: Sequence[Sample],
    normals: Sequence[Sample],
    config: DetectConfig,
    rng: Generator,
) -> dict[str, Mask]:
    """Return by name where a defect that nobody drew most likely is: 1 % of the pixels."""
    fit_evidence(scorer.evidence, cells_of(scorer, normals, [], config, rng), config.seed)
    found = {}
    for sample in samples:
        raw = scorer.evidence.raw(scorer.net(tensor_of(sample.pixels)[None]))
        heat = resized(raw[0, MAPS.index("memory")].numpy(), sample.pixels.shape[:2])
        found[sample.name] = heat >= np.quantile(heat, 0.99)
    return found


@torch.no_grad()
def cells_of(
    scorer: SurfaceScorer,
    normals: Sequence[Sample],
    defects: Sequence[Sample],
    config: DetectConfig,
    rng: Generator,
) -> Cells:
    """Return cells of random pieces, the same number of each piece and class at most."""
    pieces = min(PIECES * (len(normals) + len(defects)), MOST_PIECES)
    maker = PieceMaker(normals, [one for one in defects if region(one) is not None], config, rng)
    chosen: list[Cells] = []
    for _ in range(-(-pieces // config.batch)):
        batch = maker.batch()
        features = stacked(scorer.net(batch.pixels)).flatten(2).transpose(1, 2)
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
    return Cells(*(torch.cat(each) for each in zip(*chosen, strict=True)))


def learn(
    scorer: SurfaceScorer,
    normals: Sequence[Sample],
    defects: Sequence[Sample],
    config: DetectConfig,
    rng: Generator,
    more: tuple[Sequence[Sample], Sequence[Sample]] = ((), ()),
    listen: Listen = lambda _step, _loss: None,
) -> dict[str, float]:
    """Train what is to be trained, learn the evidence, and set how all of it is weighed.

    A net that is trained is trained again, for `fold_steps`, for each of two folds, so that what
    its score means is told by parts that it did not see.

    Args:
        scorer: Of the net to start from.
        normals: Of at least two parts.
        defects: Any number.
        config: Folds, sizes, steps.
        rng: Source of all that is random.
        more: Normal and defective samples of other parts that are learned from in every fold, but
            weigh nothing: labels that were guessed.
        listen: Called with each step of the training that stays, and its loss.

    Returns:
        Figures by held-out parts: ``auroc_synthetic``, and ``auroc`` where there are defects;
        ``loss`` of the training.
    """
    apart, rng = rng.spawn(2)  # what the folds draw changes nothing in the net that stays
    folds = folds_of(normals, defects, 2 if config.steps else config.folds, apart)
    share = -(-MOST_IMAGES // len(folds))
    views: list[View] = []
    for number, (good, bad) in enumerate(folds):
        others = [fold for place, fold in enumerate(folds) if place != number]
        student = copy.deepcopy(scorer)
        seen = [[*more[i], *(s for fold in others for s in fold[i])] for i in (0, 1)]
        half = replace(config, steps=min(config.steps, config.fold_steps))
        _learn(student, seen[0], seen[1], half, apart)
        standardise(student, good[:share], trained=config.steps > 0)
        views += [view(student, one, apart) for one in [*good[:share], *bad[:share]]]
        made = [spoilt(one, good, apart) for one in good[:share]]
        views += [view(student, one, apart, SYNTHETIC_WEIGHT) for one in made]
    loss = _learn(scorer, [*more[0], *normals], [*more[1], *defects], config, rng, listen)
    standardise(scorer, normals[:MOST_IMAGES], trained=config.steps > 0)
    return set_weights(scorer, views, trained=config.steps > 0) | (
        {} if math.isnan(loss) else {"loss": loss}
    )


def _learn(
    scorer: SurfaceScorer,
    normals: Sequence[Sample],
    defects: Sequence[Sample],
    config: DetectConfig,
    rng: Generator,
    listen: Listen = lambda _step, _loss: None,
) -> float:
    loss = train(scorer, normals, defects, config, rng, listen)
    fit_evidence(scorer.evidence, cells_of(scorer, normals, defects, config, rng), config.seed)
    return loss


@torch.no_grad()
def standardise(scorer: SurfaceScorer, normals: Sequence[Sample], *, trained: bool) -> None:
    """Bring the maps of evidence to middle 0 and spread 1 on normal images.

    Of a trained net the statistics, too, so that those of spots and of areas can be compared. That
    it was trained on these images moves neither middle nor spread.
    """
    evidence = scorer.evidence
    some = []
    for sample in normals:
        raw = evidence.raw(scorer.net(tensor_of(sample.pixels)[None]))[0].flatten(1)
        some.append(raw[:, :: max(1, raw.shape[1] // _QUANTILE_CELLS)])
    middle, spread = _middle_and_spread(torch.cat(some, dim=1)[:, :_MOST_CELLS])
    evidence.centre.copy_(middle)
    evidence.spread.copy_(spread.clamp_min(1e-6))
    if trained:
        found = []
        for sample in normals:
            pixels = tensor_of(sample.pixels)[None]
            found.append(statistics(scorer.maps(scorer.net(pixels), pixels))[0])
        middle, spread = _middle_and_spread(torch.stack(found, dim=1))
        scorer.usual.copy_(middle)
        scorer.unusual.copy_(spread.clamp_min(_LEAST_SPREAD))


def _middle_and_spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and half of the range of the inner 68 %, [n] of [n, k]."""
    low, middle, high = torch.quantile(values, torch.tensor([0.16, 0.5, 0.84]), dim=1)
    return middle, (high - low) / 2


@torch.no_grad()
def spoilt(sample: Sample, donors: Sequence[Sample], rng: Generator) -> Sample:
    """Return a normal image with a synthetic defect somewhere."""
    surface = tensor_of(sample.pixels).permute(1, 2, 0).numpy()
    donor = tensor_of(donors[int(rng.integers(len(donors)))].pixels).permute(1, 2, 0).numpy()
    more = [(0, max(0, a - b)) for a, b in zip(surface.shape, donor.shape, strict=True)]
    donor = np.pad(donor, more, "symmetric")[: surface.shape[0], : surface.shape[1]]
    made, mask = with_defect(surface, donor, rng)
    pixels = np.round(made * 255).astype(np.uint8)
    return Sample(sample.name, pixels, "ng" if mask.any() else "ok", mask=mask, part=sample.part)


@torch.no_grad()
def view(scorer: SurfaceScorer, sample: Sample, rng: Generator, weight: float = 1.0) -> View:
    """Look at one image."""
    pixels = tensor_of(sample.pixels)[None]
    maps = scorer.maps(scorer.net(pixels), pixels)
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
    found = (statistics(maps)[0] - scorer.usual) / scorer.unusual
    return View(found, flat[place], target[place], defective, weight)


def touched(mask: Mask, size: Sequence[int]) -> Tensor:
    """Return bool [h / 4, w / 4], where a cell touches the mask."""
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    cells = functional.max_pool2d(whole, STRIDE, ceil_mode=True)
    return functional.adaptive_max_pool2d(cells, (int(size[0]), int(size[1])))[0, 0] > 0


@torch.no_grad()
def set_weights(scorer: SurfaceScorer, views: Sequence[View], *, trained: bool) -> dict[str, float]:
    """Set how heat and decision weigh the maps, by views of held-out images.

    A net that was trained on the line decides alone; how surely it does is what the views tell.
    """
    cells = torch.cat([one.cells for one in views]).double().numpy()
    target = torch.cat([one.target for one in views]).numpy()
    share = np.concatenate([np.full(len(v.cells), v.weight / max(1, len(v.cells))) for v in views])
    values = torch.stack([one.found for one in views]).double().numpy()
    defective = np.array([one.defective for one in views])
    weight = np.array([one.weight for one in views])
    if trained:
        scorer.mix.copy_(torch.eye(len(TRAINED), scorer.mix.shape[1]))
        values = values[:, list(_DECIDING)].max(axis=1, keepdims=True)
    elif target.any():
        _set_heat(scorer, weigh(cells, target, share))
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


def _set_heat(scorer: SurfaceScorer, weights: Weights) -> None:
    scale = weights.weight / weights.spread
    scorer.mix.copy_(torch.from_numpy(scale).expand_as(scorer.mix))
    scorer.mix_bias.fill_(weights.bias - float(scale @ weights.centre))


def _set_decision(scorer: SurfaceScorer, weights: Weights, *, trained: bool) -> None:
    if trained:
        # Never not believed at all: a few views that contradict it shall not switch the score off.
        told = max(_LEAST_SLOPE, float(weights.weight[0])) / float(weights.spread[0])
        even = float(weights.centre[0]) - weights.bias / told
        for row, place in enumerate(_DECIDING):
            scorer.decision[row, place] = told
        scorer.decision_bias.fill_(-told * even)
        return
    scorer.usual.copy_(torch.from_numpy(weights.centre))
    scorer.unusual.copy_(torch.from_numpy(weights.spread))
    scorer.decision.copy_(torch.from_numpy(weights.weight).expand_as(scorer.decision))
    scorer.decision_bias.fill_(weights.bias)
