"""A small scorer with every part an edge file may hold, fitted to a generated line.

Net, convolution over the dense map for the heat, distance to a memory of normal patches by matrix
product, linear types over pooled features: enough to measure export, int8 and latency.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import DefectNet, Features, pooled
from tasks.defects.edge.preprocess import prepare_pixels
from tasks.defects.judgement import Thresholds
from tasks.defects.samples import Sample
from tasks.defects.scorer import Scorer, Scores


class ReferenceScorer(Scorer):
    """See the module."""

    def __init__(
        self, net: DefectNet, kinds: tuple[str, ...], size: tuple[int, int] | None, patches: int
    ) -> None:
        super().__init__(kinds, size)
        width = net.shape.widths[1]
        self.net = net
        self.heat = nn.Conv2d(net.shape.dense, 1, 3, padding=1)
        self.types = nn.Linear(2 * sum(net.shape.widths), len(kinds))
        self.register_buffer("memory", torch.zeros(width, patches))
        self.register_buffer("usual", torch.tensor([0.0, 1.0]))

    def patches(self, features: Features) -> Tensor:
        """Return [n, cells, channels] of the middle scale, a mean over 3 x 3 cells."""
        maps = functional.avg_pool2d(features.scales[1], 3, 1, 1)
        return maps.flatten(2).transpose(1, 2)

    def distances(self, features: Features) -> Tensor:
        """Return the distance to the nearest patch of the memory, [n, 1, h / 8, w / 8]."""
        patches = self.patches(features)
        squares = (patches**2).sum(2, keepdim=True) + (self.memory**2).sum(0)
        nearest = (squares - 2 * patches @ self.memory).amin(2)
        rows, columns = features.scales[1].shape[-2:]
        return nearest.clamp(min=1e-6).sqrt().view(-1, 1, rows, columns)

    def forward(self, pixels: Tensor) -> Scores:
        features = self.net(pixels)
        unusual = (self.distances(features) - self.usual[0]) / self.usual[1]
        size = features.dense.shape[-2:]
        unusual = functional.interpolate(unusual, size=size, mode="bilinear", align_corners=False)
        logit = self.heat(features.dense) + unusual
        score = functional.avg_pool2d(logit, 3, 1, 1).flatten(1).amax(1)
        kinds = self.types(pooled(features)).softmax(1)
        return Scores(score, torch.sigmoid(logit), kinds)


def fit_reference(
    net: DefectNet, samples: Sequence[Sample], size: tuple[int, int] | None, *, patches: int = 256
) -> ReferenceScorer:
    """Return a scorer with memory, heat and types fitted to labelled samples with masks."""
    torch.manual_seed(0)
    kinds = (*sorted({s.kind for s in samples if s.kind}), "unknown")
    scorer = ReferenceScorer(net, kinds, size, patches).eval()
    with torch.no_grad():
        seen = [net(prepare_pixels(s.pixels, size)) for s in samples]
        normal = [f for f, s in zip(seen, samples, strict=True) if s.label == "ok"]
        bank = torch.cat([scorer.patches(f)[0] for f in normal[::2]])
        picked = torch.randperm(len(bank), generator=torch.Generator().manual_seed(1))[:patches]
        scorer.memory.copy_(bank[picked].T)
        usual = torch.cat([scorer.distances(f).flatten() for f in normal[1::2]])
        scorer.usual.copy_(torch.stack([usual.mean() + 3 * usual.std(), usual.std()]))
    _fit_heat(scorer, seen, samples)
    _fit_types(scorer, seen, samples)
    return scorer


def _fit_heat(scorer: ReferenceScorer, seen: Sequence[Features], samples: Sequence[Sample]) -> None:
    dense = torch.cat([f.dense for f in seen])
    target = torch.zeros(len(seen), 1, *dense.shape[-2:])
    for place, sample in enumerate(samples):
        if sample.mask is not None:
            mask = torch.from_numpy(sample.mask.astype(np.float32))[None, None]
            target[place] = functional.adaptive_max_pool2d(mask, dense.shape[-2:])[0]
    optimiser = torch.optim.Adam(scorer.heat.parameters(), 0.02, weight_decay=1e-4)
    for _ in range(60):
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(
            scorer.heat(dense), target, pos_weight=torch.tensor(5.0)
        )
        loss.backward()
        optimiser.step()


def _fit_types(
    scorer: ReferenceScorer, seen: Sequence[Features], samples: Sequence[Sample]
) -> None:
    held = [(pooled(f), scorer.kinds.index(s.kind)) for f, s in zip(seen, samples, strict=True)
            if s.kind]  # fmt: skip
    if not held:
        return
    features, labels = torch.cat([f for f, _ in held]), torch.tensor([k for _, k in held])
    optimiser = torch.optim.Adam(scorer.types.parameters(), 0.01, weight_decay=1e-3)
    for _ in range(100):
        optimiser.zero_grad()
        functional.cross_entropy(scorer.types(features), labels).backward()
        optimiser.step()


def thresholds_of(scores: Sequence[float], samples: Sequence[Sample]) -> Thresholds:
    """Return thresholds with a band of doubt: where good and bad scores overlap, or between."""
    good = [x for x, s in zip(scores, samples, strict=True) if s.label == "ok"]
    bad = [x for x, s in zip(scores, samples, strict=True) if s.label == "ng"]
    ends = float(np.quantile(good, 0.95)), float(np.quantile(bad, 0.1))
    return Thresholds(min(ends), max(ends))
