"""The whole explanation of one scored row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tasks.explain.reasons import Reason
from tasks.explain.tree import Method


@dataclass(frozen=True, slots=True)
class GroupContribution:
    """What a group of features added to the score of one row.

    Attributes:
        group: Stable key of the group.
        label: The group in words.
        contribution: Log-odds, mean over the head's models; negative where it lowered the score.
        error: Standard error of the contribution, log-odds: over the head's models at this row, and
            over backgrounds of this size as the mean over the background rows.
        tie: Whether the next weaker one is as good within the errors of both.
    """

    group: str
    label: str
    contribution: float
    error: float
    tie: bool


@dataclass(frozen=True, slots=True)
class HeadExplanation:
    """Why a head gave one row its score: base and contributions add up to the log-odds.

    Attributes:
        log_odds: Score of the row before calibration.
        base: Mean log-odds of the background rows; with method ``path``, of the training rows.
        groups: Every group of features, from what raised the score most to what lowered it most.
        reasons: What raised it, in words, strongest first.
        additivity_gap: ``|base + contributions - log_odds|``; a larger one than allowed is an error
            and never told.
        method: ``interventional``, or ``path`` for trees of a bundle without a background.
        background_sha256: Digest of the background; empty for ``path``.
        background_rows: Number of its rows; 0 for ``path``.
        models: Number of models of the head.
    """

    log_odds: float
    base: float
    groups: tuple[GroupContribution, ...]
    reasons: tuple[Reason, ...]
    additivity_gap: float
    method: Method
    background_sha256: str
    background_rows: int
    models: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
