"""Fits a detector of boxes to a few images with boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from models.defect_net import DefectNet
from tasks.defects.boxes.average_precision import edges_of
from tasks.defects.boxes.config import BoxConfig
from tasks.defects.boxes.detector import BoxDetector
from tasks.defects.boxes.pieces import BoxPieceMaker
from tasks.defects.boxes.scorer import BoxScorer, BoxShape
from tasks.defects.boxes.train import train
from tasks.defects.classify.descriptors import Cache
from tasks.defects.classify.fit import TypeClassifier, TypesConfig, fit_types
from tasks.defects.detect.config import DetectError
from tasks.defects.detect.detector import check_pixels
from tasks.defects.samples import Box, Sample
from tasks.defects.textures.line import boxes_of


def fit_boxes(
    samples: Sequence[Sample],
    config: BoxConfig | None = None,
    net: DefectNet | None = None,
    cache: Cache | None = None,
) -> BoxDetector:
    """Fit a detector of boxes.

    Args:
        samples: Images with boxes, or with masks, each piece of which gets a box. Good ones
            (``ok``) show what is none. Defective ones with neither are left aside.
        config: Settings.
        net: Backbone to start from, left as it is; the shipped one by default.
        cache: Descriptors of `tasks.defects.classify.descriptors.describe` by digest.

    Raises:
        DetectError: No box at all, or an image that cannot be judged; says what is missing.
    """
    config = config or BoxConfig()
    for sample in samples:
        check_pixels(sample.pixels, sample.name)
    known = [with_boxes(sample) for sample in samples]
    known = [sample for sample in known if sample.boxes or sample.label == "ok"]
    boxes = [box for sample in known for box in sample.boxes]
    if not boxes:
        raise DetectError(
            f"none of {len(samples)} images has a box or a mask; draw a box around at least one "
            "defect"
        )
    if net is None:
        from tasks.defects.weights import load_net

        net = load_net()
    kinds = tuple(sorted({box.kind for box in boxes}))
    small = [brought_down(sample, config.side) for sample in known]
    scorer = _start(net, kinds, small, config)
    rng = np.random.default_rng(config.seed)
    loss = train(scorer, BoxPieceMaker(small, kinds, config, rng).batch, config)
    provenance = {
        "images": len(known),
        "left_aside": len(samples) - len(known),
        "boxes": dict(sorted(Counter(box.kind for box in boxes).items())),
        "loss": loss,
    }
    return BoxDetector(scorer, _types(known, kinds, config, cache), config, provenance)


def with_boxes(sample: Sample) -> Sample:
    """Return the sample with a box around each piece of its mask, where it has none yet."""
    boxes = sample.boxes
    if not boxes and sample.mask is not None:
        boxes = boxes_of(sample.mask, sample.kind)
    named = (replace(box, kind=box.kind or sample.kind) for box in boxes)
    height, width = sample.pixels.shape[:2]
    cut = [
        (box, max(0.0, box.left), max(0.0, box.top), min(width, box.right), min(height, box.bottom))
        for box in named
    ]
    inside = tuple(
        Box(left, top, right, bottom, box.kind, box.score)
        for box, left, top, right, bottom in cut
        if left < right and top < bottom
    )
    return replace(sample, boxes=inside)


def brought_down(sample: Sample, side: int) -> Sample:
    """Return the sample with its longest side at most ``side``, its boxes likewise; no mask."""
    height, width = sample.pixels.shape[:2]
    zoom = side / max(height, width)
    if zoom >= 1:
        return sample
    from PIL import Image

    size = max(8, round(width * zoom)), max(8, round(height * zoom))
    small = np.asarray(Image.fromarray(sample.pixels).resize(size, Image.Resampling.BILINEAR))
    x, y = size[0] / width, size[1] / height
    boxes = tuple(
        replace(box, left=box.left * x, right=box.right * x, top=box.top * y, bottom=box.bottom * y)
        for box in sample.boxes
    )
    return replace(sample, pixels=small, boxes=boxes, mask=None)


def _start(
    net: DefectNet, kinds: tuple[str, ...], samples: Sequence[Sample], config: BoxConfig
) -> BoxScorer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        found = BoxScorer(BoxShape(net=net.shape, kinds=kinds))
    found.net.load_state_dict(net.state_dict())
    edges = np.concatenate([edges_of(sample.boxes) for sample in samples])
    found.usual.copy_(torch.from_numpy(np.median(edges[:, 2:] - edges[:, :2], axis=0)))
    return found


def _types(
    samples: Sequence[Sample], kinds: tuple[str, ...], config: BoxConfig, cache: Cache | None
) -> TypeClassifier | None:
    """Learn the types of whole images: the type of each is that with most area in boxes."""
    if len(kinds) < 2 or not config.evidence or "" in kinds:
        return None
    named = []
    for sample in samples:
        areas: Counter[str] = Counter()
        for box in sample.boxes:
            areas[box.kind] += (box.right - box.left) * (box.bottom - box.top)  # type: ignore[assignment]
        if areas:
            named.append(replace(sample, kind=areas.most_common(1)[0][0]))
    return fit_types(named, TypesConfig(false_unknown=0.0, nearest=0), cache=cache)
