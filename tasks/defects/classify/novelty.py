"""Whether a defect is of none of the labelled types, with a stated share of false alarms.

The score is the squared distance to the nearest type's mean, over what is usual within that type:
a tight type has little room for strangers, a loose one much. The usual size is the geometric mean
of held-out distances, halfway (in logarithms) towards that of all types, since few labels tell
little. A conformal p-value against held-out labels (Vovk et al. 2005) makes a rate of it; images of
one part are one witness, so each part stands there by one of its images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.defects.classify.ensemble import HeldOut, Targets

Floats = NDArray[np.float64]
TRUST = 0.5
"""Share of a type's own usual distance, the rest that of all types."""


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """What is usual for labelled samples.

    Attributes:
        usual: [types], squared distances.
        scores: Sorted scores of held-out parts.
    """

    usual: Floats
    scores: Floats

    def p_values(self, distances: Floats) -> Floats:
        """Return the share of samples of known types that are as far from all types.

        At least 1 / (parts + 1), so fewer than 19 labelled parts never get to .05.

        Args:
            distances: [n, types], squared.
        """
        scores = (distances / self.usual).min(axis=1)
        as_far = len(self.scores) - np.searchsorted(self.scores, scores, side="left")
        return np.asarray((1 + as_far) / (len(self.scores) + 1))


def learn_novelty(held_out: HeldOut, targets: Targets, types: int, parts: Sequence[str]) -> Novelty:
    """Learn what is usual from labelled samples judged by fits without them.

    Args:
        held_out: Of `fit_ensemble`.
        targets: int [n] of all labelled samples.
        types: Number of types.
        parts: [n], the part that each labelled sample shows.
    """
    if not len(held_out.places):
        return Novelty(np.ones(types), np.zeros(0))
    known = targets[held_out.places]
    own = np.log(held_out.distances[np.arange(len(known)), known] + 1e-9)
    usual = np.full(types, own.mean())
    for each in np.unique(known):
        usual[each] = TRUST * own[known == each].mean() + (1 - TRUST) * own.mean()
    usual = np.exp(usual)
    scores = (held_out.distances / usual).min(axis=1)
    shuffled = np.random.default_rng(0).permutation(len(scores))
    one = {parts[held_out.places[i]]: i for i in shuffled}
    return Novelty(usual, np.sort(scores[list(one.values())]))


def with_unknown(posterior: Floats, p_values: Floats, alpha: float) -> Floats:
    """Return [n, types + 1], rows of sum 1, the last column being that of no known type.

    Unknown weighs ``alpha / p`` times as much as the likeliest type, so that it is the likeliest
    of all exactly where p is at most alpha.

    Args:
        posterior: [n, types], rows of sum 1.
        p_values: [n].
        alpha: Share of samples of known types that may be called unknown; 0 for none.
    """
    odds = alpha / p_values
    odds = np.where(p_values <= alpha, np.maximum(odds, 1 + 1e-9), odds)
    unknown = posterior.max(axis=1) * odds
    whole = np.concatenate([posterior, unknown[:, None]], axis=1)
    return np.asarray(whole / whole.sum(axis=1, keepdims=True))
