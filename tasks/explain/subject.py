"""A model together with rows that it decides on: what reports of explanations are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background
from tasks.explain.catalogue.model import Catalogue
from tasks.explain.languages import Language
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
