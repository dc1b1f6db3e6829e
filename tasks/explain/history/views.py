"""What explained histories come to: by event, by feature, and by cell of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.explain.player_explanation import PlayerExplanation

Float = NDArray[np.float64]
OLDER = "older events"
"""Name of the player that lumps what pruning cut off."""


@dataclass(frozen=True, slots=True)
class HistoryView:
    """Values of events or of features for some histories, which need not have the same players.

    Attributes:
        players: Names of the P columns, the last one ``OLDER``. Events are ``event[0]`` (newest),
            ``event[-1]`` and so on.
        values: Shapley values ``[n, P]``; 0 where a history has no such player.
        errors: Standard errors by the draw of coalitions ``[n, P]``; 0 where exact.
        present: Whether a history has a player ``[n, P]``.
        base: Mean score of the background at the length of each history ``[n]``.
        scores: The model's scores ``[n]``; base plus the sum of a row's values.
        gap: Largest ``|base + sum - score|``.
        drawn: Whether coalitions were drawn ``[n]``.
        evaluations: Mixed histories scored for each row ``[n]``.
        background_sha256: Digest of the background.
        seed: Of the draw.
    """

    players: tuple[str, ...]
    values: Float
    errors: Float
    present: NDArray[np.bool_]
    base: Float
    scores: Float
    gap: float
    drawn: NDArray[np.bool_]
    evaluations: NDArray[np.int64]
    background_sha256: str
    seed: int

    def row(self, place: int) -> PlayerExplanation:
        """Return one history's own explanation, with its order, ties and shap plots."""
        own = np.flatnonzero(self.present[place])
        one = slice(place, place + 1)
        drawn = bool(self.drawn[place])
        return PlayerExplanation(
            tuple(self.players[player] for player in own),
            self.values[one, own],
            self.errors[one, own],
            float(self.base[place]),
            self.scores[one],
            self.gap,
            "sampled" if drawn else "exact",
            self.evaluations[one],
            self.background_sha256,
            self.seed if drawn else None,
            np.full((1, len(own)), np.nan),
        )


@dataclass(frozen=True, slots=True)
class CellView:
    """How the value of the foremost events of each history is divided among its features.

    Attributes:
        features: The feature players.
        event: Event player of each place ``[n, E]``, 0 the newest; -1 where there are fewer.
        feature: Feature player of each cell ``[n, K]``, the foremost first; -1 where fewer.
        values: ``[n, E, K + 1]``, the last for all other features; they sum to the event's value.
        errors: Standard errors by the draw ``[n, E, K + 1]``; 0 where exact.
        evaluations: Mixed histories scored for each row ``[n]``.
    """

    features: tuple[str, ...]
    event: NDArray[np.int64]
    feature: NDArray[np.int64]
    values: Float
    errors: Float
    evaluations: NDArray[np.int64]
