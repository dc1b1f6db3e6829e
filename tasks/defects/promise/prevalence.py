"""The share of defective parts among unlabelled ones, by the scores of both sides.

Adjusted counting (Forman, Data Mining and Knowledge Discovery 2008): the share above a threshold is
a mixture of the shares of the two sides there, and is solved for the mixture at the threshold that
tells the sides best apart. It takes for granted that scores of either side are as they were in the
calibration: what `compare` and the watch look after.
"""

from __future__ import annotations

import numpy as np

from tasks.defects.promise.parts import Floats, Scored, part_scores
from tasks.defects.promise.rates import Rate

LEAST_APART = 0.2
"""Of the two shares; below, the quotient is noise."""


def estimate_prevalence(
    ng: Scored, ok: Scored, unlabelled: Scored, *, draws: int = 500, seed: int = 0
) -> Rate:
    """Return the share of defective parts with a 95 % bootstrap interval by part.

    Every part counts by one image of it, drawn at random.

    Args:
        ng: Defective images, not seen by the model.
        ok: Good images, likewise.
        unlabelled: Images of the line; parts are drawn as they come.
        draws: Of the bootstrap.
        seed: Of it, and of the images.

    Raises:
        ValueError: A side is empty, or scores do not tell the sides apart.
    """
    sides = [part_scores(one, "escape", "one image", seed) for one in (ng, ok, unlabelled)]
    if not all(len(side) for side in sides):
        raise ValueError("give defective, good and unlabelled images; one of them has none")
    at = np.unique(np.concatenate(sides[:2]))
    apart = _from(sides[0], at) - _from(sides[1], at)
    if apart.max() < LEAST_APART:
        raise ValueError(
            f"defective and good scores overlap (at most {apart.max():.2f} apart); "
            "mend the model, or give the prevalence"
        )
    threshold = at[[int(apart.argmax())]]
    rng = np.random.default_rng(seed)
    drawn = [_share(sides, threshold)]
    for _ in range(draws):
        again = [side[rng.integers(0, len(side), len(side))] for side in sides]
        drawn.append(_share(again, threshold))
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    n = len(sides[2])
    return Rate("prevalence", n, round(drawn[0] * n), float(low), float(high))


def _share(sides: list[Floats], threshold: Floats) -> float:
    high, low, mixed = (float(_from(side, threshold)[0]) for side in sides)
    return float(np.clip((mixed - low) / max(high - low, LEAST_APART / 2), 0.0, 1.0))


def _from(scores: Floats, at: Floats) -> Floats:
    return 1.0 - np.searchsorted(np.sort(scores), at) / len(scores)
