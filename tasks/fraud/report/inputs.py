"""Collects what a training run and a scored day left behind into the report's inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.explain.background import Background
from tasks.explain.groups import FeatureGroups
from tasks.explain.reasons import Reason, rank_reasons, top_groups
from tasks.fraud.catalogue import bundle_catalogue, bundle_wording
from tasks.fraud.evaluation.figures import StoredFold
from tasks.fraud.evaluation.protocol import DAY_MS, iso_day
from tasks.fraud.heads.explain import explain_head
from tasks.fraud.heads.files import head_from_dict
from tasks.fraud.online.head import FastHead
from tasks.fraud.report import ReportInputs
from tasks.fraud.report.assemble import (
    alert_rows,
    check_summary,
    dataset_summary,
    describe_environment,
    promotion_row,
)
from tasks.fraud.report.judged import judged_sections, threshold_rows
from tasks.fraud.score import GraphInputs, last_days, score_transactions

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.explain.catalogue.model import Catalogue
    from tasks.explain.languages import Language
    from tasks.fraud.bundle import Bundle
    from tasks.fraud.evaluation.plan import Plan
    from tasks.fraud.features import FeatureSet
    from tasks.fraud.ingest.check_report import CheckReport
    from tasks.fraud.report.model import Promotion
    from tasks.fraud.transactions import Transactions

MAX_ALERTS = 50


@dataclass(frozen=True, slots=True)
class ReportSources:
    """Where a report's facts come from.

    Attributes:
        bundle: The model.
        tx: All transactions.
        features: Their features.
        plan: The folds.
        test: Judged test folds, newest first.
        checks: What the checks did.
        quarantine: Quarantined rows, for the examples.
        source: Name of the input.
        model: Registered name and version.
        promotion: The decision, None when it was not asked for.
        durations: Step -> seconds.
        run_page: Page of the tracked run.
    """

    bundle: Bundle
    tx: Transactions
    features: FeatureSet
    plan: Plan
    test: Sequence[StoredFold]
    checks: CheckReport
    source: str
    quarantine: pa.Table | None = None
    model: str = ""
    promotion: Promotion | None = None
    durations: Mapping[str, float] = field(default_factory=dict)
    run_page: str = ""


def collect_report(sources: ReportSources) -> ReportInputs:
    """Return everything the report of a training run shows."""
    bundle, tx = sources.bundle, sources.tx
    fold, newest = sources.plan.test[0], sources.test[0]
    label = tx.label[newest.rows]
    shipped = score_transactions(bundle, tx, rows=newest.rows, features=sources.features)
    rows, scores = last_day(bundle, tx, sources.features)
    alerts, reasons, strengths = explain_alerts(bundle, tx, sources.features, rows, scores)
    days = (fold.test_end - fold.test_start) / DAY_MS
    judged = judged_sections(
        tx, sources.test, sources.plan, active=bundle.active, calibrated=shipped
    )
    return ReportInputs(
        title=f"Fraud model of {bundle.config.name}",
        model=sources.model or f"fraud-{bundle.config.name}",
        dataset=dataset_summary(
            tx, bundle.config, source=sources.source, digest=bundle.manifest.data_digest
        ),
        checks=check_summary(
            sources.checks, sources.quarantine, limit=bundle.config.max_quarantine_share
        ),
        **judged,
        importance=strengths,
        thresholds=threshold_rows(
            bundle.thresholds,
            label,
            shipped,
            tx.amount[newest.rows] / 10**bundle.config.decimals,
            days,
        ),
        alert_day=iso_day(int(tx.time[-1])),
        alerts=alert_rows(
            tx,
            rows[alerts],
            scores[alerts],
            reasons,
            decimals=bundle.config.decimals,
            now=int(tx.time[-1]),
        ),
        alerts_total=int((scores >= alert_threshold(bundle)).sum()),
        promotion=sources.promotion or promotion_row(promoted=None, reason="not asked"),
        environment=describe_environment(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=bundle.manifest.git_commit,
            durations=sources.durations,
            run_url=sources.run_page,
        ),
        explained_by="exact contributions (interventional SHAP) of the active head, in log-odds",
    )


def last_day(
    bundle: Bundle, tx: Transactions, features: FeatureSet
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Score the last day of the data; return its rows and scores."""
    rows = last_days(tx, 1.0)
    return rows, score_transactions(bundle, tx, rows=rows, features=features)


def alert_threshold(bundle: Bundle) -> float:
    """Return the score of the policy a report lists alerts by: a hundred entities a day."""
    policies = bundle.thresholds["alerts_per_day"]
    return float(policies.get("100") or next(iter(policies.values())))


def explain_alerts(
    bundle: Bundle,
    tx: Transactions,
    features: FeatureSet,
    rows: NDArray[np.intp],
    scores: NDArray[np.float64],
    *,
    limit: int = MAX_ALERTS,
    catalogue: Catalogue | None = None,
    language: Language = "en",
) -> tuple[NDArray[np.intp], list[list[Reason]], tuple[Any, ...]]:
    """Choose the day's alerts and say why.

    Args:
        bundle: The model.
        tx: All transactions.
        features: Their features.
        rows: Rows of the day.
        scores: Their scores, same length.
        limit: Most alerts.
        catalogue: Codes and words of the reasons; None: those the bundle holds.
        language: Language of the reasons.

    Returns:
        Places of the alerts in ``rows``, their reasons, and the strongest feature groups.
    """
    from tasks.fraud.report.rows import Importance

    order = np.argsort(-scores, kind="stable")[:limit]
    alerts = order[scores[order] >= alert_threshold(bundle)]
    if not len(alerts):
        alerts = order[:1]
    names, values, background = explained_inputs(bundle, tx, features, rows[alerts])
    stored = json.loads(bundle.read_extra("heads.json"))
    head = head_from_dict(stored[bundle.active])
    groups = FeatureGroups.of(names, [e.column for e in bundle.config.entities])
    overall = explain_head(head, names, background.values, background)
    strengths = tuple(Importance(*pair) for pair in top_groups(overall, groups))
    fast = FastHead.load(bundle, catalogue=catalogue, language=language)
    if fast.explains:  # what API and stream answer with
        return alerts, [fast.reasons(row) for row in values], strengths
    explanation = explain_head(head, names, values, background)
    words = catalogue or bundle_catalogue(bundle)
    wording = bundle_wording(bundle, language)
    reasons = rank_reasons(explanation, values, groups, wording=wording, catalogue=words)
    return alerts, reasons, strengths


def explained_inputs(
    bundle: Bundle, tx: Transactions, features: FeatureSet, rows: NDArray[np.intp]
) -> tuple[tuple[str, ...], NDArray[np.float32], Background]:
    """Return names, inputs and background of what the active head's trees read."""
    names = bundle.feature_names
    values = np.ascontiguousarray(features.select(names)[rows])
    if not bundle.needs_graph():
        return names, values, Background(names, bundle.background())
    from tasks.fraud.graph import SIGNALS

    inputs = GraphInputs(bundle, tx, features).of(rows) | {"features": values}
    wide = np.concatenate([values, bundle.signals(inputs)], axis=1)
    names = (*names, *SIGNALS)
    return names, wide, Background(names, bundle.background(signals=True))
