"""What rules are mined from: a model's decisions on rows, and how far it was from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.explain.rules.engine import Codes
from tasks.explain.rules.model import DECISIONS, RuleSetError

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Teacher:
    """Decisions of a model.

    Attributes:
        decisions: int8 [n], places in ``DECISIONS``.
        margins: float64 [2, n], score above the threshold of review, of block; not below 0 where
            the row is decided at least so gravely.
    """

    decisions: Codes
    margins: Reals

    @classmethod
    def from_scores(cls, scores: ArrayLike, review_at: float, block_at: float) -> Teacher:
        """Read scores.

        Args:
            scores: [n], log-odds.
            review_at: Score from which a row is reviewed.
            block_at: Score from which it is blocked.

        Raises:
            RuleSetError: On scores that are not finite, or thresholds out of order.
        """
        given = np.asarray(scores, dtype=np.float64)
        if given.ndim != 1 or not np.isfinite(given).all():
            raise RuleSetError(
                "a teacher needs one finite score a row; leave out rows that it could not score"
            )
        if not (np.isfinite(review_at) and review_at <= block_at):
            raise RuleSetError(
                f"review_at {review_at} must be finite and not above block_at {block_at}"
            )
        # Equal numbers have difference 0, unequal ones another: doubles have subnormal numbers.
        margins = np.stack([given - review_at, given - block_at])
        return cls((margins >= 0).sum(axis=0).astype(np.int8), margins)

    @classmethod
    def from_decisions(cls, decisions: ArrayLike) -> Teacher:
        """Read decisions [n], places in ``DECISIONS``; every margin is 1 or -1.

        Raises:
            RuleSetError: On decisions that are none.
        """
        given = np.asarray(decisions)
        if given.ndim != 1 or not np.isin(given, range(len(DECISIONS))).all():
            raise RuleSetError("decisions must be 0 (approve), 1 (review) or 2 (block)")
        margins = np.where([given >= 1, given >= 2], 1.0, -1.0)
        return cls(given.astype(np.int8), margins)
