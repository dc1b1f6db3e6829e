"""The deployable part of a detector: pixels in, score, heat map and types out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.defect_net import DefectNet, DefectNetShape, Features
from tasks.defects.detect.evidence import MAPS, Evidence
from tasks.defects.detect.far import look_far
from tasks.defects.detect.finetune import highest
from tasks.defects.judgement import UNKNOWN
from tasks.defects.scorer import Scorer, Scores

COUNTS = (4, 64, 0.05)
"""Numbers or share of highest cells whose means are looked at: a pit, a crack, a stain."""
TRAINED = ("spot", "area")
"""Maps of the net's own segmentation."""
SOURCES = (*TRAINED, *MAPS)
STATISTICS = tuple(f"{name}_{count}" for name in SOURCES for count in COUNTS)
_COARSE = (0.25, 0.5)
"""Share of the far look in each of them."""
_SMOOTH = 9
"""Cells over which the map of areas is averaged in the heat: an area is no smaller."""
_HELD = 16
"""Cells that the type of a defect is told by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerShape:
    """Sizes of a scorer; with them its state can be loaded.

    Attributes:
        net: Of the backbone.
        memory: Patches remembered.
        projected: Numbers per patch.
        kinds: Names of the types; the last is ``unknown``.
    """

    net: DefectNetShape
    memory: int
    projected: int
    kinds: tuple[str, ...] = (UNKNOWN,)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if not self.kinds or self.kinds[-1] != UNKNOWN or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds are {self.kinds}; name each once, and {UNKNOWN!r} last")


class SurfaceScorer(Scorer):
    """Judges images of any size by the net's segmentation and by evidence from its features.

    Attributes:
        net: Backbone and neck.
        head: Segmentation, the logits of spots and of areas.
        coarse: float [2], share of the far look in each.
        evidence: Maps that need few labels or none.
        mix: float [2, len(SOURCES)], weights of the maps in the heat; `mix_bias` beside it.
        decision: float [2, len(STATISTICS)], weights of the statistics in the score; standardised
            by `usual` and `unusual`, `decision_bias` beside it. Of both sums the larger counts,
            in the heat as well: a spot is a defect whatever the map of areas says.
        prototypes: float [len(kinds) - 1, dense], mean whitened features of each type.
        reach: Squared distance from which on a defect is rather of no known type.
    """

    def __init__(self, shape: ScorerShape, size: tuple[int, int] | None = None) -> None:
        super().__init__(shape.kinds, size)
        self.shape = shape
        self.net = DefectNet(shape.net)
        self.head = nn.Conv2d(shape.net.dense, len(TRAINED), 1)
        self.coarse = nn.Parameter(torch.tensor(_COARSE), requires_grad=False)
        self.evidence = Evidence(shape.net, shape.memory, shape.projected)
        self.mix, self.mix_bias = _fixed(2, len(SOURCES)), _fixed(1)
        self.usual, self.unusual = _fixed(len(STATISTICS)), _fixed(len(STATISTICS), value=1.0)
        self.decision, self.decision_bias = _fixed(2, len(STATISTICS)), _fixed(1)
        self.prototypes = _fixed(len(shape.kinds) - 1, shape.net.dense)
        self.reach = _fixed(1, value=1.0)

    def forward(self, pixels: Tensor) -> Scores:
        """Judge float [n, 3, h, w] in [0, 1]."""
        features = self.net(pixels)
        maps = self.maps(features, pixels)
        logits = self.logits(maps)
        kinds = self.types(self.impression(features, logits))
        return Scores(self.decide(statistics(maps)), logits.sigmoid(), kinds)

    def maps(self, features: Features, pixels: Tensor) -> Tensor:
        """Return float [n, len(SOURCES), h / 4, w / 4].

        Args:
            features: Of the pixels.
            pixels: Seen once more at about half the size, see `far.py`.
        """
        own: Tensor = self.head(features.dense)
        coarse = look_far(
            lambda squares: self.head(self.net(squares).dense), pixels, own.shape[-2:]
        )
        share = self.coarse[:, None, None]
        return torch.cat([own + share * (coarse - own), self.evidence(features)], dim=1)

    def logits(self, maps: Tensor) -> Tensor:
        """Return the logits of the heat, [n, 1, h / 4, w / 4]."""
        return heat(maps, self.mix) + self.mix_bias

    def decide(self, found: Tensor) -> Tensor:
        """Return the scores [n] of statistics [n, len(STATISTICS)]."""
        told = ((found - self.usual) / self.unusual) @ self.decision.t()
        return (torch.maximum(told[:, 0], told[:, 1]) + self.decision_bias).sigmoid()

    def impression(self, features: Features, logits: Tensor) -> Tensor:
        """Return whitened features [n, dense], the mean of the cells of highest heat."""
        flat = logits.flatten(2)
        place = flat.topk(min(_HELD, flat.shape[2]), dim=2).indices
        dense = features.dense.flatten(2)
        cells = dense.gather(2, place.expand(-1, dense.shape[1], -1))
        # Whitening is linear: of the mean it costs 16 cells less, and thousands less than of all.
        white = self.evidence.whitened(cells.mean(dim=2)[:, :, None, None])
        return white[:, :, 0, 0]

    def types(self, impression: Tensor) -> Tensor:
        """Return probabilities [n, len(kinds)]: a soft nearest prototype, or none of them."""
        apart = impression[:, None, :] - self.prototypes[None]
        known = apart.square().sum(dim=2)
        unknown = self.reach.expand(len(impression), 1)
        closeness: Tensor = -4 * torch.cat([known, unknown], dim=1) / self.reach
        return closeness.softmax(dim=1)


def heat(maps: Tensor, mix: Tensor) -> Tensor:
    """Return the larger of both weighted sums, [n, 1, h, w]; of areas by their mean around a cell.

    Args:
        maps: float [n, k, h, w] of the first k of `SOURCES`, of all trained ones at least.
        mix: float [2, k].
    """
    place = TRAINED.index("area")
    smooth = maps[:, place : place + 1]
    # Means of columns, then of rows: ONNX Runtime takes 1 ms for both ways at once, .2 so.
    for sides, beside in (((_SMOOTH, 1), (_SMOOTH // 2, 0)), ((1, _SMOOTH), (0, _SMOOTH // 2))):
        smooth = functional.avg_pool2d(smooth, sides, 1, beside, count_include_pad=False)
    maps = torch.cat([maps[:, :place], smooth, maps[:, place + 1 :]], dim=1)
    first, second = ((maps * one[:, None, None]).sum(dim=1, keepdim=True) for one in mix)
    return torch.maximum(first, second)


def statistics(maps: Tensor) -> Tensor:
    """Return the means of the highest cells of each map, float [n, len(STATISTICS)]."""
    each = [highest(maps[:, [place]], count) for place in range(maps.shape[1]) for count in COUNTS]
    return torch.stack(each, dim=1)


def _fixed(*shape: int, value: float = 0.0) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, value), requires_grad=False)
