"""Fits a detector to what is there: normal images, and no, few or many labelled defects."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.defect_net import DefectNet
from tasks.defects.detect.config import DetectConfig, DetectError
from tasks.defects.detect.detector import Detector, check_pixels, tensor_of
from tasks.defects.detect.held_out import learn
from tasks.defects.detect.scorer import ScorerShape, SurfaceScorer, look
from tasks.defects.judgement import UNKNOWN
from tasks.defects.samples import Sample, parts_of

LOG = logging.getLogger(__name__)
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
) -> Detector:
    """Fit a detector.

    Args:
        samples: Normal images of at least two parts; defective ones with mask, boxes or neither;
            unlabelled ones are used by self-training alone.
        config: Settings.
        net: Backbone to start from, left as it is; the shipped one by default.
        head: Segmentation head of ``net``; the shipped one where the net is, else one that says no
            everywhere until it is trained.

    Raises:
        DetectError: Samples that no detector can be made of; says what is missing.
    """
    config = config or DetectConfig()
    known = sort_out(samples)
    if net is None:
        from tasks.defects.weights import load_mask_head, load_net

        net, head = load_net(), load_mask_head()
    rng = np.random.default_rng(config.seed)
    kinds = tuple(sorted({sample.kind for sample in known.defects} - {"", UNKNOWN}))
    scorer = SurfaceScorer(
        ScorerShape(
            net=net.shape,
            memory=config.memory,
            projected=config.projected,
            kinds=(*kinds, UNKNOWN),
        )
    )
    scorer.net.load_state_dict(net.state_dict())
    if head is None:
        nn.init.zeros_(scorer.head.weight)
        scorer.head.bias.data.fill_(-3.0)
    else:
        scorer.head.load_state_dict(head.state_dict())
    figures = learn(scorer, known.normals, known.defects, config, rng)
    _set_types(scorer, known.defects)
    provenance = {
        "normals": len(known.normals),
        "defects": len(known.defects),
        "parts": len(set(parts_of([*known.normals, *known.defects]))),
        "kinds": list(kinds),
        "samples_sha256": _digest(samples),
        "held_out": figures,
    }
    return Detector(scorer.eval(), config, provenance)


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
            features = look(scorer.net, tensor_of(sample.pixels)[None])
            logits = scorer.logits(scorer.maps(features))
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
