"""Explanations in MLflow: the record, plots, pages and comparable figures of one run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from connectors.explain.plots import write_plots
from connectors.explain.set_files import ARRAYS, CONTRACT, read_set
from connectors.tracking import RunRequest, tracked_run
from tasks.explain.record import ExplanationSet, RecordError

FOLDER = "explanation"


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """Where an explanation is tracked.

    Attributes:
        run_id: Of the run.
        page: Its page, or its id without a server.
    """

    run_id: str
    page: str


def log_explanations(
    dataset: str,
    name: str,
    folder: Path,
    digest: str,
    *,
    metrics: Mapping[str, float] | None = None,
    pages: Iterable[Path] = (),
    exact: ExplanationSet | None = None,
    uri: str = "",
) -> LoggedRun:
    """Log a record as a run of its own.

    Artifacts: ``explanation/`` with arrays and contract, ``plots/``, the pages. Metrics:
    ``shap/additivity_max`` and those given; ``shap/rel_l2_vs_exact`` where exact values are known.

    Args:
        dataset: Names the experiment ``penstock/<dataset>``.
        name: Of the run.
        folder: Of the record.
        digest: Of the record; one that was changed since is not logged.
        metrics: Further figures.
        pages: HTML files.
        exact: The same rows explained exactly.
        uri: Tracking URI; empty: ``MLFLOW_TRACKING_URI``.

    Raises:
        RecordError: When the record was changed, or ``exact`` is of other rows.
    """
    found = read_set(folder, expected=digest)
    contract = found.contract
    figures = {"shap/additivity_max": contract.gap, "shap/rows": float(len(found))}
    figures |= dict(metrics or {})
    if exact is not None:
        figures["shap/rel_l2_vs_exact"] = rel_l2(found, exact)
    request = RunRequest(
        dataset=dataset,
        name=name,
        params={
            "explainer": contract.explainer, "method": contract.method, "unit": contract.unit,
            "players": len(contract.players), "features": len(contract.players.features),
            "seed": contract.seed, "options": dict(contract.options),
        },
        tags={
            "model": contract.model.name, "model_version": contract.model.version,
            "model_sha256": contract.model.digest, "explanation_sha256": digest,
            "background_sha256": contract.background_sha256,
        },
        git_commit=contract.code,
        uri=uri,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="penstock-") as drawn, tracked_run(request) as run:
        run.log_metrics(figures)
        for file in (ARRAYS, CONTRACT):
            run.log_file(folder / file, FOLDER)
        for plot in write_plots(found, Path(drawn)):
            run.log_file(plot, "plots")
        for page in pages:
            run.log_file(page)
        return LoggedRun(run.run_id, run.page)


def rel_l2(found: ExplanationSet, exact: ExplanationSet) -> float:
    """Return the mean over rows of ``|values - exact| / |exact|`` (Euclidean norms).

    Raises:
        RecordError: When the records are of other rows or players.
    """
    if found.keys != exact.keys or found.contract.players != exact.contract.players:
        raise RecordError("exact values are of other rows or players; explain the same ones")
    size = np.maximum(np.linalg.norm(exact.values, axis=1), 1e-300)
    return float((np.linalg.norm(found.values - exact.values, axis=1) / size).mean())
