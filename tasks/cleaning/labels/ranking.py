"""All scores by name, and the one that ranks unless another is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from tasks.cleaning.labels.noise import noise_posterior
from tasks.cleaning.labels.scores import (
    Floats,
    Labels,
    adjusted,
    checked,
    class_calibrated,
    confidence_weighted_entropy,
    normalized_margin,
    self_confidence,
    tempered_margin,
)

DEFAULT = "noise_posterior"
SCORES: Mapping[str, Callable[[Labels, Floats], Floats]] = {
    "self_confidence": self_confidence,
    "normalized_margin": normalized_margin,
    "confidence_weighted_entropy": confidence_weighted_entropy,
    "self_confidence_adjusted": lambda y, p: self_confidence(y, adjusted(y, p)),
    "normalized_margin_adjusted": lambda y, p: normalized_margin(y, adjusted(y, p)),
    "tempered_margin": tempered_margin,
    "class_calibrated": class_calibrated,
    "noise_posterior": noise_posterior,
}
"""Name -> doubt [N] about labels [N] under probabilities [N, K], as ``checked`` returns them."""


def doubts(labels: ArrayLike, probabilities: ArrayLike, score: str = DEFAULT) -> Floats:
    """Return the doubt about every given label [N], higher is more doubtful.

    Args:
        labels: Class numbers [N].
        probabilities: Out-of-sample probabilities [N, K].
        score: A name of ``SCORES``.

    Raises:
        ValueError: Unknown score, or what ``scores.checked`` refuses.
    """
    if score not in SCORES:
        raise ValueError(f"no label score {score!r}; there are {', '.join(SCORES)}")
    y, p = checked(labels, probabilities)
    return SCORES[score](y, p) if len(y) else np.zeros(0)
