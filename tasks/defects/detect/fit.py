"""Fits a detector to what is there: normal images, and no, few or many labelled defects."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.defect_net import DefectNet
from tasks.defects.detect.config import DetectConfig, DetectError
from tasks.defects.detect.detector import Detector, check_pixels, tensor_of
from tasks.defects.detect.held_out import learn
from tasks.defects.detect.scorer import TRAINED, ScorerShape, SurfaceScorer
from tasks.defects.detect.self_train import Guessed, guess
from tasks.defects.judgement import UNKNOWN
from tasks.defects.samples import Sample, parts_of
from tasks.defects.short_training import Listen

LEAST_NORMALS = 2


class Known(NamedTuple):
    """Samples by what is known of them."""

    normals: list[Sample]
    defects: list[Sample]
    unlabelled: list[Sample]


def fit(
    samples: Sequence[Sample],
    config: DetectConfig | None = None,
    net: DefectNet | None = None,
    head: nn.Conv2d | None = None,
    listen: Listen = lambda _step, _loss: None,
) -> Detector:
    """Fit a detector.

    Args:
        samples: Normal images of at least two parts; defective ones with mask, boxes or neither;
            unlabelled ones are used by self-training alone.
        config: Settings.
        net: Backbone to start from, left as it is; the shipped one by default.
        head: Segmentation head of ``net``, one logit per cell; both maps start from it. The shipped
            one where the net is, else one that says no everywhere until it is trained.
        listen: Called with each step of the training of net and head, and its loss; self-training
            begins anew at step 0.

    Raises:
        DetectError: Samples that no detector can be made of; says what is missing.
    """
    config = config or DetectConfig()
    known = sort_out(samples)
    if net is None:
        from tasks.defects.weights import load_mask_head, load_net

        net, head = load_net(), load_mask_head()
    start = _start(net, head, known, config)
    detector, figures = _fitted(start, known, config, listen)
    rounds = []
    for _ in range(config.self_train):
        apart = _of_other_parts(known)
        if not apart:
            break
        guessed = guess(apart, detector.judge([sample.pixels for sample in apart]))
        next_one, found = _fitted(start, known, config, listen, guessed)
        key = "auroc" if known.defects else "auroc_synthetic"
        kept = found.get(key, 0.0) >= figures.get(key, 0.0)
        told = {"share": guessed.share, "kept": kept, key: found.get(key)}
        rounds.append(told | {"normals": len(guessed.normals), "defects": len(guessed.defects)})
        if not kept:
            break
        detector, figures = next_one, found
    provenance = {
        "normals": len(known.normals),
        "defects": len(known.defects),
        "unlabelled": len(known.unlabelled),
        "parts": len(set(parts_of([*known.normals, *known.defects]))),
        "samples_sha256": _digest(samples),
        "held_out": figures,
        "self_training": rounds,
    }
    return replace(detector, provenance=provenance)


def _start(
    net: DefectNet, head: nn.Conv2d | None, known: Known, config: DetectConfig
) -> SurfaceScorer:
    kinds = tuple(sorted({sample.kind for sample in known.defects} - {"", UNKNOWN}))
    found = SurfaceScorer(
        ScorerShape(
            net=net.shape,
            memory=config.memory,
            projected=config.projected,
            kinds=(*kinds, UNKNOWN),
        )
    )
    found.net.load_state_dict(net.state_dict())
    if head is None:
        head = nn.Conv2d(net.shape.dense, 1, 1)
        for one, value in zip(head.parameters(), (0.0, -3.0), strict=True):
            nn.init.constant_(one, value)
    with torch.no_grad():
        for own, given in zip(found.head.parameters(), head.parameters(), strict=True):
            own.copy_(given.expand(len(TRAINED), *given.shape[1:]))
    return found


def _fitted(
    start: SurfaceScorer,
    known: Known,
    config: DetectConfig,
    listen: Listen,
    guessed: Guessed | None = None,
) -> tuple[Detector, dict[str, float]]:
    """Return a detector, and its figures by held-out labels; the same folds every time."""
    scorer = copy.deepcopy(start)
    rng = np.random.default_rng(config.seed)
    more = (guessed.normals, guessed.defects) if guessed else ((), ())
    figures = learn(scorer, known.normals, known.defects, config, rng, more, listen)
    _set_types(scorer, known.defects)
    return Detector(scorer.eval(), config), figures


def _of_other_parts(known: Known) -> list[Sample]:
    """Return the unlabelled samples of parts without a label, which no fold holds out."""
    labelled = set(parts_of([*known.normals, *known.defects]))
    parts = parts_of(known.unlabelled)
    return [s for s, part in zip(known.unlabelled, parts, strict=True) if part not in labelled]


def sort_out(samples: Sequence[Sample]) -> Known:
    """Return the samples by what is known of them.

    Raises:
        DetectError: Images that cannot be judged, names that repeat, or too few normal parts.
    """
    seen: set[str] = set()
    for sample in samples:
        check_pixels(sample.pixels, sample.name)
        if sample.name in seen:
            raise DetectError(f"two samples are named {sample.name!r}; give each its own name")
        seen.add(sample.name)
    known = Known(
        [sample for sample in samples if sample.label == "ok"],
        [sample for sample in samples if sample.label == "ng"],
        [sample for sample in samples if sample.label is None],
    )
    parts = len(set(parts_of(known.normals)))
    if parts < LEAST_NORMALS:
        raise DetectError(
            f"{len(known.normals)} normal images of {parts} parts, {len(known.defects)} defective, "
            f"{len(known.unlabelled)} unlabelled: label at least {LEAST_NORMALS} parts as ok"
        )
    return known


@torch.no_grad()
def _set_types(scorer: SurfaceScorer, defects: Sequence[Sample]) -> None:
    """Set a prototype per type, and how far from it a defect is rather of none."""
    dense = scorer.shape.net.dense
    seen: dict[str, list[Tensor]] = {kind: [] for kind in scorer.kinds[:-1]}
    for sample in defects:
        if sample.kind in seen:
            pixels = tensor_of(sample.pixels)[None]
            features = scorer.net(pixels)
            logits = scorer.logits(scorer.maps(features, pixels))
            seen[sample.kind].append(scorer.impression(features, logits)[0])
    apart: list[float] = []
    for place, each in enumerate(seen.values()):
        middle = torch.stack(each).mean(dim=0)
        scorer.prototypes[place] = middle
        if len(each) > 1:
            grown = (len(each) / (len(each) - 1)) ** 2  # its own share in the mean taken out
            apart += [grown * float((one - middle).square().sum()) for one in each]
    # Without two of a type: twice the squared length of what is normal.
    scorer.reach.fill_(float(np.quantile(apart, 0.9)) if apart else 2.0 * dense)


def _digest(samples: Sequence[Sample]) -> str:
    """Return SHA-256 over names, labels and pixels, in order of names."""
    found = hashlib.sha256()
    for sample in sorted(samples, key=lambda one: one.name):
        found.update(f"{sample.name}\0{sample.label}\0{sample.kind}\0".encode())
        found.update(np.ascontiguousarray(sample.pixels).tobytes())
    return found.hexdigest()
