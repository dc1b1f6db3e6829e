"""A model together with rows that it decides on: what reports of explanations are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background
from tasks.explain.catalogue.model import Catalogue
from tasks.explain.languages import Language
from tasks.explain.player_explanation import PlayerExplanation
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


Words = tuple[Catalogue | None, Language]
"""Catalogue of the reasons, None for what the model brings itself, and their language."""

NO_WORDS: Words = (None, "en")


@dataclass(frozen=True, slots=True)
class Beneath:
    """Why a model that the explained one reads says what it says of one row.

    Attributes:
        player: Label of the player that stands for it in the explanation above.
        feature: What the explained model reads of it.
        unit: Of the values.
        found: One row.
    """

    player: str
    feature: str
    unit: str
    found: PlayerExplanation

    @property
    def raising(self) -> tuple[tuple[str, float], ...]:
        """Player and value of what raised it, strongest first."""
        values = self.found.values[0]
        return tuple(
            (self.found.players[p], float(values[p])) for p in self.found.order[0] if values[p] > 0
        )


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
        beneath: Explains what the row at a place reads of a model beneath; None: there is none.
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
    beneath: Callable[[int], Beneath] | None = None
