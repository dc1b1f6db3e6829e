"""A detector without what its answers do not rest on.

Where the net was trained on the line it decides alone: memory, Fisher direction and distance have
no weight in score or heat, and would only slow the edge down. They are left out here, with the
statistics that weigh nothing, and what is linear is folded: each of the two looks gets a
segmentation head of its own with its share in it, and the statistics come standardised.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tasks.defects.detect.far import look_far
from tasks.defects.detect.finetune import highest
from tasks.defects.detect.scorer import COUNTS, TRAINED, SurfaceScorer, heat
from tasks.defects.scorer import Scorer, Scores

_OWN = len(TRAINED) * len(COUNTS)
"""Statistics of the net's own maps, which come first."""


class TrimmedScorer(Scorer):
    """A `SurfaceScorer` of whose maps the net's own alone weigh anything."""

    def __init__(self, whole: SurfaceScorer) -> None:
        super().__init__(whole.kinds, whole.size)
        self.whole = whole
        self.near, self.far = (_scaled(whole.head, s) for s in (1 - whole.coarse, whole.coarse))
        self.mix = _fixed(whole.mix[:, : len(TRAINED)])
        self.used = [place for place in range(_OWN) if whole.decision[:, place].any()]
        weight = whole.decision / whole.unusual
        self.weight = _fixed(weight[:, self.used].t())
        self.bias = _fixed(whole.decision_bias - weight @ whole.usual)

    def forward(self, pixels: Tensor) -> Scores:
        """Judge float [n, 3, h, w] in [0, 1]."""
        features = self.whole.net(pixels)
        maps = self.near(features.dense) + look_far(
            lambda squares: self.far(self.whole.net(squares).dense),
            pixels,
            features.dense.shape[-2:],
        )
        logits = heat(maps, self.mix) + self.whole.mix_bias
        kinds = self.whole.types(self.whole.impression(features, logits))
        return Scores(self.decide(maps), logits.sigmoid(), kinds)

    def decide(self, maps: Tensor) -> Tensor:
        """Return the scores [n] of maps [n, len(TRAINED), h / 4, w / 4]."""
        places = (divmod(place, len(COUNTS)) for place in self.used)
        each = [highest(maps[:, one : one + 1], COUNTS[count]) for one, count in places]
        told = torch.stack(each, dim=1) @ self.weight + self.bias
        return torch.maximum(told[:, 0], told[:, 1]).sigmoid()


def trimmed(scorer: Scorer) -> Scorer:
    """Return a scorer with the same answers, without what weighs nothing in them."""
    if not isinstance(scorer, SurfaceScorer) or not scorer.decision[:, :_OWN].any():
        return scorer
    if scorer.mix[:, len(TRAINED) :].any() or scorer.decision[:, _OWN:].any():
        return scorer
    return TrimmedScorer(scorer).eval()


def _scaled(head: nn.Conv2d, share: Tensor) -> nn.Conv2d:
    """Return the head with each of its maps multiplied."""
    made = nn.Conv2d(head.in_channels, head.out_channels, 1)
    with torch.no_grad():
        for own, given in zip(made.parameters(), head.parameters(), strict=True):
            own.copy_(given * share.view(-1, *(1,) * (given.ndim - 1)))
    return made


def _fixed(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(), requires_grad=False)
