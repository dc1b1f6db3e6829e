"""The fraud job's stages as Prefect tasks."""

from __future__ import annotations

from pathlib import Path

from tasks.fraud import stages
from tasks.steps import Record, at, cached_step
from tasks.workspace import fill


@cached_step("build features")
def build_features(
    place: str, *, data: str, config: Record, categories: Record | None = None
) -> Record:
    """Compute the feature table; ``categories`` are those a model knows, None those of the data."""
    return fill(
        at(place),
        lambda d: stages.build_features_stage(
            d, data=Path(data), config=config, categories=categories
        ),
    )


@cached_step("plan folds", timeout=600)
def plan_folds(place: str, *, data: str, config: Record) -> Record:
    """Lay the folds over the data."""
    return fill(at(place), lambda d: stages.plan_stage(d, data=Path(data), config=config))
