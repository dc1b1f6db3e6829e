"""A model together with rows that it decides on: what reports of explanations are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background
from tasks.explain.catalogue.model import MOST_REASONS
from tasks.explain.reasons import Reason
from tasks.explain.record import ExplanationSet, ModelName, RowFacts
from tasks.explain.scores import ScoreFunction

UNKNOWN = -1
"""Outcome of a row whose truth is not known."""


@dataclass(frozen=True, slots=True)
class Explained:
    """Explanations of rows with the reasons in words.

    Attributes:
        found: The record.
        reasons: Of each row, strongest first.
    """

    found: ExplanationSet
    reasons: tuple[tuple[Reason, ...], ...]


class Explain(Protocol):
    """Explains rows of a subject."""

    def __call__(self, places: NDArray[np.intp], background: Background | None = None) -> Explained:
        """Explain the rows at some places, against another background than the frozen one."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and n rows.

    Attributes:
        title: What pages call it.
        model: Which model.
        rows: float32 ``[n, F]`` as the model reads them.
        facts: Of the rows; ``decided`` holds their scores.
        background: Frozen rows explanations compare with.
        score: Scores that decisions are made on, of any rows ``[m, F]``.
        explain: Explains chosen rows.
        thresholds: Decision -> score from which it is made.
        outcomes: int8 ``[n]``: 1 bad, 0 good, -1 unknown.
        entity: int64 ``[n]``, whose rows belong together; None: not known.
        entity_name: What such a one is called.
        fixed: Names of players that nobody could change.
    """

    title: str
    model: ModelName
    rows: NDArray[np.float32]
    facts: RowFacts
    background: Background
    score: ScoreFunction
    explain: Explain
    thresholds: Mapping[str, float]
    outcomes: NDArray[np.int8]
    entity: NDArray[np.int64] | None = None
    entity_name: str = ""
    fixed: frozenset[str] = field(default_factory=frozenset)


def plain_reasons(
    found: ExplanationSet, *, limit: int = MOST_REASONS, share: float = 0.05
) -> tuple[tuple[Reason, ...], ...]:
    """Give each row the players that raised its score, said by name and value.

    Args:
        found: Explanations.
        limit: Most reasons of a row.
        share: Share of the strongest reason below which a player is none.
    """
    order, ties = found.order, found.ties
    told = []
    for row in range(len(found)):
        ranked = order[row]
        strongest = float(found.values[row, ranked[0]]) if len(ranked) else 0.0
        reasons = []
        for place, player in enumerate(ranked[:limit].tolist()):
            value = float(found.values[row, player])
            if value <= 0 or value < share * strongest:
                break
            reasons.append(
                Reason(
                    _said(found, row, player),
                    found.contract.players.names[player],
                    value,
                    float(found.errors[row, player]),
                    tie=place < ties.shape[1] and bool(ties[row, place]),
                )
            )
        told.append(tuple(reasons))
    return tuple(told)


def _said(found: ExplanationSet, row: int, player: int) -> str:
    """Say a player of a row: one feature by its value, several by up to three values."""
    players = found.contract.players
    own = [f for f, owner in enumerate(players.owner) if owner == player]
    label = found.contract.labels[player]
    if len(own) == 1:
        return f"{label} is {number(found.data[row, own[0]])}"
    values = ", ".join(f"{players.features[f]} {number(found.data[row, f])}" for f in own[:3])
    return f"{label} ({values}{', ...' if len(own) > 3 else ''})"


def number(value: float) -> str:
    """Write a feature value shortly.

    >>> number(1234.5678), number(12.0), number(float("nan"))
    ('1,235', '12', 'missing')
    """
    if np.isnan(value):
        return "missing"
    text = f"{value:,.4g}"
    return f"{value:,.0f}" if "e" in text and abs(value) < 1e15 and abs(value) >= 1 else text
