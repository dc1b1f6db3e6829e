"""Values of players for some rows, with what an auditor needs to repeat them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.explain.ties import order_of, ties_of

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlayerExplanation:
    """What each player added to the scores of some rows.

    Attributes:
        players: The P player names.
        values: Shapley values ``[n, P]`` in units of the score; base plus their sum is the score.
        errors: Standard error of each by the draw of coalitions ``[n, P]``; 0 where exact. The
            background is not drawn: it is frozen.
        base: Mean score of the background.
        scores: The model's scores ``[n]``.
        gap: Largest ``|base + sum of values - score|``.
        method: Whether all coalitions were counted, some were drawn, or a network that learned such
            values was asked (``amortised``; rows of 0 evaluations are its own).
        evaluations: Mixed rows scored for each row ``[n]``.
        background_sha256: Digest of the background.
        seed: Seed of the draw; None where exact.
        data: Feature value of each player ``[n, P]`` for plots; NaN for a group.
    """

    players: tuple[str, ...]
    values: Float
    errors: Float
    base: float
    scores: Float
    gap: float
    method: Literal["exact", "sampled", "amortised"]
    evaluations: NDArray[np.int64]
    background_sha256: str
    seed: int | None
    data: Float

    @property
    def order(self) -> NDArray[np.intp]:
        """Players of each row, what raised the score most first, ``[n, P]``."""
        return order_of(self.values)

    @property
    def ties(self) -> NDArray[np.bool_]:
        """Whether the error bars leave open which of a place and the next is larger ``[n, P-1]``.

        Places are those of ``order``. Players of exact values that differ by no more than rounding
        tie, too.
        """
        return ties_of(self.values, self.errors, self.base, self.scores)

    def to_shap(self) -> Any:
        """Return a ``shap.Explanation`` for shap's plots."""
        import shap

        return shap.Explanation(
            self.values,
            base_values=np.full(len(self.values), self.base),
            data=self.data,
            feature_names=list(self.players),
        )
