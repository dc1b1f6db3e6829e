"""Labels unlabelled images where the detector is sure, by the share of defects among them.

The share comes from the scores themselves (Saerens et al., Neural Computation 14, 2002): scores are
odds for as many defects as normal images, which a line never has, and taking them as they come
would label far too many images defective. Who labels by a detector teaches it its own mistakes, so
`tasks.defects.detect.fit` keeps a round only where held-out labels are ranked no worse after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.defects.judgement import Judgement
from tasks.defects.samples import Sample

SURE = 0.95
_ROUNDS = 200
_EDGE = 1e-6
_DRAWN = 0.99


class Guessed(NamedTuple):
    """What unlabelled images most likely are.

    Attributes:
        normals: Labelled ok.
        defects: Labelled ng, with the hottest pixels as mask.
        share: Estimated share of defective ones among all.
    """

    normals: list[Sample]
    defects: list[Sample]
    share: float


def defective_share(scores: NDArray[np.float64]) -> float:
    """Return the likeliest share of defective images, given scores for even odds.

    >>> round(defective_share(np.array([0.99, 0.01, 0.01, 0.01])), 2)
    0.25
    """
    odds = np.clip(scores, _EDGE, 1 - _EDGE)
    odds = odds / (1 - odds)
    share = 0.5
    for _ in range(_ROUNDS):
        share = float(np.mean(posterior(odds, share)))
    return share


def posterior(odds: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return probabilities of a defect where that share of the images has one."""
    told = odds * share
    return np.asarray(told / (told + 1 - share))


def guess(samples: Sequence[Sample], judged: Sequence[Judgement]) -> Guessed:
    """Label those of which a detector is sure; never more defects than their share allows.

    Args:
        samples: Unlabelled images, at least one.
        judged: What the detector says of each.
    """
    scores = np.clip([one.score for one in judged], _EDGE, 1 - _EDGE)
    share = defective_share(scores)
    sure = posterior(scores / (1 - scores), share)
    most = round(share * len(samples))
    normals: list[Sample] = []
    defects: list[Sample] = []
    for place in np.argsort(-sure, kind="stable"):
        sample = samples[place]
        if sure[place] >= SURE and len(defects) < most:
            heat = judged[place].heat
            mask = (heat >= np.quantile(heat, _DRAWN)) & (heat > 0)
            if mask.any():
                defects.append(replace(sample, label="ng", mask=mask))
        elif sure[place] <= 1 - SURE:
            normals.append(replace(sample, label="ok"))
    return Guessed(normals, defects, share)
