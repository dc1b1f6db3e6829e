"""What the page of a model's explanations shows, collected from a subject."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.explain.drift import Drift, DriftConfig, Segment, drift, segments
from tasks.explain.errors import ExplanationError
from tasks.explain.record import ExplanationSet
from tasks.explain.stability import Stability, stability
from tasks.explain.subject import Subject


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What goes into the page of a model.

    Attributes:
        redraws: Redraws of the background; 0: none.
        redrawn: Rows explained again for each.
        drift: How weeks are compared.
    """

    redraws: int = 5
    redrawn: int = 100
    drift: DriftConfig = field(default_factory=DriftConfig)


@dataclass(frozen=True, slots=True)
class ModelPage:
    """A model's explanations.

    Attributes:
        title: Of the model.
        found: The explanations.
        rows_per_s: Rows explained a second, wall time.
        flagged: Share of rows that reach the lightest threshold; None without thresholds.
        divisions: Name of a division -> its segments.
        steady: Stability over redraws; None where the background plays no part or not asked.
        drifted: Weeks compared; None where there are too few.
        undrifted: Why there is no drift; empty where there is.
    """

    title: str
    found: ExplanationSet
    rows_per_s: float
    flagged: float | None
    divisions: dict[str, tuple[Segment, ...]]
    steady: Stability | None
    drifted: Drift | None
    undrifted: str

    @property
    def metrics(self) -> dict[str, float]:
        """Figures for tracking."""
        made = {
            "shap/additivity_max": self.found.contract.gap,
            "shap/rows_per_s": self.rows_per_s,
            "shap/error_max": float(self.found.errors.max(initial=0.0)),
        }
        if self.steady is not None:
            made["shap/top4_stability"] = self.steady.overlap
            made["shap/top1_stability"] = self.steady.first
        if self.drifted is not None:
            made["shap/drift_alarms"] = float(len(self.drifted.alarms))
        return made


def collect_model(
    subject: Subject, places: NDArray[np.intp], config: ModelConfig | None = None
) -> ModelPage:
    """Explain rows of a subject and summarise them.

    Args:
        subject: Model and rows.
        places: Rows to explain.
        config: What to show.

    Raises:
        ExplanationError: When rows cannot be explained, or there are none.
    """
    settings = config or ModelConfig()
    if not len(places):
        raise ExplanationError("no rows to explain: take more days, or another table")
    began = time.perf_counter()
    found = subject.explain(places).found
    speed = len(places) / max(time.perf_counter() - began, 1e-9)
    lightest = min(subject.thresholds.values(), default=None)
    clusters = None if subject.entity is None else subject.entity[places]
    drifted, why = _drift(found, settings.drift, clusters)
    return ModelPage(
        subject.title,
        found,
        speed,
        None if lightest is None else float((found.decided >= lightest).mean()),
        {name: segments(found, name) for name in found.segments},
        _stability(subject, places, found, settings),
        drifted,
        why,
    )


def _drift(
    found: ExplanationSet, config: DriftConfig, clusters: NDArray[np.int64] | None
) -> tuple[Drift | None, str]:
    if found.times is None:
        return None, "the rows have no instants"
    try:
        labels = found.contract.labels
        return drift(found.values, found.times, labels, config, clusters=clusters), ""
    except ExplanationError as error:
        return None, str(error)


def _stability(
    subject: Subject, places: NDArray[np.intp], found: ExplanationSet, settings: ModelConfig
) -> Stability | None:
    """Explain the rows with the highest scores again: reasons are asked of them."""
    if settings.redraws < 1 or not found.contract.background_sha256:
        return None
    chosen = places[np.argsort(-found.decided, kind="stable")[: settings.redrawn]]
    return stability(
        lambda background: subject.explain(chosen, background).found.values,
        subject.background,
        draws=settings.redraws,
    )
