"""How well scores and heat maps tell defects from good surface: AUROC and AUPRO.

AUPRO is the per-region overlap of Bergmann et al. (MVTec AD, IJCV 2021): the mean share of each
connected defect that lies above a threshold, integrated over the false-positive rate up to 30 % and
divided by it, so that a small defect counts as much as a large one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.defects.judgement import Heat
from tasks.defects.samples import Mask

LEVELS = 4_096
"""Levels that heat is counted in, at quantiles of it; an AUROC is off by less than one of them."""
FPR_LIMIT = 0.3
_SHARE = 2_000


def auroc(scores: ArrayLike, defective: ArrayLike) -> float:
    """Return the chance that a defective image scores higher than a good one, ties half.

    Args:
        scores: float [n].
        defective: bool [n].

    Raises:
        ValueError: Only good or only defective ones.
    """
    from scipy.stats import rankdata

    truth = np.asarray(defective, dtype=bool)
    bad, good = int(truth.sum()), int((~truth).sum())
    if not bad or not good:
        raise ValueError(f"{good} good and {bad} defective: an AUROC needs at least one of each")
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    return float((ranks[truth].sum() - bad * (bad + 1) / 2) / (bad * good))


def heat_metrics(heats: Sequence[Heat], masks: Sequence[Mask]) -> tuple[float, float]:
    """Return pixel AUROC and AUPRO of heat maps over all their pixels together.

    Args:
        heats: float32 [h, w] each; a map of another size is brought to its mask's, linearly.
        masks: bool [h, w] each, true on the defect.

    Raises:
        ValueError: No defect or no good pixel among the masks, or lists of unlike lengths.
    """
    if len(heats) != len(masks):
        raise ValueError(f"{len(heats)} heat maps but {len(masks)} masks")
    edges = _edges(heats)
    good = np.zeros(len(edges) + 1, dtype=np.int64)
    bad = np.zeros_like(good)
    regions: list[NDArray[np.float64]] = []
    for heat, mask in zip(heats, masks, strict=True):
        level = np.searchsorted(edges, resized(heat, mask.shape), side="right")
        good += np.bincount(level[~mask], minlength=len(good))
        for region in _regions(mask):
            inside = np.bincount(level[region], minlength=len(good))
            bad += inside
            regions.append(_above(inside))
    if not bad.any() or not good.any():
        raise ValueError("the masks need at least one defect and one good pixel")
    false, true = _above(good), _above(bad)
    return float(np.trapezoid(true, false)), _up_to(false, np.mean(regions, axis=0), FPR_LIMIT)


def resized(heat: Heat, shape: tuple[int, ...]) -> Heat:
    """Return the map at another height and width, linear in between."""
    if heat.shape == shape:
        return heat
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(heat, dtype=np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _edges(heats: Sequence[Heat]) -> Heat:
    """Return thresholds at quantiles of a sample, the same number of each map."""
    some = [heat.ravel()[:: max(1, heat.size // _SHARE)] for heat in heats]
    values = np.concatenate(some) if some else np.zeros(1, dtype=np.float32)
    # Defects are few: half of the levels go to the upper tail, where the thresholds lie.
    at = np.concatenate([np.linspace(0, 1, LEVELS // 2), 1 - np.geomspace(1e-6, 1, LEVELS // 2)])
    return np.asarray(np.unique(np.quantile(values, np.sort(at))), dtype=np.float32)


def _regions(mask: Mask) -> list[Mask]:
    from scipy.ndimage import label

    named, count = label(mask, structure=np.ones((3, 3)))
    return [named == number for number in range(1, count + 1)]


def _above(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share above each threshold, from the highest threshold down, 0 first."""
    from_top = np.concatenate([[0], np.cumsum(counts[::-1])])
    return np.asarray(from_top / max(1, from_top[-1]), dtype=np.float64)


def _up_to(false: NDArray[np.float64], true: NDArray[np.float64], limit: float) -> float:
    last = int(np.searchsorted(false, limit, side="right"))
    x = np.append(false[:last], limit)
    y = np.append(true[:last], np.interp(limit, false, true))
    return float(np.trapezoid(y, x) / limit)
