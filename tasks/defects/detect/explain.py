"""Why a detector gave an image its score: exact values of its cells, their map, and a few words.

The score is a logistic function of a weighted sum of means of the highest cells of several maps
(``scorer.py``). In the game of one such mean an absent cell has the mean's usual value on good
images; its Shapley values are known in closed form (``kernels.shapley.top_mean``). Values of a
weighted sum of games are the weighted sums of the values, so every cell has its exact value, and
they add up to the log-odds less those of good images. Of the scorer's two sums the larger one is
explained, as it alone made the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.shapley.top_mean import top_mean_values
from tasks.defects.detect.detector import Detector, check_pixels, tensor_of
from tasks.defects.detect.finetune import highest_count
from tasks.defects.detect.memory import squared_distance
from tasks.defects.detect.scorer import COUNTS, SurfaceScorer, statistics
from tasks.defects.edge.tiles import tiles
from tasks.defects.judgement import Verdict
from tasks.defects.samples import Pixels, Sample
from tasks.explain.additivity import check_additivity

Floats = NDArray[np.float64]
MAIN_SHARE = 0.5
"""Part of what raised the score by whose strongest pixels the named piece is cut out."""
_PLACES = (("upper", "middle", "lower"), ("left", "centre", "right"))


@dataclass(frozen=True, slots=True)
class SimilarPatch:
    """A patch of a good image that is like the patch of most weight.

    Attributes:
        name: Of the good image.
        row: Of its middle, pixels.
        column: Of its middle, pixels.
        distance: In the features that the detector remembers patches by; 0 is the same.
    """

    name: str
    row: int
    column: int
    distance: float


@dataclass(frozen=True, slots=True, eq=False)
class DefectExplanation:
    """What each cell of an image added to the log-odds of its score.

    Attributes:
        values: Exact Shapley value of each cell, ``[h, w]``, in log-odds; base plus their sum is
            `log_odds`.
        window: Rows and columns of the image that the cells cover: all, or the worst tile.
        map: The values spread over the pixels ``[H, W]``; they add up to the same.
        log_odds: Of the score, before rounding to its range.
        score: Of the image, in [0, 1].
        base: Log-odds of an image whose every mean is that of good images.
        above: Log-odds above the limit from which on an image is NG; None without one in (0, 1).
        gap: Largest ``|base + sum of values - log_odds|``.
        verdict: By the detector's thresholds.
        kind: Likeliest type of defect, "" where the detector knows none.
        region: Box (top, left, bottom, right) of the piece with most weight, in pixels.
        share: Part of all that raised the score which lies in that piece.
        similar: Most similar patches of good images, nearest first.
    """

    values: Floats
    window: tuple[slice, slice]
    map: Floats
    log_odds: float
    score: float
    base: float
    above: float | None
    gap: float
    verdict: Verdict
    kind: str
    region: tuple[int, int, int, int]
    share: float
    similar: tuple[SimilarPatch, ...]

    @property
    def words(self) -> str:
        """One or two sentences for an inspector."""
        return _words(self)

    def to_shap(self, pixels: Pixels) -> Any:
        """Return a ``shap.Explanation`` ``[1, H, W, 1]`` for ``shap.image_plot``."""
        import shap

        data = pixels.reshape(1, *pixels.shape[:2], -1)
        base = np.array([self.base])
        return shap.Explanation(self.map[None, :, :, None], base_values=base, data=data)


@torch.inference_mode()
def explain_defects(
    detector: Detector, pixels: Pixels, good: Sequence[Sample] = (), similar: int = 3
) -> DefectExplanation:
    """Explain the score of one image.

    Args:
        detector: A fitted detector.
        pixels: uint8 [h, w] or [h, w, 3], as `Detector.judge` takes them. An image that is judged
            in tiles has the score of the worst one, which is explained.
        good: Good images among which similar patches are looked for.
        similar: How many of them to name.

    Raises:
        DetectError: An image that cannot be judged; says why.
        AdditivityError: When the values miss the score.
    """
    check_pixels(pixels, "image")
    scorer = detector.scorer
    # The score of an image is that of its worst tile, and of it the larger one of both sums.
    looks = [
        (window, _look(scorer, pixels[window]))
        for window in tiles(pixels.shape[0], pixels.shape[1], detector.config.side)
    ]
    window, seen = max(looks, key=lambda each: each[1].score)
    maps, sums = seen.maps, _sums(scorer, seen.maps)
    branch = int(sums.argmax())
    values = _cell_values(scorer, maps, branch)
    base = float(scorer.decision_bias[0])
    log_odds = base + float(sums[branch])
    gap = check_additivity(values.reshape(1, -1), base, np.array([log_odds]))
    whole = np.zeros(pixels.shape[:2])
    whole[window] = spread(values, whole[window].shape)
    region, share = _main_piece(whole)
    limit = detector.thresholds.ng_from if detector.thresholds else None
    return DefectExplanation(
        values,
        window,
        whole,
        log_odds,
        seen.score,
        base,
        None if limit is None or not 0 < limit < 1 else log_odds - math.log(limit / (1 - limit)),
        gap,
        detector.thresholds.verdict(seen.score) if detector.thresholds else "REVIEW",
        seen.kind,
        region,
        share,
        _similar(scorer, pixels[window], values, good, similar),
    )


def spread(values: Floats, size: tuple[int, ...]) -> Floats:
    """Return cells ``[h, w]`` spread over pixels ``[H, W]`` of any larger size, smoothly.

    Each cell's value is divided among its own pixels, and then blurred by half a cell with mirrored
    borders: neither changes the sum.
    """
    from scipy.ndimage import gaussian_filter

    places = [np.arange(n) * cells // n for n, cells in zip(size, values.shape, strict=True)]
    counts = [np.bincount(each, minlength=n) for each, n in zip(places, values.shape, strict=True)]
    each_pixel = values / (counts[0][:, None] * counts[1])
    sigma = [n / cells / 2 for n, cells in zip(size, values.shape, strict=True)]
    whole = each_pixel[places[0][:, None], places[1]]
    return np.asarray(gaussian_filter(whole, sigma, mode="reflect"))


class _Look(NamedTuple):
    """What a scorer says of one tile, and the maps ``[1, sources, h, w]`` that it says so by."""

    maps: torch.Tensor
    score: float
    kind: str


def _look(scorer: SurfaceScorer, pixels: Pixels) -> _Look:
    tensor = tensor_of(pixels)[None]
    features = scorer.net(tensor)
    maps = scorer.maps(features, tensor)
    kinds = scorer.types(scorer.impression(features, scorer.logits(maps)))[0]
    score = float(scorer.decide(statistics(maps))[0])
    return _Look(maps.double(), score, scorer.kinds[int(kinds.argmax())])


def _sums(scorer: SurfaceScorer, maps: torch.Tensor) -> Floats:
    """Return both weighted sums of standardised statistics ``[2]``."""
    found = (statistics(maps)[0] - scorer.usual) / scorer.unusual
    sums: Floats = (scorer.decision.double() @ found).numpy()
    return sums


def _cell_values(scorer: SurfaceScorer, maps: torch.Tensor, branch: int) -> Floats:
    weights = (scorer.decision[branch].double() / scorer.unusual).numpy()
    levels = maps[0].flatten(1).numpy()
    values = np.zeros(levels.shape[1])
    for place, (weight, usual) in enumerate(zip(weights, scorer.usual.tolist(), strict=True)):
        if weight:
            source, count = divmod(place, len(COUNTS))
            cells = highest_count(COUNTS[count], levels.shape[1])
            values += weight * top_mean_values(levels[source], cells, usual)
    return values.reshape(maps.shape[2:])


def _main_piece(whole: Floats) -> tuple[tuple[int, int, int, int], float]:
    """Return box and share of the connected piece with most of what raised the score."""
    from scipy.ndimage import find_objects, label

    raised = np.maximum(whole, 0)
    total = raised.sum()
    if not total > 0:
        return (0, 0, 0, 0), 0.0
    falling = np.sort(raised.ravel())[::-1]
    level = falling[np.searchsorted(np.cumsum(falling), MAIN_SHARE * total)]
    pieces, _ = label(raised >= level)
    weights = np.bincount(pieces.ravel(), raised.ravel())
    weights[0] = 0
    best = int(weights.argmax())
    down, right = find_objects(pieces)[best - 1]
    box = (int(down.start), int(right.start), int(down.stop), int(right.stop))
    return box, float(weights[best] / total)


def _similar(
    scorer: SurfaceScorer, pixels: Pixels, values: Floats, good: Sequence[Sample], count: int
) -> tuple[SimilarPatch, ...]:
    """Return the patches of good images nearest to the patch of most weight, one of each image."""
    if not good or count < 1:
        return ()
    own, _ = _patches(scorer, pixels)
    query = own[int(values.argmax())]
    found = []
    for sample in good:
        check_pixels(sample.pixels, sample.name)
        patches, (rows, columns) = _patches(scorer, sample.pixels)
        apart = squared_distance(patches, query[None])
        row, column = divmod(int(apart.argmin()), columns)
        height, width = sample.pixels.shape[:2]
        middle = (int((row + 0.5) * height / rows), int((column + 0.5) * width / columns))
        found.append(SimilarPatch(sample.name, *middle, float(apart.min()) ** 0.5))
    return tuple(sorted(found, key=lambda one: (one.distance, one.name))[:count])


def _patches(scorer: SurfaceScorer, pixels: Pixels) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return projected patches ``[cells, projected]`` and rows and columns."""
    found = scorer.evidence.reduced(scorer.net(tensor_of(pixels)[None]))[:, :-1]
    return found.flatten(2)[0].t(), (int(found.shape[2]), int(found.shape[3]))


def _words(found: DefectExplanation) -> str:
    if not found.share:
        return f"Score {found.score:.3f}: no cell raised it above that of good images."
    top, left, bottom, right = found.region
    height, width = found.map.shape
    row = _PLACES[0][min(2, 3 * (top + bottom) // (2 * height))]
    column = _PLACES[1][min(2, 3 * (left + right) // (2 * width))]
    kind = f" ({found.kind})" if found.kind else ""
    said = (
        f"Score {found.score:.3f}{kind}, {found.verdict}: {100 * found.share:.0f} % of what raised "
        f"it lies {row} {column}, {bottom - top} x {right - left} pixels from row {top}, column "
        f"{left}."
    )
    if found.above is not None:
        side = "above" if found.above >= 0 else "below"
        said += f" The log-odds are {abs(found.above):.2f} {side} the limit for NG."
    if found.similar:
        near = found.similar[0]
        said += (
            f" The most similar good patch: {near.name}, row {near.row}, column {near.column}, "
            f"distance {near.distance:.2f}."
        )
    return said
